"""Who withdrew: out of every later cohort at once, and noted against each version they are in.

The file is the server's own, beside its ledger; a notice in it is signed by the device, so neither
the server nor anybody else can withdraw for a speaker, and nobody can take a withdrawal back.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chorister.server.registry import Registry
from chorister.shared.enrolment import WithdrawalNotice
from chorister.shared.errors import BadLedger, BadMessage, BadSignature
from chorister.shared.files import exclusive_lock, write_atomically
from chorister.shared.privacy.ledger import parse
from chorister.shared.privacy.ledger_file import LedgerFile, read_lines
from chorister.shared.signing import VerifyKey

WITHDRAWALS_FILE = "withdrawals.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class WithdrawalRecord:
    """One speaker's end, as the server heard of it.

    Attributes:
        device_id: pseudonym.
        consent_sha256: digest of the consent that ended.
        at_s: when the speaker withdrew, by the device's clock, Unix time.
        heard_s: when the server heard of it.
        notice: signed by the device, hexadecimal.
        versions: digests of the shared adapters whose sums hold this device's delta.
    """

    device_id: str
    consent_sha256: str
    at_s: int
    heard_s: int
    notice: str
    versions: tuple[str, ...]


class Withdrawals:
    """The server's list of withdrawals.

    Args:
        path: the file; its folder exists. It is created with the first withdrawal.
        authority: the enrolment authority's pinned key.
        federation: the federation's name.
        ledger: the server's, which says whose deltas are in which round's sum.
        registry: versions of the shared adapter.
    """

    def __init__(
        self,
        path: Path,
        *,
        authority: VerifyKey,
        federation: str,
        ledger: LedgerFile,
        registry: Registry,
    ) -> None:
        self._path = path
        self._authority = authority
        self._federation = federation
        self._ledger = ledger
        self._registry = registry

    def accept(self, notice: WithdrawalNotice, now_s: int) -> WithdrawalRecord:
        """Record a withdrawal, and return the record; the first one of a device stays.

        Raises:
            BadSignature: another authority, federation or device signed it.
        """
        notice.check(self._authority, self._federation)
        device_id = notice.certificate.device_id
        with exclusive_lock(self._path.with_name(f".{self._path.name}.lock")):
            found = self._load()
            record = found.get(device_id)
            if record is None:
                record = WithdrawalRecord(
                    device_id,
                    notice.withdrawal.consent_sha256,
                    notice.withdrawal.at_s,
                    now_s,
                    notice.to_bytes().hex(),
                    self._versions_with(device_id),
                )
                found[device_id] = record
                # On the disk before the ledger says so: from here on the device is in no cohort.
                self._store(found)
                self._ledger.append(
                    "withdrawal",
                    device=device_id,
                    consent=record.consent_sha256,
                    at_s=record.at_s,
                    notice=record.notice,
                    versions=list(record.versions),
                )
            # Again where a crash came between: counts are set, not added to.
            self._registry.note_withdrawn(
                Counter(version for each in found.values() for version in each.versions)
            )
        return record

    def hear(self, message: bytes, now_s: int) -> WithdrawalRecord | None:
        """Record the withdrawal in a device's answer, None if the answer is no withdrawal.

        A device whose speaker withdrew has no key left to say anything else with.
        """
        try:
            return self.accept(WithdrawalNotice.from_bytes(message), now_s)
        except BadMessage:
            return None

    def records(self) -> tuple[WithdrawalRecord, ...]:
        """Return all withdrawals, by pseudonym.

        Raises:
            BadLedger: the file was altered.
        """
        return tuple(record for _, record in sorted(self._load().items()))

    def devices(self) -> frozenset[str]:
        """Return the pseudonyms that take part in nothing any more.

        Raises:
            BadLedger: the file was altered: then no round begins.
        """
        return frozenset(self._load())

    def versions_with(self, device_id: str) -> tuple[str, ...]:
        """Return the versions whose sums hold a device's delta, oldest first."""
        return self._versions_with(device_id)

    def _versions_with(self, device_id: str) -> tuple[str, ...]:
        rounds = rounds_with(self._ledger.path, device_id)
        return tuple(v.sha256 for v in self._registry.versions() if v.round_id in rounds)

    def _store(self, found: dict[str, WithdrawalRecord]) -> None:
        plain = {
            "format": FORMAT,
            "federation": self._federation,
            "withdrawn": [asdict(record) for record in found.values()],
        }
        write_atomically(self._path, json.dumps(plain, indent=1).encode())

    def _load(self) -> dict[str, WithdrawalRecord]:
        if not self._path.exists():
            return {}
        try:
            plain = json.loads(self._path.read_bytes())
            if (plain["format"], plain["federation"]) != (FORMAT, self._federation):
                raise ValueError
            found = [_record(each) for each in plain["withdrawn"]]
            for record in found:
                notice = WithdrawalNotice.from_bytes(bytes.fromhex(record.notice))
                notice.check(self._authority, self._federation)
                if notice.withdrawal.device_id != record.device_id:
                    raise ValueError
        except (ValueError, KeyError, TypeError, BadMessage, BadSignature):
            raise BadLedger(
                f"{self._path.name} lists signed withdrawals of '{self._federation}'.",
                "something else in it",
                "Restore it from a backup; the server's ledger holds every notice too.",
            ) from None
        return {record.device_id: record for record in found}


def rounds_with(ledger: Path, device_id: str) -> frozenset[str]:
    """Return the rounds whose sums hold a device's delta, as the server's ledger says.

    Args:
        ledger: its file.
        device_id: pseudonym.

    Raises:
        BadLedger: a line is no entry.
    """
    found: set[str] = set()
    for index, line in enumerate(read_lines(ledger)):
        entry = parse(line.removesuffix(b"\n"), index)
        survivors = entry.fields.get("survivors")
        if entry.kind == "survivors" and isinstance(survivors, list) and device_id in survivors:
            found.add(str(entry.fields.get("round")))
    return frozenset(found)


def _record(plain: dict[str, Any]) -> WithdrawalRecord:
    return WithdrawalRecord(**{**plain, "versions": tuple(plain["versions"])})
