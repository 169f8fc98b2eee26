"""A device's way to a certificate: a token, a proof that it holds its key, the authority's word.

The authority's public key comes with the token and is pinned from then on: a certificate by any
other key is refused, whatever it says. What the authority learns is the device's public key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from chorister.client.home import Home
from chorister.shared import codec
from chorister.shared.enrolment import EnrolmentToken, PossessionProof
from chorister.shared.errors import BadSignature, UsageError
from chorister.shared.node_key import NodeKey
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import Certificate, VerifyKey

KIND = "certificate"
_PIN = "federation-{}"
_CERTIFICATE = "certificate-{}"
_NODE_KEY = "node-key-{}"


@dataclass(frozen=True, slots=True)
class Membership:
    """A federation that this device asked to join.

    Attributes:
        federation: its name.
        authority: the pinned key of its enrolment authority.
        certificate: None until the authority approved.
    """

    federation: str
    authority: VerifyKey
    certificate: Certificate | None


def request_membership(home: Home, token: EnrolmentToken) -> PossessionProof:
    """Pin a federation's authority and return the proof to send to it.

    Args:
        home: of the speaker, whose consent covers training: no other device has a place there.
        token: from the authority, by a way that both trust.

    Raises:
        ConsentRefused: no valid consent to training.
        UsageError: the token ended.
        BadSignature: another authority is pinned for this federation.
    """
    home.permit("training")
    if home.now_s() > token.expires_s:
        raise UsageError(
            "A token is used before it ends.",
            f"one that ended at {token.expires_s} (Unix time)",
            "Ask the authority for a new one.",
        )
    pin_authority(home, token.federation, token.authority)
    node_key = node_key_of(home, token.federation)
    return PossessionProof.make(
        home.key, token.federation, token.challenge, node_key.public_bytes()
    )


def pin_authority(home: Home, federation: str, authority: VerifyKey) -> None:
    """Hold to one authority for a federation from here on.

    Raises:
        BadSignature: another one is pinned.
    """
    known = membership(home, federation)
    if known is not None and known.authority != authority:
        raise BadSignature(
            f"This device pinned the authority {known.authority.name} for '{federation}'.",
            f"one that is signed by {authority.name}",
            "Ask the speaker's contact in the federation which is right, by another way.",
        )
    if known is None:
        pin: codec.Plain = {"federation": federation, "authority": authority.raw}
        home.vault.put(_PIN.format(short(federation)), codec.encode(pin), "pin")


def node_key_of(home: Home, federation: str) -> NodeKey:
    """Return the key of this device's connection to a federation, made when it is first asked for.

    A key for each federation: two that compare what they know do not see that it is one device.
    """
    name = _NODE_KEY.format(short(federation))
    if not home.vault.has(name):
        home.vault.put(name, NodeKey.generate(SystemRandomness()).secret_bytes(), "key")
    return NodeKey(home.vault.get(name))


def accept_certificate(home: Home, certificate: Certificate) -> Membership:
    """Keep a certificate by the pinned authority for this very device.

    Raises:
        UsageError: this device never asked to join that federation.
        BadSignature: another signer, another device's, or ended.
    """
    known = membership(home, certificate.federation)
    if known is None:
        raise UsageError(
            "A certificate answers this device's request.",
            f"one for '{certificate.federation[:80]}', which this device never asked",
            "Ask with a token: chorister membership request.",
        )
    certificate.check(known.authority, known.federation, home.now_s())
    if certificate.device_key != home.device:
        raise BadSignature(
            f"A certificate for this device names its key, {home.device.name}.",
            f"one for {certificate.device_id}",
            "Give it to the device that asked for it.",
        )
    name = _CERTIFICATE.format(short(certificate.federation))
    home.vault.put(name, codec.encode(certificate.to_plain()), KIND)
    home.ledger.append(
        "note",
        action="joined",
        federation=certificate.federation,
        authority=known.authority.raw.hex(),
        not_after_s=certificate.not_after_s,
    )
    return Membership(known.federation, known.authority, certificate)


def membership(home: Home, federation: str) -> Membership | None:
    """Return what this device has of a federation, None if it never asked to join it.

    Raises:
        ConsentRefused, VaultError: the vault is not to be used.
    """
    name = _PIN.format(short(federation))
    return _read(home, name) if home.vault.has(name) else None


def memberships(home: Home) -> tuple[Membership, ...]:
    """Return all federations that this device asked to join, by name."""
    pins = [item.name for item in home.vault.items() if item.kind == "pin"]
    return tuple(sorted((_read(home, name) for name in pins), key=lambda m: m.federation))


def _read(home: Home, pin: str) -> Membership:
    plain: Any = codec.fields(
        codec.decode(home.vault.get(pin)), {"federation": str, "authority": bytes}, "A pin"
    )
    name = _CERTIFICATE.format(short(plain["federation"]))
    certificate = None
    if home.vault.has(name):
        certificate = Certificate.from_plain(codec.decode(home.vault.get(name)))
    return Membership(plain["federation"], VerifyKey(plain["authority"]), certificate)


def short(federation: str) -> str:
    """Return the name of a federation in files and items: 16 hexadecimal digits."""
    return hashlib.sha256(federation.encode()).hexdigest()[:16]
