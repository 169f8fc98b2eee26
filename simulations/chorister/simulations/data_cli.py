"""`chorister data`: fetch a public corpus, synthesise the embedded one, or look into a folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chorister.shared.console import (
    add_output_options,
    apply_output_options,
    print_json,
    progress,
    say,
)
from chorister.shared.errors import BadAudio
from chorister.shared.voice.audio import probe_recording
from chorister.simulations.corpus import Corpus, open_corpus, read_split
from chorister.simulations.embedded import synthesise_corpus
from chorister.simulations.fetch import ARCHIVES, fetch_corpus
from chorister.simulations.separation import Separation, measure_separation, shipped_embed
from chorister.simulations.speakers import Skipped

SUMMARY = "fetch a public speech corpus, synthesise the embedded one, or describe a folder"

_EXAMPLES = """examples:
  chorister data fetch dev-clean --to data
  chorister data synthesise data/embedded
  chorister data describe data/dev-clean --separation
"""


def main(argv: Sequence[str]) -> int:
    """Run `chorister data` and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="chorister data",
        description=SUMMARY[0].upper() + SUMMARY[1:] + ".",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="fetch|synthesise|describe")
    fetch = verbs.add_parser("fetch", help="download, verify and unpack a corpus; resumes")
    fetch.add_argument("corpus", choices=sorted(ARCHIVES))
    fetch.add_argument("--to", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    fetch.add_argument("--base-url", metavar="URL", help="a mirror's folder with the same file")
    synthesise = verbs.add_parser("synthesise", help="write the embedded corpus to a folder")
    synthesise.add_argument("out", type=Path, metavar="OUT")
    describe = verbs.add_parser("describe", help="speakers, recordings and hours of a folder")
    describe.add_argument("folder", type=Path, metavar="DIR")
    describe.add_argument(
        "--speakers", nargs=2, metavar=("FILE", "LIST"), help="only the speakers of a split file"
    )
    describe.add_argument("--separation", action="store_true", help="compare the voices as well")
    for verb in (fetch, synthesise, describe):
        add_output_options(verb)
    options = parser.parse_args(list(argv))
    apply_output_options(options)
    figures = _VERBS[options.verb](options)
    if options.json:
        print_json(figures)
    return 0


def _fetch(options: argparse.Namespace) -> dict[str, Any]:
    archive = ARCHIVES[options.corpus]
    folder = fetch_corpus(options.corpus, archive, options.to, options.base_url)
    say(f"{folder}: {archive.licence}")
    say(f"Next: chorister simulate --data {folder}")
    return {"folder": str(folder), "licence": archive.licence}


def _synthesise(options: argparse.Namespace) -> dict[str, Any]:
    folder = synthesise_corpus(options.out)
    return _figures(open_corpus(folder), separation=True)


def _describe(options: argparse.Namespace) -> dict[str, Any]:
    names = read_split(*options.speakers) if options.speakers else None
    return _figures(open_corpus(options.folder, speakers=names), options.separation)


_VERBS = {"fetch": _fetch, "synthesise": _synthesise, "describe": _describe}


def _figures(corpus: Corpus, separation: bool) -> dict[str, Any]:
    skipped = Skipped()
    lengths_s: dict[str, float] = {}
    recordings = transcripts = 0
    with progress("Reading headers", len(corpus.speakers)) as step:
        for speaker in corpus.speakers:
            lengths_s[speaker.name] = 0.0
            for utterance in speaker.utterances:
                try:
                    lengths_s[speaker.name] += probe_recording(utterance.path)
                except BadAudio as error:
                    skipped.add(utterance.path, error)
                else:
                    recordings += 1
                    transcripts += utterance.transcript_path is not None
            step()
    total_s = sum(lengths_s.values())
    say(f"{corpus.root}: {corpus.layout}, {len(corpus.speakers)} speakers, {recordings} recordings")
    say(
        f"{total_s / 60:.0f} minutes, {min(lengths_s.values()):.0f} to "
        f"{max(lengths_s.values()):.0f} s a speaker; {transcripts} with transcripts"
    )
    if skipped.reasons:
        say(skipped.summary())
    figures: dict[str, Any] = {
        "folder": str(corpus.root),
        "layout": corpus.layout,
        "speakers": len(corpus.speakers),
        "recordings": recordings,
        "with_transcript": transcripts,
        "seconds": round(total_s, 3),
        "skipped": [{"file": file, "found": found} for file, found in skipped.listing()],
    }
    if separation:
        measured = measure_separation(corpus.speakers, shipped_embed())
        say(_sentence(measured))
        figures["separation"] = asdict(measured)
    return figures


def _sentence(measured: Separation) -> str:
    first, second, cosine = measured.closest
    return (
        f"Voices (cosine of the shipped speaker encoder): same {measured.same:.3f}, different "
        f"{measured.different:.3f}; {measured.identified:.0%} of {measured.utterances} utterances "
        f"identified among {measured.speakers}; closest pair {first} and {second}, {cosine:.3f}"
    )
