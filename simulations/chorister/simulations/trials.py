"""Who takes part in an evaluation, in which role, and with which recordings.

Fixed by the folder's content alone. Every tested voice gives disjoint sets: enrolment and
adaptation (what the model may see of it), tests (what is converted) and reference (what the judges
know the voice by). Candidates are only told apart; of the background, voices that the model was
trained on, the judges learn what people sound like.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from chorister.shared.console import progress
from chorister.shared.errors import BadAudio, BadCorpus, UsageError
from chorister.shared.types import Recording
from chorister.shared.voice.audio import load_recording
from chorister.simulations.corpus import Corpus, open_corpus, read_split
from chorister.simulations.speakers import Speaker, Utterance

SHORTEST_S = 2.5
LONGEST_S = 15.0
TESTS = 2
MIN_REFERENCE = 2
MAX_REFERENCE = 12
BACKGROUND_SPEAKERS = 30
BACKGROUND_RECORDINGS = 6
SPEAKERS_FILE = "speakers.csv"


@dataclass(frozen=True, slots=True)
class Voice:
    """One speaker's recordings by role; a candidate has reference recordings alone.

    Attributes:
        name: the speaker's label.
        sex: F or M; empty where it is not known.
        enrolment: what a zero-shot profile is computed from.
        adaptation: what personalising may see, the enrolment recordings first.
        tests: what is converted, and the real speech that conversions are compared with.
        transcripts: of the tests, None where the corpus has none.
        reference: what the judges' centroids and models are computed from.
    """

    name: str
    sex: str
    enrolment: tuple[Recording, ...]
    adaptation: tuple[Recording, ...]
    tests: tuple[Recording, ...]
    transcripts: tuple[str | None, ...]
    reference: tuple[Recording, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """Everyone in an evaluation.

    Attributes:
        tested: targets and sources.
        candidates: further voices that judges tell apart from the tested ones.
        background: recordings of voices that are in neither list.
    """

    tested: tuple[Voice, ...]
    candidates: tuple[Voice, ...]
    background: tuple[Recording, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an evaluation asks of a voice.

    Attributes:
        references: recordings that a zero-shot profile is computed from.
        adaptation_s: seconds that personalising may see; 0 for none beyond the enrolment.
        most: voices that are told apart, at most; None for all at hand.
    """

    references: int = 8
    adaptation_s: float = 0.0
    most: int | None = None

    @property
    def recordings(self) -> int:
        """How many a tested voice must have."""
        return self.references + TESTS + MIN_REFERENCE


@dataclass(frozen=True, slots=True)
class Pair:
    """One conversion: a test recording of the source in the voice of the target.

    Attributes:
        source: index of the source voice.
        target: index of the target voice, another one.
        test: index of the source's test recording.
    """

    source: int
    target: int
    test: int


def read_speakers(argument: str) -> tuple[str, ...]:
    """Speakers of FILE:NAME, a list in a JSON object of lists.

    Raises:
        UsageError: the argument has no colon.
        BadCorpus: the file has no such list.
    """
    file, colon, name = argument.rpartition(":")
    if not colon:
        raise UsageError(
            "--split takes FILE:NAME, a list of speakers in a JSON file.",
            repr(argument),
            "For example --split ../shared/data/librispeech/splits.json:dev_test.",
        )
    return read_split(file, name)


def read_sexes(data: Path) -> dict[str, str]:
    """Sex of each speaker by a speakers.csv (columns speaker_id and sex) in or above the folder.

    Returns:
        F or M by label; empty where there is no such file.

    Raises:
        BadCorpus: the file lacks a column.
    """
    for folder in (data, data.parent):
        path = folder / SPEAKERS_FILE
        if not path.is_file():
            continue
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if rows and not {"speaker_id", "sex"} <= rows[0].keys():
            raise BadCorpus(
                f"{SPEAKERS_FILE} has the columns speaker_id and sex.",
                f"{path} with {', '.join(str(key) for key in rows[0])}",
                "Rename its columns, or the file if it is about something else.",
            )
        known = {row["speaker_id"]: (row["sex"] or "").strip().upper()[:1] for row in rows}
        return {name: sex for name, sex in known.items() if sex in ("F", "M")}
    return {}


def check_not_trained(speakers: Collection[str], trained: Collection[str]) -> None:
    """Return if no speaker is one that the model was trained on.

    Raises:
        UsageError: some are.
    """
    known = sorted(set(speakers) & set(trained))
    if known:
        some = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
        raise UsageError(
            "A model is measured on speakers that it was not trained on.",
            f"{len(known)} of {len(set(speakers))} are in the weights' list: {some}",
            "Choose others, or add --allow-trained (for others of that label).",
        )


