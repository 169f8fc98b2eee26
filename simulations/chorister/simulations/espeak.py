"""eSpeak NG's library, called in a process of its own.

The library is GPL-3.0 and is not part of Chorister: the package `espeakng-loader` brings it,
`ctypes` loads it at run time, in a child process that runs this file as a script and answers with
plain PCM (docs/adr/0003-embedded-corpus.md). One process for each voice makes the bytes
reproducible, because the library's noise generator cannot be set back; and a fault in it ends that
process alone.

As a script: reads one JSON object from standard input, writes to standard output the sampling rate
and then each sentence's byte count, each as a little-endian uint32, with 16-bit mono PCM after the
count.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_RATE_WPM, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
# Of 100: some variants clip inside the library above it.
_HEADROOM_VOLUME = 40
_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Voice:
    """One voice of the library and how it speaks.

    Attributes:
        identifier: language file and variant, e.g. "gmw/en-US+f2".
        pitch: base pitch, 0 to 100, 50 is the variant's own.
        pitch_range: intonation, 0 to 100, 50 is the variant's own.
        rate_wpm: words a minute, 80 to 450.
    """

    identifier: str
    pitch: int = 50
    pitch_range: int = 50
    rate_wpm: int = 165


class SpeechError(Exception):
    """The child process ended without speech; the message says how."""


def speak(
    voice: Voice, sentences: Sequence[str], library: Path, data: Path
) -> tuple[int, list[bytes]]:
    """Speak sentences with one voice.

    Args:
        voice: which and how.
        sentences: plain text, none empty.
        library: the shared library.
        data: the folder `espeak-ng-data`.

    Returns:
        sampling rate in Hz, and the 16-bit mono PCM of each sentence. The same on every call.

    Raises:
        SpeechError: the library cannot be loaded, does not know the voice, or failed.
    """
    request = asdict(voice) | {"sentences": list(sentences)}
    request |= {"library": str(library), "data": str(data)}
    try:
        done = subprocess.run(  # noqa: S603 - our own file, our own interpreter
            [sys.executable, "-I", __file__],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SpeechError(f"no answer within {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise SpeechError(reason[-1] if reason else f"it ended with status {done.returncode}")
    (rate_hz,) = struct.unpack_from("<I", done.stdout)
    return rate_hz, list(_blocks(done.stdout[4:]))


def _blocks(stream: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(stream):
        (size,) = struct.unpack_from("<I", stream, position)
        yield stream[position + 4 : position + 4 + size]
        position += 4 + size


def _main() -> None:
    """Answer the request on standard input; the library is loaded in here and nowhere else."""
    import ctypes
    import os

    request = json.load(sys.stdin)
    library = ctypes.CDLL(request["library"])
    # The library keeps the data path in 160 characters: a relative one always fits.
    os.chdir(Path(request["data"]).parent)
    rate_hz = library.espeak_Initialize(_SYNCHRONOUS, 0, b".", _DONT_EXIT)
    if rate_hz <= 0:
        sys.exit("espeak-ng's data cannot be read")
    if library.espeak_SetVoiceByName(request["identifier"].encode()) != 0:
        sys.exit(f"espeak-ng has no voice {request['identifier']}")
    for parameter, value in (
        (_RATE_WPM, request["rate_wpm"]),
        (_VOLUME, _HEADROOM_VOLUME),
        (_PITCH, request["pitch"]),
        (_RANGE, request["pitch_range"]),
    ):
        library.espeak_SetParameter(parameter, value, 0)
    chunks: list[bytes] = []

    def take(samples: int | None, count: int, _: int | None) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    callback = signature(take)
    library.espeak_SetSynthCallback(callback)
    output = sys.stdout.buffer
    output.write(struct.pack("<I", rate_hz))
    for sentence in request["sentences"]:
        chunks.clear()
        text = sentence.encode()
        size = ctypes.c_size_t(len(text) + 1)
        if library.espeak_Synth(text, size, 0, 1, 0, _CHARS_UTF8, None, None) != 0:
            sys.exit("espeak-ng could not speak a sentence")
        pcm = b"".join(chunks)
        output.write(struct.pack("<I", len(pcm)) + pcm)


if __name__ == "__main__":
    _main()
