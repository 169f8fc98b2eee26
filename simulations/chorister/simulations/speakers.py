"""Speakers of a corpus, and which of their recordings serve for what.

Nothing is decoded until `Speaker.read` is called, and of what was decoded only the last file is
kept: memory does not grow with the number of speakers.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from chorister.shared.errors import BadAudio, BadCorpus
from chorister.shared.types import SAMPLE_RATE_HZ, Recording
from chorister.shared.voice.audio import load_recording, probe_recording
from chorister.simulations.shifts import apply_shift

ENROLMENT_SHARE = 0.30
HELD_OUT_SHARE = 0.15
ENROLMENT_UTTERANCES = 8
GAP_S = 0.25
GAP_SHARE = 0.02
SHORTEST_SINGLE_S = 1.9
# Of one recording without its gaps: 4, 6 and 2 of 12 s.
_SINGLE_PARTS = (4, 6, 2)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One file of a corpus.

    Attributes:
        path: the audio file.
        transcript_path: where its words are, as `NAME WORDS` lines or as the whole file; or None.
    """

    path: Path
    transcript_path: Path | None = None

    @property
    def name(self) -> str:
        """The file's name without folder and extension."""
        return self.path.stem

    def transcript(self) -> str | None:
        """Read what is said, or None where the corpus does not tell."""
        if self.transcript_path is None:
            return None
        text = self.transcript_path.read_text(encoding="utf-8", errors="replace")
        if not self.transcript_path.name.endswith(".trans.txt"):
            return text.strip() or None
        for line in text.splitlines():
            name, _, words = line.partition(" ")
            if name == self.name:
                return words.strip() or None
        return None


@dataclass(frozen=True, slots=True)
class Piece:
    """A recording, or a contiguous part of one.

    Attributes:
        utterance: the file.
        start_samples: first sample at 16 kHz.
        stop_samples: one past the last sample at 16 kHz; None is the end of the file.
    """

    utterance: Utterance
    start_samples: int = 0
    stop_samples: int | None = None

    @property
    def name(self) -> str:
        """The utterance's name, with the part's place where it is not the whole."""
        if self.start_samples == 0 and self.stop_samples is None:
            return self.utterance.name
        stop = "" if self.stop_samples is None else self.stop_samples
        return f"{self.utterance.name}[{self.start_samples}:{stop}]"


@dataclass(slots=True)
class Skipped:
    """Files that a run left out, each with the reason; every file counts once.

    Attributes:
        reasons: error by file, in the order in which they were found.
    """

    reasons: dict[Path, BadAudio] = field(default_factory=dict)

    def add(self, path: Path, error: BadAudio) -> None:
        """Note that a file was left out."""
        self.reasons.setdefault(path, error)

    def __len__(self) -> int:
        return len(self.reasons)

    def listing(self) -> tuple[tuple[str, str], ...]:
        """Return (file, what was wrong with it) for the report."""
        return tuple((str(path), error.found) for path, error in self.reasons.items())

    def summary(self) -> str:
        """Return one line with the count of files under each broken rule; empty if none."""
        if not self.reasons:
            return ""
        counts = Counter(error.rule for error in self.reasons.values())
        causes = " ".join(f"{count} x: {rule}" for rule, count in sorted(counts.items()))
        return f"{len(self)} file(s) skipped. {causes}"


