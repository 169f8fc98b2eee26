"""A server's log: one JSON object a line, with round ids and counts, never a payload.

The ServerApp writes lines to its standard output; the server's process reads them there, and puts
them beside what Flower itself prints.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from chorister.server.rounds import RoundRecord

LOG_FILE = "server.jsonl"
MARK = "chorister-log "
MAX_TEXT = 300
_FILE_BYTES = 10 * 2**20
_FILES = 5
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PEM = re.compile(r"-----BEGIN.*?(-----END [A-Z ]+-----|$)", re.DOTALL)


def write_line(event: str, fields: Mapping[str, object]) -> None:
    """Print a line that the server's process takes into its log."""
    sys.stdout.write(f"{MARK}{_line(event, fields)}\n")
    sys.stdout.flush()


def round_fields(record: RoundRecord) -> dict[str, object]:
    """Return what a log says of a round: counts and sizes."""
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

    def tell(self, event: str, **fields: object) -> None:
        """Write one line."""
        self._put(_line(event, fields))

    def follow(self, output: IO[bytes]) -> None:
        """Take what ServerApps and Flower print, line by line, until they close it."""
        for raw in output:
            text = _ANSI.sub("", raw.decode("utf-8", errors="replace")).strip()
            _, marked, line = text.partition(MARK)
            if marked and _is_object(line):
                self._put(line)
            elif text:
                self.tell("flower", text=redact(text))

    def attach(self, name: str, level: int) -> None:
        """Take what a logger of this process says, and keep it from printing by itself."""
        logger = logging.getLogger(name)
        logger.handlers = [_Bridge(self, level)]
        logger.propagate = False

    def _put(self, line: str) -> None:
        record = logging.makeLogRecord({"msg": line, "levelno": logging.INFO})
        self._handler.emit(record)
        if self._echo:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


class _Bridge(logging.Handler):
    def __init__(self, log: ServerLog, level: int) -> None:
        super().__init__(level)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        text = _ANSI.sub("", record.getMessage()).strip()
        if record.exc_info is not None and record.exc_info[0] is not None:
            text += f" ({record.exc_info[0].__name__})"  # what it says may hold anything
        if text:
            self._log.tell("flower", level=record.levelname.lower(), text=redact(text))


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
