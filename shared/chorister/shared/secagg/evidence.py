"""What shows afterwards that the devices of a sum sent what the server says: their signatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chorister.shared.errors import BadLedger, BadSignature
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.messages import Survivors, SurvivorVote, check_masked_digest
from chorister.shared.signing import VerifyKey


@dataclass(frozen=True, slots=True)
class SumEvidence:
    """The signatures under one sum; nothing of what was summed.

    Attributes:
        view: digest of roster and sharers that all of them signed, 32 bytes.
        roster: device ids by index in the round.
        inputs: survivor to (SHA-256 of its masked delta, its signature under it).
        votes: survivor to its signature under the set of survivors; those that answered in time.
    """

    view: bytes
    roster: tuple[str, ...]
    inputs: Mapping[str, tuple[bytes, bytes]]
    votes: Mapping[str, bytes]

    @property
    def survivors(self) -> tuple[str, ...]:
        """The devices whose deltas are in the sum, sorted."""
        return tuple(sorted(self.inputs))

    def check(self, terms: bytes, keys: Mapping[str, VerifyKey]) -> None:
        """Return if every signature is by the device that it is said to be by.

        Args:
            terms: digest of the round's terms, 32 bytes.
            keys: device id to the key that it was admitted with.

        Raises:
            BadLedger: a survivor that is not in the roster, or was not admitted.
            BadSignature: a signature that does not verify.
        """
        strangers = sorted((self.inputs.keys() | self.votes.keys()) - keys.keys())
        outside = sorted(self.inputs.keys() - set(self.roster))
        if strangers or outside or not self.votes.keys() <= self.inputs.keys():
            raise BadLedger(
                "A survivor was admitted to the round, is in its roster and in the sum.",
                f"device {(strangers or outside or ['that voted without being in the sum'])[0]}",
                "Ask the server's operator for the device's signed messages.",
            )
        place = {device: i for i, device in enumerate(self.roster)}
        survivors = Survivors(self.view, Members.of(place[device] for device in self.inputs))
        for device, (digest, signature) in sorted(self.inputs.items()):
            _name(device, "its masked delta", check_masked_digest,
                  self.view, digest, signature, keys[device])  # fmt: skip
        for device, signature in sorted(self.votes.items()):
            _name(device, "the set of survivors", SurvivorVote(signature).check,
                  terms, survivors, keys[device])  # fmt: skip

    def to_plain(self) -> dict[str, Any]:
        """Return the evidence as plain JSON, for a ledger entry."""
        return {
            "view": self.view.hex(),
            "roster": list(self.roster),
            "inputs": {
                device: {"digest": digest.hex(), "signature": signature.hex()}
                for device, (digest, signature) in sorted(self.inputs.items())
            },
            "votes": {device: vote.hex() for device, vote in sorted(self.votes.items())},
        }

    @classmethod
    def from_plain(cls, plain: Any) -> SumEvidence:
        """Return the evidence in plain JSON; nothing is verified yet.

        Raises:
            BadLedger: other fields or other types.
        """
        try:
            roster = tuple(plain["roster"])
            inputs = {
                str(device): (bytes.fromhex(i["digest"]), bytes.fromhex(i["signature"]))
                for device, i in plain["inputs"].items()
            }
            votes = {str(device): bytes.fromhex(vote) for device, vote in plain["votes"].items()}
            found = cls(bytes.fromhex(plain["view"]), roster, inputs, votes)
            sound = all(isinstance(device, str) for device in roster) and found.to_plain() == plain
        except (KeyError, TypeError, ValueError, AttributeError):
            sound = False
        if not sound:
            raise BadLedger(
                "The evidence under a sum has view, roster, inputs and votes.", "something else",
                "Ask the server's operator for the devices' signed messages.",
            )  # fmt: skip
        return found


def _name(device: str, what: str, check: Any, *arguments: Any) -> None:
    try:
        check(*arguments)
    except BadSignature as error:
        raise BadSignature(
            f"Device {device} signed {what}.", "a signature that does not verify", error.advice
        ) from None