@dataclass(frozen=True, slots=True)
class Speaker:
    """One voice of a corpus.

    Attributes:
        name: the corpus's own label.
        utterances: the files, in a fixed order; at least one.
        shift: what is applied to every recording when it is read (`shifts.SHIFT_KINDS`).
    """

    name: str
    utterances: tuple[Utterance, ...]
    shift: str = "none"

    def read(self, piece: Piece) -> Recording:
        """Decode one piece and apply the scenario's shift to it.

        The shift is applied after cutting, so that two pieces of one file stay apart.

        Raises:
            BadAudio: the file cannot be used, or the piece is not in it.
        """
        whole = _decode(piece.utterance.path).samples
        part = whole[piece.start_samples : piece.stop_samples]
        if not len(part):
            raise BadAudio(
                "A piece must lie within its recording.",
                f"{piece.name} of {len(whole)} samples",
                "The file is shorter than its header says; export or download it again.",
            )
        # A copy, so that the rest of the file is not kept alive by a view.
        return apply_shift(Recording(part.copy(), f"{self.name}/{piece.name}"), self.shift)

    def read_all(self, pieces: Iterable[Piece], skipped: Skipped) -> tuple[Recording, ...]:
        """Decode pieces, leaving out and noting the files that cannot be used.

        Args:
            pieces: of this speaker.
            skipped: takes what was left out.

        Raises:
            BadCorpus: none of the pieces can be used.
        """
        recordings: list[Recording] = []
        for piece in pieces:
            try:
                recordings.append(self.read(piece))
            except BadAudio as error:
                skipped.add(piece.utterance.path, error)
        if not recordings:
            raise BadCorpus(
                "A speaker needs a usable recording for each purpose.",
                f"none for speaker {self.name}. {skipped.summary()}",
                "Replace the files or leave the speaker out.",
            )
        return tuple(recordings)


@dataclass(frozen=True, slots=True)
class SpeakerSplit:
    """What of one speaker serves for what; no piece serves twice.

    Attributes:
        enrolment: speaker vector and statistics are computed from these, and nothing else.
        training: the segments that DP-SGD protects are cut from these.
        held_out: only measured on.
        single_recording: some of the three come from one file, so they share its microphone, room
            and mood, and a segment-level figure is no guarantee.
    """

    enrolment: tuple[Piece, ...]
    training: tuple[Piece, ...]
    held_out: tuple[Piece, ...]
    single_recording: bool


