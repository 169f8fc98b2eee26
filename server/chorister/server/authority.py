"""The enrolment authority: which devices exist. A role and a key apart from the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from chorister.shared.enrolment import PossessionProof
from chorister.shared.errors import BadSignature, UsageError
from chorister.shared.files import exclusive_lock, write_atomically
from chorister.shared.randomness import Randomness
from chorister.shared.signing import Certificate, SigningKey, VerifyKey

CHALLENGE_LIFE_S = 24 * 3600
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Device:
    """A device that the authority knows.

    Attributes:
        device_id: its pseudonym.
        not_after_s: when its newest certificate ends, Unix time.
        revoked_s: when it was revoked, None if it was not.
    """

    device_id: str
    not_after_s: int
    revoked_s: int | None = None


@dataclass(slots=True)
class _State:
    devices: dict[str, Device]
    challenges: dict[str, int]


class Authority:
    """Issues and revokes certificates; its books are one small file.

    Args:
        path: the file; its folder exists. It is created with the first change.
        key: the authority's signing key, which every device pins the public half of.
        federation: the federation that it enrols for.

    Raises:
        UsageError: the file is another federation's, or unreadable.
    """

    def __init__(self, path: Path, key: SigningKey, federation: str) -> None:
        self._path = path
        self._key = key
        self._federation = federation
        self._load()

    @property
    def verify_key(self) -> VerifyKey:
        """The public key that devices and the server pin."""
        return self._key.verify_key()

    def challenge(self, randomness: Randomness, now_s: int) -> bytes:
        """Return 32 fresh bytes for one device to answer within a day."""
        challenge = randomness.bytes(32)
        with self._changing() as state:
            state.challenges[challenge.hex()] = now_s + CHALLENGE_LIFE_S
        return challenge

    def issue(self, proof: PossessionProof, *, now_s: int, life_s: int) -> Certificate:
        """Return a certificate for a device that proved to hold its key.

        Args:
            proof: the answer to one of this authority's challenges, which is thereby used up.
            now_s: Unix time.
            life_s: how long the certificate lasts, above 0.

        Raises:
            BadSignature: the proof does not verify, answers no open challenge, is for another
                federation, or the device was revoked.
            UsageError: `life_s` is not above 0.
        """
        if life_s <= 0:
            raise UsageError(
                "A certificate lasts more than 0 s.", f"{life_s} s", "Choose a longer one."
            )
        proof.check()
        device_id = proof.device_key.name
        if proof.federation != self._federation:
            raise BadSignature(
                f"This authority enrols for '{self._federation}'.",
                f"a proof for '{proof.federation}'",
                "Give the device this federation's name.",
            )
        with self._changing() as state:
            if state.challenges.get(proof.challenge.hex(), -1) < now_s:
                raise BadSignature(
                    "A proof of possession answers an open challenge, once and within a day.",
                    f"device {device_id} with a challenge that is used, expired or unknown",
                    "Ask for a new challenge and answer that.",
                )
            known = state.devices.get(device_id)
            if known is not None and known.revoked_s is not None:
                raise BadSignature(
                    "A revoked device key gets no new certificate.",
                    f"device {device_id}, revoked at {known.revoked_s} (Unix time)",
                    "Enrol with a new key.",
                )
            del state.challenges[proof.challenge.hex()]
            # Expired challenges go with the next certificate, so that the file stays small.
            state.challenges = {c: end for c, end in state.challenges.items() if end >= now_s}
            state.devices[device_id] = Device(device_id, now_s + life_s)
        return Certificate.issue(self._key, proof.device_key, self._federation, now_s + life_s)

    def revoke(self, device_id: str, *, now_s: int) -> None:
        """End a device's membership for good; revoking twice keeps the first time.

        Raises:
            UsageError: no such device.
        """
        with self._changing() as state:
            device = state.devices.get(device_id)
            if device is None:
                raise UsageError(
                    "Only a known device can be revoked.",
                    f"'{device_id}'",
                    "See the list of devices.",
                )
            if device.revoked_s is None:
                state.devices[device_id] = replace(device, revoked_s=now_s)

    def devices(self) -> tuple[Device, ...]:
        """Return all devices, sorted by pseudonym."""
        return tuple(sorted(self._load().devices.values(), key=lambda device: device.device_id))

    def revoked(self) -> frozenset[str]:
        """Return the pseudonyms that may take part in nothing."""
        return frozenset(d.device_id for d in self.devices() if d.revoked_s is not None)

    @contextmanager
    def _changing(self) -> Iterator[_State]:
        with exclusive_lock(self._path.with_name(f".{self._path.name}.lock")):
            state = self._load()
            yield state
            plain = {
                "format": FORMAT,
                "federation": self._federation,
                "authority": self.verify_key.name,
                "devices": [asdict(device) for device in state.devices.values()],
                "challenges": state.challenges,
            }
            write_atomically(self._path, json.dumps(plain, indent=1).encode())

    def _load(self) -> _State:
        if not self._path.exists():
            return _State({}, {})
        try:
            plain = json.loads(self._path.read_bytes())
            named = (plain["format"], plain["federation"], plain["authority"])
            devices = {d["device_id"]: Device(**d) for d in plain["devices"]}
            challenges = {str(c): int(end) for c, end in plain["challenges"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(
                "The authority's file lists its devices.",
                f"{self._path.name} with something else in it",
                "Restore it from a backup.",
            ) from None
        wanted = (FORMAT, self._federation, self.verify_key.name)
        if named != wanted:
            raise UsageError(
                "The authority's file has format {}, federation '{}' and key {}.".format(*wanted),
                "format {}, federation '{}' and key {}".format(*named),
                "Give each authority a file of its own.",
            )
        return _State(devices, challenges)
