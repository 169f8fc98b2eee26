"""Does a file hold all that its own header announces? (libsndfile reads a cut wav or ogg silently.)

Sources: RIFF/WAVE (Multimedia Programming Interface 1.0, 1991) and RFC 3533 (Ogg pages).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_STREAMED = (0, 0xFFFFFFFF, 0x7FFFFFFF)
_LARGEST_OGG_PAGE = 27 + 255 + 255 * 255


def missing_bytes(path: Path) -> int:
    """Bytes that a wav or Ogg file lacks at its end.

    Args:
        path: an existing file of any kind.

    Returns:
        how many bytes are known to be missing; 0 where nothing is, or where the format does not
        tell (another format, or a wav that was streamed and so never had its length filled in).

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(12)
        if magic[:4] == b"RIFF" and magic[8:12] == b"WAVE":
            return _missing_in_wav(file, size)
        if magic[:4] == b"OggS":
            return _missing_in_ogg(file, size)
    return 0


def _missing_in_wav(file: BinaryIO, size: int) -> int:
    position = 12
    while position + 8 <= size:
        file.seek(position)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind == b"data":
            return 0 if length in _STREAMED else max(0, position + 8 + length - size)
        position += 8 + length + length % 2
    return 0


def _missing_in_ogg(file: BinaryIO, size: int) -> int:
    start = max(0, size - 2 * _LARGEST_OGG_PAGE)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"OggS")
    # The four letters can occur inside a page's payload; a page header has version 0 after them.
    while at > 0 and tail[at + 4 : at + 5] not in (b"", b"\0"):
        at = tail.rfind(b"OggS", 0, at)
    if at < 0:
        return 0
    page = tail[at:]
    if len(page) < 27:
        return 27 - len(page)
    lacing = page[27 : 27 + page[26]]
    expected = 27 + page[26] + (sum(lacing) if len(lacing) == page[26] else 0)
    return max(0, expected - len(page))