def split_speaker(speaker: Speaker) -> SpeakerSplit:
    """Divide a speaker's recordings among enrolment, training and held-out.

    Three files or more: whole files, about 30 % enrolment (at least 8 where that leaves half for
    the rest), 15 % held-out; which file goes where follows from its name, so sessions are mixed.
    Two files: one is enrolment, the other is cut. One file: contiguous pieces of 4, 6 and 2
    twelfths with gaps of 0.25 s between (2 % of the file where that is less).

    Raises:
        BadAudio: a file that has to be cut is shorter than 1.9 s or its header cannot be read.
    """
    ordered = _shuffled(speaker.utterances, speaker.name)
    if len(ordered) == 1:
        enrolment, training, held_out = _cut(ordered[0], _SINGLE_PARTS)
        return SpeakerSplit((enrolment,), (training,), (held_out,), True)
    if len(ordered) == 2:
        training, held_out = _cut(ordered[1], _SINGLE_PARTS[1:])
        return SpeakerSplit((Piece(ordered[0]),), (training,), (held_out,), True)
    count = len(ordered)
    enrolled = max(round(ENROLMENT_SHARE * count), min(ENROLMENT_UTTERANCES, count // 2), 1)
    measured = max(round(HELD_OUT_SHARE * count), 1)
    pieces = [Piece(utterance) for utterance in ordered]
    return SpeakerSplit(
        enrolment=tuple(pieces[:enrolled]),
        training=tuple(pieces[enrolled + measured :]),
        held_out=tuple(pieces[enrolled : enrolled + measured]),
        single_recording=False,
    )


def hold_out_speakers(
    speakers: Sequence[Speaker], share: float, seed: int, clients: int | None = None
) -> tuple[tuple[Speaker, ...], tuple[Speaker, ...]]:
    """Choose who federates and who is only measured.

    Args:
        speakers: all that may be chosen, at least two.
        share: held-out speakers as a share of all that are chosen, in [0, 1); above 0 gives at
            least one.
        seed: selects the speakers, with their names.
        clients: how many federate; None takes everybody who is not held out.

    Returns:
        clients and held-out speakers, each in the corpus's order.

    Raises:
        BadCorpus: there are fewer than two speakers, or more are wanted than there are.
    """
    available = len(speakers)
    if available < 2:
        raise BadCorpus(
            "A federation needs at least two speakers.",
            f"{available} usable speaker(s)",
            "Add recordings of more speakers, each in a folder of its own.",
        )
    if clients is None:
        measured = min(max(round(share * available), int(share > 0)), available - 1)
        clients = available - measured
    else:
        measured = max(round(clients * share / (1.0 - share)), int(share > 0))
    if clients + measured > available:
        raise BadCorpus(
            "Clients and held-out speakers must be different speakers of the corpus.",
            f"{clients} clients and {measured} held out wanted, {available} usable speakers",
            f"Ask for at most {_most_clients(available, share)} clients or add speakers.",
        )
    order = {speaker.name: _rank(str(seed), speaker.name) for speaker in speakers}
    ranked = sorted(speakers, key=lambda speaker: order[speaker.name])
    held_out = {speaker.name for speaker in ranked[:measured]}
    chosen = {speaker.name for speaker in ranked[measured : measured + clients]}
    return (
        tuple(speaker for speaker in speakers if speaker.name in chosen),
        tuple(speaker for speaker in speakers if speaker.name in held_out),
    )


def _most_clients(available: int, share: float) -> int:
    return available - min(max(round(share * available), int(share > 0)), available - 1)


def screen_speaker(speaker: Speaker, skipped: Skipped) -> Speaker | None:
    """Leave out the files that cannot be used, as far as their headers tell.

    A speaker with fewer files than `ENROLMENT_UTTERANCES` has them decoded as well: one bad file
    there can leave a purpose with none.

    Returns:
        the speaker with the files that remain; None if there are too few or too short ones.
    """
    decode = len(speaker.utterances) < ENROLMENT_UTTERANCES
    usable: list[Utterance] = []
    for utterance in speaker.utterances:
        try:
            if decode:
                load_recording(utterance.path)
            else:
                probe_recording(utterance.path)
        except BadAudio as error:
            skipped.add(utterance.path, error)
        else:
            usable.append(utterance)
    if not usable:
        return None
    screened = replace(speaker, utterances=tuple(usable))
    try:
        split_speaker(screened)
    except BadAudio as error:
        skipped.add(usable[-1].path, error)
        return None
    return screened


def _decode(path: Path) -> Recording:
    """Decode a file, or return the one decoded last: an only file is read piece by piece."""
    try:
        found = path.stat()
    except OSError:
        return load_recording(path)
    return _decode_once(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1)
def _decode_once(path: Path, changed_ns: int, size: int) -> Recording:
    del changed_ns, size
    return load_recording(path)


def _cut(utterance: Utterance, parts: Sequence[int]) -> list[Piece]:
    """Contiguous pieces of one file in the given proportions, with gaps between."""
    length_s = probe_recording(utterance.path)
    if length_s < SHORTEST_SINGLE_S:
        raise BadAudio(
            f"A recording that serves for several purposes must last {SHORTEST_SINGLE_S} s.",
            f"{length_s:.1f} s in {utterance.path}",
            "Give this speaker more or longer recordings.",
        )
    gap_s = min(GAP_S, GAP_SHARE * length_s)
    speech_s = length_s - gap_s * (len(parts) - 1)
    pieces: list[Piece] = []
    start_s = 0.0
    for part in parts:
        stop_s = start_s + speech_s * part / sum(parts)
        start, stop = round(start_s * SAMPLE_RATE_HZ), round(stop_s * SAMPLE_RATE_HZ)
        pieces.append(Piece(utterance, start, stop))
        start_s = stop_s + gap_s
    return pieces


def _shuffled(utterances: Sequence[Utterance], speaker: str) -> list[Utterance]:
    """A fixed order that mixes chapters and sessions, and that one more file barely changes."""
    return sorted(
        utterances, key=lambda utterance: (_rank(speaker, utterance.name), utterance.path)
    )


def _rank(*labels: str) -> bytes:
    return hashlib.sha256("\0".join(labels).encode()).digest()
