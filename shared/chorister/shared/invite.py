"""The enrolment authority's invitation to a federation: all that a device has to know to join it.

It is signed by the key that the device pins with it, names the server and its certificate, the
model that is trained, the bundles that the server may name, and what the device will be asked, in
the figures that it later holds the server to. Where it carries a token, it is for one speaker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, get_args

from cryptography import x509

from chorister.shared import codec
from chorister.shared.enrolment import SIGNATURE_BYTES, EnrolmentToken
from chorister.shared.errors import BadMessage, BadSettings, BadSignature
from chorister.shared.settings import Federation
from chorister.shared.signing import SigningKey, VerifyKey
from chorister.shared.voice.adapter_spec import DIRECTIONS, SharedAdapterSpec, SharedPlacement

FORMAT = 1
INVITATION = "chorister/1 federation invitation"
RELEASE = "chorister/1 model release"
MAX_INVITE_BYTES = 64 * 2**10
MAX_CERTIFICATE_BYTES = 16 * 2**10
MAX_BUNDLES = 8
CLOCK_SLACK_S = 300
LOOPBACK = ("127.0.0.1", "[::1]", "localhost")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class ModelRelease:
    """The authority's word on what a federation trains: which base, and which layout on it.

    Attributes:
        federation: whose.
        base_sha256: digest of the base model's file.
        spec: layout of the shared adapter.
        issued_s: Unix time; a device takes no older one than it has.
        signature: by the authority, over the other fields and the layout's digest.
    """

    federation: str
    base_sha256: str
    spec: SharedAdapterSpec
    issued_s: int
    signature: bytes

    @classmethod
    def sign(
        cls, authority: SigningKey, federation: str, base_sha256: str, spec: SharedAdapterSpec,
        issued_s: int,
    ) -> ModelRelease:  # fmt: skip
        """Return a signed release."""
        unsigned = cls(federation, base_sha256, spec, issued_s, b"")
        return replace(unsigned, signature=authority.sign(RELEASE, unsigned._body()))

    def check(self, authority: VerifyKey, federation: str) -> None:
        """Return if the authority signed this for the federation.

        Raises:
            BadSignature: another signer or federation.
        """
        authority.verify(RELEASE, self._body(), self.signature)
        if self.federation != federation:
            raise BadSignature(
                f"A model release is of '{federation}'.", f"one of '{self.federation[:64]}'",
                "Ask this federation's authority for its invitation.",
            )  # fmt: skip

    def to_plain(self) -> dict[str, Any]:
        """Return the release as plain data for the codec."""
        return {
            "federation": self.federation,
            "base_sha256": self.base_sha256,
            "adapter_rank": self.spec.rank,
            "adapter_placement": self.spec.placement,
            "issued_s": self.issued_s,
            "signature": self.signature,
        }

    @classmethod
    def from_plain(cls, plain: Any) -> ModelRelease:
        """Return the release in plain data; nothing is verified yet.

        Raises:
            BadMessage: other fields, types or ranges.
        """
        kinds: dict[str, type] = {
            "federation": str, "base_sha256": str, "adapter_rank": int, "adapter_placement": str,
            "issued_s": int, "signature": bytes,
        }  # fmt: skip
        fields = codec.fields(plain, kinds, "A model release")
        rank, placement = fields["adapter_rank"], fields["adapter_placement"]
        _require(bool(_DIGEST.fullmatch(fields["base_sha256"])), "names a base by its digest")
        _require(0 <= rank <= DIRECTIONS, f"has a rank of 0 to {DIRECTIONS}")
        known = get_args(SharedPlacement)
        _require(placement in known, f"has a placement of {', '.join(known)}")
        _require(len(fields["signature"]) == SIGNATURE_BYTES, "has a signature of 64 bytes")
        return cls(
            fields["federation"], fields["base_sha256"], SharedAdapterSpec(rank, placement),
            fields["issued_s"], fields["signature"],
        )  # fmt: skip

    def _body(self) -> bytes:
        plain = self.to_plain()
        del plain["signature"]
        return codec.encode(plain | {"layout": self.spec.digest})


@dataclass(frozen=True, slots=True)
class Invite:
    """What a federation tells a device before it joins.

    Attributes:
        federation: its name.
        authority: the enrolment authority's public key, which the device pins from here on.
        server: HOST:PORT of the Fleet API.
        root_certificate: PEM of what signed the server's TLS certificate; empty for a server on
            this very machine without TLS, which is for tests.
        release: which model is trained.
        bundles: SHA-256 of the bundles that the server may name; devices run nothing of them.
        least_cohort: fewest devices in a round.
        least_honest: fewest honest devices that every sum covers.
        terms: rounds, training, noise and limits; the device holds the server to them.
        issued_s: Unix time.
        expires_s: Unix time; it may be answered until then.
        token: enrols one device, once; None in an invitation for everybody.
        signature: by the authority, over the other fields.
    """

    federation: str
    authority: VerifyKey
    server: str
    root_certificate: str
    release: ModelRelease
    bundles: tuple[str, ...]
    least_cohort: int
    least_honest: int
    terms: Federation
    issued_s: int
    expires_s: int
    token: EnrolmentToken | None
    signature: bytes = b""

    def __repr__(self) -> str:
        return f"Invite({self.federation!r})"

    def signed(self, authority: SigningKey) -> Invite:
        """Return this, signed by the authority.

        Raises:
            BadMessage: a field that a device would refuse.
        """
        unsigned = replace(self, authority=authority.verify_key(), signature=b"")
        made = replace(unsigned, signature=authority.sign(INVITATION, unsigned._body()))
        made.check(made.issued_s)
        return Invite.from_bytes(made.to_bytes())

    def check(self, now_s: int) -> None:
        """Return if the authority that it names signed all of it, and it can be answered now.

        Raises:
            BadSignature: altered, expired, or from the future.
        """
        self.authority.verify(INVITATION, self._body(), self.signature)
        self.release.check(self.authority, self.federation)
        if self.token is not None and (self.token.federation, self.token.authority) != (
            self.federation, self.authority,
        ):  # fmt: skip
            raise BadSignature(
                "An invitation's token is of the same federation and authority.", "another's",
                "Ask the authority for another invitation.",
            )  # fmt: skip
        if now_s > self.expires_s:
            raise BadSignature(
                "An invitation is answered before it ends.",
                f"one that ended at {self.expires_s} (Unix time; now {now_s})",
                "Ask the authority for a new one, or set this machine's clock.",
            )
        if now_s < self.issued_s - CLOCK_SLACK_S:
            raise BadSignature(
                "An invitation is from the past.",
                f"one from {self.issued_s} (Unix time; now {now_s})", "Set this machine's clock.",
            )  # fmt: skip

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(self._plain() | {"signature": self.signature})

    @classmethod
    def from_bytes(cls, data: bytes) -> Invite:
        """Return the invitation in canonical bytes; nothing is verified yet.

        Raises:
            BadMessage: it is none, or a newer version made it.
        """
        plain = codec.decode(data, max_bytes=MAX_INVITE_BYTES)
        if (
            isinstance(plain, dict)
            and type(plain.get("format")) is int
            and plain["format"] > FORMAT
        ):
            raise BadMessage(
                f"An invitation is of format {FORMAT} or older.", f"format {plain['format']}",
                "Update Chorister on this device.",
            )  # fmt: skip
        kinds: dict[str, type] = {
            "format": int, "federation": str, "authority": bytes, "server": str,
            "root_certificate": str, "release": dict, "bundles": list, "least_cohort": int,
            "least_honest": int, "terms": dict, "issued_s": int, "expires_s": int, "token": str,
            "signature": bytes,
        }  # fmt: skip
        fields = codec.fields(plain, kinds, "An invitation")
        _require(fields["format"] == FORMAT, f"is of format {FORMAT}")
        _require(1 <= len(fields["federation"]) <= 64, "names a federation in 1 to 64 characters")
        _require(len(fields["authority"]) == 32, "names its authority by a key of 32 bytes")
        _require(len(fields["signature"]) == SIGNATURE_BYTES, "has a signature of 64 bytes")
        _require(_is_address(fields["server"]), "names a server as HOST:PORT")
        bundles = fields["bundles"]
        _require(
            1 <= len(bundles) <= MAX_BUNDLES
            and all(isinstance(b, str) and _DIGEST.fullmatch(b) for b in bundles),
            f"names 1 to {MAX_BUNDLES} bundles by their digests",
        )
        _require(2 <= fields["least_honest"] <= fields["least_cohort"] <= 4096,
                 "asks for rounds of 2 to 4096 devices, at most all of them honest")  # fmt: skip
        _require(fields["issued_s"] < fields["expires_s"], "ends after it was made")
        _check_root(fields["root_certificate"], fields["server"])
        try:
            terms = Federation.parse(fields["terms"], "the invitation's terms")
        except BadSettings as error:
            raise BadMessage(error.rule[:200], error.found, "Ask for another invitation.") from None
        _require(terms.name == fields["federation"], "has terms of its own federation")
        token = fields["token"]
        return cls(
            fields["federation"], VerifyKey(fields["authority"]), fields["server"],
            fields["root_certificate"], ModelRelease.from_plain(fields["release"]),
            tuple(bundles), fields["least_cohort"], fields["least_honest"], terms,
            fields["issued_s"], fields["expires_s"],
            EnrolmentToken.from_text(token) if token else None, fields["signature"],
        )  # fmt: skip

    def _plain(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "federation": self.federation,
            "authority": self.authority.raw,
            "server": self.server,
            "root_certificate": self.root_certificate,
            "release": self.release.to_plain(),
            "bundles": list(self.bundles),
            "least_cohort": self.least_cohort,
            "least_honest": self.least_honest,
            "terms": self.terms.model_dump(mode="json"),
            "issued_s": self.issued_s,
            "expires_s": self.expires_s,
            "token": self.token.to_text() if self.token else "",
        }

    def _body(self) -> bytes:
        return codec.encode(self._plain())


def is_loopback(server: str) -> bool:
    """Return whether HOST:PORT is this very machine."""
    return server.rpartition(":")[0] in LOOPBACK


def _is_address(server: str) -> bool:
    match = _ADDRESS.fullmatch(server)
    return match is not None and 1 <= int(match.group(2)) <= 65535


def _check_root(pem: str, server: str) -> None:
    if not pem:
        _require(is_loopback(server), "holds the root certificate of a server elsewhere")
        return
    _require(len(pem) <= MAX_CERTIFICATE_BYTES, f"has {MAX_CERTIFICATE_BYTES} bytes of PEM at most")
    try:
        found = x509.load_pem_x509_certificates(pem.encode("ascii"))
    except (ValueError, TypeError):
        found = []
    _require(bool(found), "holds a root certificate in PEM")
    _require("PRIVATE KEY" not in pem, "holds a certificate alone, and no private key")


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise BadMessage(
            f"An invitation {rule}.", "something else", "Ask the authority for another invitation."
        )