def open_panel(
    data: Path, speakers: Sequence[str] | None, trained: Collection[str], wanted: Wanted
) -> Panel:
    """Load everyone's recordings of 2.5 to 15 s.

    Args:
        data: a LibriSpeech or VCTK tree, or SPEAKER/... folders.
        speakers: who is tested; None for all that the model was not trained on.
        trained: whom the model was trained on, as far as is known.
        wanted: how much of each.

    Raises:
        BadCorpus: an unknown speaker, no data, or fewer than two with enough recordings.
    """
    corpus = open_corpus(data)
    if speakers is None:
        asked = tuple(s for s in corpus.speakers if s.name not in set(trained))
    else:
        asked = open_corpus(data, speakers=speakers).speakers
    names = {speaker.name for speaker in asked}
    # Without a list of whom the model knows, nobody else can be called unknown to it.
    others = [s for s in corpus.speakers if s.name not in names and trained]
    sexes = read_sexes(data)
    tested: list[Voice] = []
    with progress("Reading recordings", len(asked)) as step:
        for speaker in asked:
            if wanted.most is None or len(tested) < wanted.most:
                tested += _tested(speaker, sexes.get(speaker.name, ""), wanted)
            step()
    if len(tested) < 2:
        raise BadCorpus(
            f"An evaluation needs two speakers with {wanted.recordings} recordings"
            f" of {SHORTEST_S} to {LONGEST_S:.0f} s.",
            f"{len(tested)} in {data}",
            "Name other speakers, or lower --references.",
        )
    free = [speaker for speaker in others if speaker.name not in set(trained)]
    room = None if wanted.most is None else wanted.most - len(tested)
    candidates: list[Voice] = []
    for speaker in free:
        if room is None or len(candidates) < room:
            candidates += _candidate(speaker, sexes.get(speaker.name, ""), wanted)
    return Panel(tuple(tested), tuple(candidates), _background(corpus, others, trained))


def _background(
    corpus: Corpus, others: Sequence[Speaker], trained: Collection[str]
) -> tuple[Recording, ...]:
    """A few recordings of voices that the model knows; those with most of them first."""
    known = [speaker for speaker in others if speaker.name in set(trained)]
    known.sort(key=lambda speaker: (-len(speaker.utterances), speaker.name))
    found: list[Recording] = []
    for speaker in known[:BACKGROUND_SPEAKERS]:
        found += _load(_usable(speaker.utterances)[:BACKGROUND_RECORDINGS])
    return tuple(found)


def _tested(speaker: Speaker, sex: str, wanted: Wanted) -> list[Voice]:
    usable = _usable(speaker.utterances)
    if len(usable) < wanted.recordings:
        return []
    first, rest = usable[: wanted.references], usable[wanted.references :]
    tests, rest = rest[:TESTS], rest[TESTS:]
    last = rest[-MAX_REFERENCE:]
    enrolment = _load(first)
    spare = rest[: len(rest) - len(last)]
    voice = Voice(
        speaker.name,
        sex,
        enrolment,
        _until(enrolment, spare, wanted.adaptation_s),
        _load(tests),
        tuple(utterance.transcript() for utterance in tests),
        _load(last),
    )
    enough = enrolment and len(voice.tests) == TESTS and len(voice.reference) >= MIN_REFERENCE
    return [voice] if enough else []


def _candidate(speaker: Speaker, sex: str, wanted: Wanted) -> list[Voice]:
    usable = _usable(speaker.utterances)
    if len(usable) < wanted.recordings:
        return []
    reference = _load(usable[-MAX_REFERENCE:])
    voice = Voice(speaker.name, sex, (), (), (), (), reference)
    return [voice] if len(reference) >= MIN_REFERENCE else []


def _until(
    enrolment: tuple[Recording, ...], spare: Sequence[Utterance], seconds: float
) -> tuple[Recording, ...]:
    """Recordings up to so many seconds; at least the first one."""
    chosen: list[Recording] = []
    heard_s = 0.0
    for recording in enrolment:
        if not chosen or heard_s + recording.duration_s <= max(seconds, 0.0):
            chosen.append(recording)
            heard_s += recording.duration_s
    for utterance in spare:
        if heard_s + SHORTEST_S > seconds:
            break
        for recording in _load([utterance]):
            if heard_s + recording.duration_s <= seconds:
                chosen.append(recording)
                heard_s += recording.duration_s
    return tuple(chosen)


def _usable(utterances: Sequence[Utterance]) -> list[Utterance]:
    usable = []
    for utterance in utterances:
        try:
            duration_s = soundfile.info(str(utterance.path)).duration
        except soundfile.SoundFileError:
            continue
        if SHORTEST_S <= duration_s <= LONGEST_S:
            usable.append(utterance)
    return usable


def _load(utterances: Sequence[Utterance]) -> tuple[Recording, ...]:
    loaded = []
    for utterance in utterances:
        try:
            loaded.append(load_recording(utterance.path))
        except BadAudio:
            continue
    return tuple(loaded)


def fixed_pairs(voices: int, tests: int, targets: int, sources: int) -> list[Pair]:
    """Every target is paired with the voices that follow it in the list.

    Args:
        voices: how many there are, at least 2.
        tests: test recordings of each.
        targets: how many voices are targets, the first ones.
        sources: sources for each target; no voice is its own.

    Returns:
        the pairs, the same for the same numbers.
    """
    return [
        Pair((target + step) % voices, target, (target + step) % tests)
        for target in range(min(targets, voices))
        for step in range(1, min(sources, voices - 1) + 1)
    ]
