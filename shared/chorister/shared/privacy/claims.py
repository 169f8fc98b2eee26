"""What a server's ledger claims of devices, each claim against that device's own signature.

    admission    the device signed a consent token for this round and its terms
    survivors    each device signed its masked delta, and those that voted the set of survivors
    withdrawal   the device signed that its consent ended

A refusal has no signature of the device that it names: it is the server's word alone, and counted.
State is kept of rounds that are open and of withdrawals only, so memory does not grow with the
ledger's length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chorister.shared import codec
from chorister.shared.enrolment import ConsentToken, WithdrawalNotice
from chorister.shared.errors import BadLedger, ChoristerError
from chorister.shared.privacy.ledger import Entry
from chorister.shared.secagg.evidence import SumEvidence
from chorister.shared.secagg.terms import RoundTerms
from chorister.shared.signing import Certificate, VerifyKey


@dataclass(slots=True)
class _Open:
    """A round between its start and its end."""

    terms: RoundTerms
    cohort: frozenset[str]
    keys: dict[str, VerifyKey] = field(default_factory=dict)
    summed: bool = False


@dataclass(slots=True)
class ClaimChecker:
    """Follows a server's ledger, entry by entry.

    Attributes:
        federation: the one that tokens and certificates must name.
        authority: the enrolment authority's key; None leaves certificates unchecked.
        admissions: how many carry the device's signature.
        inputs: how many devices' masked deltas do.
        withdrawals: how many do.
        unsigned: how many refusals name a device, on the server's word alone.
        problems: (entry, what is wrong) of claims that do not hold.
    """

    federation: str
    authority: VerifyKey | None = None
    admissions: int = 0
    inputs: int = 0
    withdrawals: int = 0
    unsigned: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)
    _rounds: dict[str, _Open] = field(default_factory=dict)
    _withdrawn: set[str] = field(default_factory=set)

    def follow(self, entry: Entry) -> None:
        """Check one entry; what does not hold goes to `problems`."""
        check = {
            "round": self._round,
            "admission": self._admission,
            "survivors": self._survivors,
            "withdrawal": self._withdrawal,
        }.get(entry.kind)
        if entry.kind == "refusal" and entry.fields.get("device"):
            self.unsigned += 1
        if check is None:
            return
        try:
            check(entry, entry.fields)
        except ChoristerError as error:
            self.problems.append((entry.index, f"{error.rule} Found: {error.found}."))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self.problems.append(
                (entry.index, f"a '{entry.kind}' without what shows it ({type(error).__name__})")
            )

    def _round(self, entry: Entry, fields: Mapping[str, Any]) -> None:
        name = fields["round"]
        if fields["action"] == "started":
            terms = RoundTerms.from_bytes(codec.encode(fields["announced"]))
            named = (terms.sha256().hex(), terms.round_id, terms.federation)
            if named != (fields["terms"], name, self.federation):
                raise _contradiction("A round's terms are those that its digest names.", name)
            if name in self._rounds:
                raise _contradiction("A round is started once.", name)
            self._rounds[name] = _Open(terms, frozenset(fields["cohort"]))
            return
        found = self._rounds.pop(name, None)
        if fields["action"] == "finished" and (found is None or not found.summed):
            raise _contradiction("A finished round has a sum with the survivors' signatures.", name)

    def _admission(self, entry: Entry, fields: Mapping[str, Any]) -> None:
        device, found = fields["device"], self._open(fields["round"])
        key = VerifyKey(bytes.fromhex(fields["device_key"]))
        if key.name != device or device not in found.cohort:
            raise _contradiction("A device that is admitted was asked, under its key's name.",
                                 f"device {device}")  # fmt: skip
        if device in self._withdrawn:
            raise _contradiction("A speaker who withdrew is not admitted.", f"device {device}")
        ConsentToken(
            self.federation, fields["round"], found.terms.sha256().hex(), fields["consent"],
            fields["expires_s"], bytes.fromhex(fields["signature"]),
        ).check(key)  # fmt: skip
        if self.authority is not None:
            plain = fields["certificate"]
            Certificate(
                key, self.federation, plain["not_after_s"], bytes.fromhex(plain["signature"])
            ).check(self.authority, self.federation, entry.time_s)
        found.keys[device] = key
        self.admissions += 1

    def _survivors(self, entry: Entry, fields: Mapping[str, Any]) -> None:
        found = self._open(fields["round"])
        evidence = SumEvidence.from_plain(fields["evidence"])
        if list(evidence.survivors) != fields["survivors"]:
            raise _contradiction(
                "The survivors are the devices whose signatures stand beside them.",
                fields["round"],
            )
        evidence.check(found.terms.sha256(), found.keys)
        if len(evidence.survivors) < found.terms.min_honest:
            raise _contradiction(
                f"A sum covers at least {found.terms.min_honest} devices, as its terms say.",
                f"{len(evidence.survivors)} in round '{fields['round']}'",
            )
        found.summed = True
        self.inputs += len(evidence.survivors)

    def _withdrawal(self, entry: Entry, fields: Mapping[str, Any]) -> None:
        device = fields["device"]
        notice = WithdrawalNotice.from_bytes(bytes.fromhex(fields["notice"]))
        told = notice.withdrawal
        told.check(notice.certificate.device_key)
        named = (told.device_id, told.consent_sha256, told.at_s, notice.certificate.device_id)
        if named != (device, fields["consent"], fields["at_s"], device):
            raise _contradiction("A withdrawal is what the device itself signed.",
                                 f"another one than that of device {device}")  # fmt: skip
        if self.authority is not None:
            notice.check(self.authority, self.federation)
        self._withdrawn.add(device)
        self.withdrawals += 1

    def _open(self, name: str) -> _Open:
        if name not in self._rounds:
            raise _contradiction("What is said of a round stands between its start and its end.",
                                 f"round '{name}', which is not open")  # fmt: skip
        return self._rounds[name]


def _contradiction(rule: str, found: str) -> BadLedger:
    return BadLedger(rule, found, "Ask the server's operator for the device's signed messages.")
