"""The enrolment authority: which devices exist. A role and a key apart from the server."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from chorister.server.authority_db import AUTHORITY, DEVICES, TOKENS, Books
from chorister.shared.enrolment import EnrolmentToken, PossessionProof
from chorister.shared.errors import BadSignature, UsageError
from chorister.shared.invite import Invite, ModelRelease
from chorister.shared.node_key import NodeAdmission
from chorister.shared.randomness import Randomness
from chorister.shared.signing import Certificate, SigningKey, VerifyKey
from chorister.shared.voice.adapter_spec import SharedAdapterSpec

TOKEN_LIFE_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Device:
    """A device that the authority knows.

    Attributes:
        device_id: its pseudonym.
        enrolled_s: when it first got a certificate, Unix time.
        not_after_s: when its newest certificate ends.
        revoked_s: when it was revoked, None if it was not.
    """

    device_id: str
    enrolled_s: int
    not_after_s: int
    revoked_s: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token that the authority gave out; what it says is not kept.

    Attributes:
        sha256: digest of its challenge.
        expires_s: when it ends, Unix time.
        used_s: when it was used, None if it was not.
        device_id: by whom.
    """

    sha256: str
    expires_s: int
    used_s: int | None
    device_id: str | None


class Authority:
    """Issues and revokes certificates, and keeps books of them.

    Args:
        url: of the database; it is made with its first use.
        key: the authority's signing key, which every device pins the public half of.
        federation: the federation that it enrols for.

    Raises:
        UsageError: the database is another authority's, or cannot be used.
    """

    def __init__(self, url: str, key: SigningKey, federation: str) -> None:
        self._key = key
        self._federation = federation
        self._books = Books(url)
        own = {"federation": federation, "authority_key": self.verify_key.raw.hex()}
        with self._books.change() as books:
            found = books.execute(sa.select(AUTHORITY)).mappings().all()
            if not found:
                books.execute(sa.insert(AUTHORITY).values(**own))
        if found and [dict(row) for row in found] != [own]:
            raise UsageError(
                f"The authority's database is of federation '{federation}' and key "
                f"{self.verify_key.name}.",
                f"one of '{found[0]['federation']}' and another key or federation",
                "Give each authority a database of its own.",
            )

    @property
    def federation(self) -> str:
        """The federation that it enrols for."""
        return self._federation

    @property
    def verify_key(self) -> VerifyKey:
        """The public key that devices and the server pin."""
        return self._key.verify_key()

    def token(
        self, randomness: Randomness, now_s: int, *, life_s: int = TOKEN_LIFE_S
    ) -> EnrolmentToken:
        """Return a token that enrols one device, once.

        Args:
            randomness: of the challenge.
            now_s: Unix time.
            life_s: how long it is good for, above 0.

        Raises:
            UsageError: `life_s` is not above 0.
        """
        if life_s <= 0:
            raise UsageError("A token lasts more than 0 s.", f"{life_s} s", "Choose a longer one.")
        made = EnrolmentToken(
            self._federation, self.verify_key, randomness.bytes(32), now_s + life_s
        )
        with self._books.change() as books:
            books.execute(
                sa.insert(TOKENS).values(
                    challenge_sha256=_digest(made.challenge), expires_s=made.expires_s
                )
            )
        return made

    def issue(self, proof: PossessionProof, *, now_s: int, life_s: int) -> Certificate:
        """Return a certificate for a device that proved to hold its key.

        Args:
            proof: the answer to one of this authority's tokens, which is thereby used up.
            now_s: Unix time.
            life_s: how long the certificate lasts, above 0.

        Raises:
            BadSignature: the proof does not verify, answers no open token, is for another
                federation, or the device was revoked. The token is not used up then.
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
        device_key = proof.device_key.raw.hex()
        with self._books.change() as books:
            _use_token(books, proof, now_s)
            known = books.execute(_device(device_id)).mappings().one_or_none()
            if known is None:
                books.execute(
                    sa.insert(DEVICES).values(
                        device_id=device_id, device_key=device_key, enrolled_s=now_s,
                        not_after_s=now_s + life_s,
                    )
                )  # fmt: skip
            else:
                _check_same_device(known, device_key)
                books.execute(
                    sa.update(DEVICES)
                    .where(DEVICES.c.device_id == device_id)
                    .values(not_after_s=now_s + life_s)
                )
        return Certificate.issue(self._key, proof.device_key, self._federation, now_s + life_s)

    def answered(self, proof: PossessionProof) -> tuple[Certificate, int] | None:
        """Return the answer that a request got before, None if it has not used its token.

        The books come first and the files afterwards: where a crash lies between the two, the same
        request gets the same answer, and no second enrolment. Another request of the same
        device, for another connection say, needs another token.

        Returns:
            the device's certificate, which ends when its newest one ends, and the Unix time at
            which the request was answered.

        Raises:
            BadSignature: the proof does not verify, or the device was revoked since.
        """
        proof.check()
        with self._books.change() as books:
            token = (
                books.execute(
                    sa.select(TOKENS).where(
                        TOKENS.c.challenge_sha256 == _digest(proof.challenge),
                        TOKENS.c.device_id == proof.device_key.name,
                        TOKENS.c.request_sha256 == _digest(proof.to_bytes()),
                    )
                )
                .mappings()
                .one_or_none()
            )
            known = books.execute(_device(proof.device_key.name)).mappings().one_or_none()
        if token is None or known is None or proof.federation != self._federation:
            return None
        _check_same_device(known, proof.device_key.raw.hex())
        certificate = Certificate.issue(
            self._key, proof.device_key, self._federation, known["not_after_s"]
        )
        return certificate, token["used_s"]

    def admit_node(self, certificate: Certificate, node_key: bytes, issued_s: int) -> NodeAdmission:
        """Return the word by which a server lets a certified device's connection in.

        Args:
            certificate: of the device.
            node_key: of its connection, 49 bytes.
            issued_s: when its request was answered, Unix time.

        Raises:
            BadSignature: the certificate is not of this authority.
            BadMessage: the key is none.
        """
        until_s = certificate.not_after_s
        certificate.check(self.verify_key, self._federation, until_s)
        return NodeAdmission.sign(
            self._key, self._federation, certificate.device_id, node_key,
            issued_s=issued_s, not_after_s=until_s,
        )  # fmt: skip

    def invite(self, unsigned: Invite) -> Invite:
        """Return an invitation to its federation, signed.

        Raises:
            BadMessage: a field that devices would refuse.
            UsageError: another federation's.
        """
        if unsigned.federation != self._federation:
            raise UsageError(
                f"This authority invites to '{self._federation}'.",
                f"an invitation to '{unsigned.federation}'", "Correct the settings.",
            )  # fmt: skip
        return unsigned.signed(self._key)

    def release(self, base_sha256: str, spec: SharedAdapterSpec, now_s: int) -> ModelRelease:
        """Return the word on what its federation trains.

        Args:
            base_sha256: digest of the base model.
            spec: layout of the shared adapter.
            now_s: Unix time.
        """
        return ModelRelease.sign(self._key, self._federation, base_sha256, spec, now_s)

    def revoke(self, device_id: str, *, now_s: int) -> None:
        """End a device's membership for good; revoking twice keeps the first time.

        Raises:
            UsageError: no such device.
        """
        with self._books.change() as books:
            if books.execute(_device(device_id)).one_or_none() is None:
                raise UsageError(
                    "Only a known device can be revoked.",
                    f"'{device_id}'",
                    "See `chorister authority list`.",
                )
            books.execute(
                sa.update(DEVICES)
                .where(DEVICES.c.device_id == device_id, DEVICES.c.revoked_s.is_(None))
                .values(revoked_s=now_s)
            )

    def devices(self) -> tuple[Device, ...]:
        """Return all devices, sorted by pseudonym."""
        query = sa.select(DEVICES).order_by(DEVICES.c.device_id)
        with self._books.change() as books:
            rows = books.execute(query).mappings().all()
        return tuple(
            Device(r["device_id"], r["enrolled_s"], r["not_after_s"], r["revoked_s"]) for r in rows
        )

    def tokens(self) -> tuple[Token, ...]:
        """Return all tokens, those that end last first."""
        query = sa.select(TOKENS).order_by(TOKENS.c.expires_s.desc(), TOKENS.c.challenge_sha256)
        with self._books.change() as books:
            rows = books.execute(query).mappings().all()
        return tuple(
            Token(r["challenge_sha256"], r["expires_s"], r["used_s"], r["device_id"]) for r in rows
        )

    def revoked(self) -> frozenset[str]:
        """Return the pseudonyms that may take part in nothing."""
        return frozenset(d.device_id for d in self.devices() if d.revoked_s is not None)


def _use_token(books: sa.Connection, proof: PossessionProof, now_s: int) -> None:
    """Use a token up, in one statement: of two that come at once, one finds it used."""
    done = books.execute(
        sa.update(TOKENS)
        .where(
            TOKENS.c.challenge_sha256 == _digest(proof.challenge),
            TOKENS.c.used_s.is_(None),
            TOKENS.c.expires_s >= now_s,
        )
        .values(
            used_s=now_s,
            device_id=proof.device_key.name,
            request_sha256=_digest(proof.to_bytes()),
        )
    )
    if done.rowcount != 1:
        raise BadSignature(
            "A proof of possession answers an open token, once and before it ends.",
            f"device {proof.device_key.name} with a token that is used, expired or unknown",
            "Ask the authority for a new token and answer that.",
        )


def _check_same_device(known: Mapping[Any, Any], device_key: str) -> None:
    if known["revoked_s"] is not None:
        raise BadSignature(
            "A revoked device key gets no new certificate.",
            f"device {known['device_id']}, revoked at {known['revoked_s']} (Unix time)",
            "Enrol with a new key.",
        )
    if known["device_key"] != device_key:
        raise BadSignature(
            "A pseudonym is one device's.",
            f"another key with the pseudonym {known['device_id']}",
            "Enrol with a new key.",
        )


def _device(device_id: str) -> sa.Select[Any]:
    return sa.select(DEVICES).where(DEVICES.c.device_id == device_id)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
