"""A server's log: one JSON object a line, with round ids and counts, never a payload.

Flower throws away what a ServerApp prints, so that process writes a file of its own; the server's
process takes the lines from there, and puts them beside what Flower itself says.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import math
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from chorister.server.rounds import RoundRecord, anonymous

LOG_FILE = "server.jsonl"
APP_FILE = "app.jsonl"
MAX_TEXT = 300
_FILE_BYTES = 10 * 2**20
_FILES = 5
_APART_S = 60.0
_TEXTS = 256  # that are remembered, to be written once in a while
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PEM = re.compile(r"-----BEGIN.*?(-----END [A-Z ]+-----|$)", re.DOTALL)


def write_line(folder: Path, event: str, fields: Mapping[str, object]) -> None:
    """Write a line that the server's process takes into its log.

    Args:
        folder: of the log.
        event: what happened.
        fields: counts and names of rounds.
    """
    # One write to the end of the file: a line is whole whoever else writes.
    with (folder / APP_FILE).open("ab", buffering=0) as file:
        file.write(_line(event, fields).encode() + b"\n")


def round_fields(record: RoundRecord) -> dict[str, object]:
    """Return what a log says of a round: counts and sizes."""
    record = anonymous(record)
    return {
        "round_number": record.round, "status": record.status, "reason": record.reason,
        "cohort": record.cohort, "survivors": record.survivors, "refusals": dict(record.refusals),
        "adapter": record.adapter_sha256[:16], "epsilon_speaker": record.epsilon_speaker,
        "bytes_up": record.bytes_up, "bytes_down": record.bytes_down,
        "seconds": round(record.seconds, 3),
    }  # fmt: skip


class ServerLog:
    """Writes lines to a file that is replaced when it grows, and to standard output if asked.

    Args:
        folder: of the files; made if absent.
        echo: also write to standard output, for a service manager's journal.
    """

    def __init__(self, folder: Path, *, echo: bool) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._echo = echo
        self._handler = logging.handlers.RotatingFileHandler(
            folder / LOG_FILE, maxBytes=_FILE_BYTES, backupCount=_FILES, encoding="utf-8"
        )
        self._app_file = folder / APP_FILE
        self._app_file.touch(mode=0o600)
        self._read_to = self._app_file.stat().st_size

    def tell(self, event: str, **fields: object) -> None:
        """Write one line."""
        self._put(_line(event, fields))

    def follow(self, output: IO[bytes]) -> None:
        """Take what Flower's processes print, line by line, until they close it."""
        for raw in output:
            text = _ANSI.sub("", raw.decode("utf-8", errors="replace")).strip()
            if text:
                self.tell("flower", text=redact(text))

    def take_app(self) -> None:
        """Take the lines that a ServerApp has written since the last time."""
        with self._app_file.open("rb") as file:
            file.seek(self._read_to)
            found = file.read()
        whole = found[: found.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.decode("utf-8", errors="replace").splitlines():
            if _is_object(line):
                self._put(line)
        if self._read_to > _FILE_BYTES:
            self._start_again(self._read_to)

    def _start_again(self, size: int) -> None:
        """Empty the ServerApp's file, if nothing was added meanwhile."""
        if self._app_file.stat().st_size == size:
            os.truncate(self._app_file, 0)
            self._read_to = 0

    def attach_flower(self) -> None:
        """Take what Flower and its HTTP server say; no stranger fills the log with the latter."""
        self.attach("flwr", logging.INFO)
        logging.getLogger("flwr").setLevel(logging.INFO)
        for name in ("uvicorn", "uvicorn.error"):
            self.attach(name, logging.WARNING, apart_s=_APART_S)

    def attach(self, name: str, level: int, apart_s: float = 0.0) -> None:
        """Take what a logger of this process says, and keep it from printing by itself.

        Args:
            name: of the logger.
            level: from which on.
            apart_s: the same text is written once in so many seconds, with how often it was left
                out before; for what strangers can make it say as often as they like.
        """
        logger = logging.getLogger(name)
        logger.handlers = [_Bridge(self, level, apart_s)]
        logger.propagate = False

    def _put(self, line: str) -> None:
        record = logging.makeLogRecord({"msg": line, "levelno": logging.INFO})
        self._handler.handle(record)  # with its lock: three threads write
        if self._echo:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


class _Bridge(logging.Handler):
    def __init__(self, log: ServerLog, level: int, apart_s: float) -> None:
        super().__init__(level)
        self._log = log
        self._apart_s = apart_s
        self._said: dict[str, tuple[float, int]] = {}  # when, and how often it was left out since

    def emit(self, record: logging.LogRecord) -> None:
        text = _ANSI.sub("", record.getMessage()).strip()
        if record.exc_info is not None and record.exc_info[0] is not None:
            text += f" ({record.exc_info[0].__name__})"  # what it says may hold anything
        if not text:
            return
        text, fields = redact(text), {}
        if self._apart_s:
            said_s, left_out = self._said.get(text, (-math.inf, 0))
            if 0 <= record.created - said_s < self._apart_s:  # not after a clock that ran back
                self._said[text] = (said_s, left_out + 1)
                return
            if len(self._said) >= _TEXTS:
                self._said.clear()
            self._said[text] = (record.created, 0)
            fields = {"left_out": left_out} if left_out else {}
        self._log.tell("flower", level=record.levelname.lower(), text=text, **fields)


def redact(text: str) -> str:
    """Return a line of Flower's without keys and in bounded length."""
    return _PEM.sub("(a key)", text)[:MAX_TEXT]


def _line(event: str, fields: Mapping[str, object]) -> str:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"at": at, "event": event, **fields}, sort_keys=False, allow_nan=False)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
