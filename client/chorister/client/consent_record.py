"""The consent record: a JSON-LD document in the terms of the W3C Data Privacy Vocabulary.

Fields follow ISO/IEC TS 27560:2023 (consent record information structure), mapped to terms as the
Data Privacy Vocabularies and Controls Community Group does in its guide to that specification;
docs/consent.schema.json is the schema, docs/consent.md the table. What the vocabulary has no term
for is under `chorister:`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from types import MappingProxyType
from typing import Any, Literal, get_args

from chorister.shared import codec
from chorister.shared.errors import BadSignature, ConsentRefused
from chorister.shared.signing import SigningKey, VerifyKey

Purpose = Literal["training", "conversion", "speech", "plain_export"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
CONSENT = "chorister/1 consent record"
SCHEMA = 2
CONTEXT: Mapping[str, str] = MappingProxyType(
    {
        "dct": "http://purl.org/dc/terms/",
        "dpv": "https://w3id.org/dpv#",
        "eu-gdpr": "https://w3id.org/dpv/legal/eu/gdpr#",
        "pd": "https://w3id.org/dpv/pd#",
        "chorister": "urn:chorister:",
    }
)
# The same in every record, because Chorister does nothing else: what is kept is a voice, which
# article 9 of the GDPR protects specially, so the basis is explicit consent (9(2)(a)).
_ALWAYS: Mapping[str, Any] = MappingProxyType(
    {
        "@type": "dpv:ConsentRecord",
        "dct:conformsTo": "ISO/IEC TS 27560:2023",
        "chorister:schema": SCHEMA,
        "dpv:hasConsentStatus": "dpv:ConsentGiven",
        "dpv:hasLegalBasis": "eu-gdpr:A9-2-a",
        "dpv:hasPersonalData": ["dpv:SensitivePersonalData", "pd:Biometric"],
        "dpv:hasDataSource": "dpv:DataSubjectDataSource",
        "dpv:hasRecipient": [],
        "dpv:hasRight": ["eu-gdpr:A7-3", "eu-gdpr:A15", "eu-gdpr:A17"],
    }
)


@dataclass(frozen=True, slots=True)
class CheckFigure:
    """One check of an enrolment, as its record keeps it: figures, no voice.

    Attributes:
        name: of the check, e.g. 'same speaker'.
        figure: what was measured.
        limit: what it had to reach, or at most be.
        unit: of both, '' for a plain number.
        passed: whether the enrolment passed it.
    """

    name: str
    figure: float
    limit: float
    unit: str
    passed: bool

    def line(self) -> str:
        """Return name, figure and limit for a person."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.name} {self.figure:g}{unit} (limit {self.limit:g}{unit})"

    def to_plain(self) -> dict[str, Any]:
        """Return the figure as plain JSON."""
        return {
            "name": self.name,
            "figure": self.figure,
            "limit": self.limit,
            "unit": self.unit,
            "passed": self.passed,
        }

    @classmethod
    def from_plain(cls, plain: Any) -> CheckFigure:
        """Return the figure in plain JSON.

        Raises:
            ValueError: something else.
        """
        kinds = {"name": str, "figure": float, "limit": float, "unit": str, "passed": bool}
        if plain.keys() != kinds.keys() or any(type(plain[k]) is not t for k, t in kinds.items()):
            raise ValueError
        if not isfinite(plain["figure"]) or not isfinite(plain["limit"]):
            raise ValueError
        return cls(**plain)


@dataclass(frozen=True, slots=True)
class SpokenStatement:
    """How a speaker said it, and what was checked of that.

    Attributes:
        sha256: digest of the recording's samples; the recording itself stays in the vault.
        locale: language of the sentence, e.g. 'en'.
        words_checked: whether a recogniser heard digits and key words; False where there is none
            for the locale, and policy let that pass.
        recogniser: its name, '' where the words were not checked.
        checks: of statement and recordings.
    """

    sha256: str
    locale: str
    words_checked: bool
    recogniser: str
    checks: tuple[CheckFigure, ...]

    def to_plain(self) -> dict[str, Any]:
        """Return the statement's facts as plain JSON."""
        return {
            "sha256": self.sha256,
            "locale": self.locale,
            "words_checked": self.words_checked,
            "recogniser": self.recogniser,
            "checks": [check.to_plain() for check in self.checks],
        }

    @classmethod
    def from_plain(cls, plain: Any) -> SpokenStatement:
        """Return the facts in plain JSON.

        Raises:
            ValueError: something else.
        """
        kinds = {
            "sha256": str, "locale": str, "words_checked": bool, "recogniser": str, "checks": list,
        }  # fmt: skip
        if plain.keys() != kinds.keys() or any(type(plain[k]) is not t for k, t in kinds.items()):
            raise ValueError
        checks = tuple(CheckFigure.from_plain(check) for check in plain["checks"])
        return cls(**{**plain, "checks": checks})


@dataclass(frozen=True, slots=True)
class ConsentRecord:
    """What a speaker allowed, for whom and until when, signed by the speaker's device.

    Attributes:
        subject: the device's pseudonym; no name.
        controller: who is allowed.
        purposes: sorted, at least one of `PURPOSES`.
        given_s: Unix time.
        expires_s: Unix time; not valid from then on.
        statement: the spoken statement, None if there is none.
        jurisdiction: whose law, e.g. 'EU'.
        storage: where the voice is kept and how, in words.
        retention: how long, in words.
        withdrawal: how to withdraw, in words.
        replaces: digest of the record that this one narrows, None if it narrows none.
        signature: by the device key, over the other fields.
    """

    subject: str
    controller: str
    purposes: tuple[Purpose, ...]
    given_s: int
    expires_s: int
    statement: SpokenStatement | None
    jurisdiction: str
    storage: str
    retention: str
    withdrawal: str
    replaces: str | None
    signature: bytes

    @property
    def sha256(self) -> str:
        """The record's digest, signature included: its name in ledgers and tokens."""
        return codec.digest(self.to_plain())

    @property
    def statement_sha256(self) -> str | None:
        """Digest of the spoken statement, None if there is none."""
        return None if self.statement is None else self.statement.sha256

    def check(self, device: VerifyKey) -> None:
        """Return if this device signed the record for its own speaker.

        Raises:
            BadSignature: it did not.
        """
        device.verify(CONSENT, self._body(), self.signature)
        if self.subject != device.name:
            raise BadSignature(
                f"The consent on this device is its own speaker's, {device.name}.",
                f"one of {self.subject}",
                "Enrol this speaker on this device.",
            )

    def signed(self, key: SigningKey) -> ConsentRecord:
        """Return the record with a device's signature in place of the one it has."""
        return replace(self, signature=key.sign(CONSENT, self._body()))

    def to_plain(self) -> dict[str, Any]:
        """Return the record as a JSON-LD document."""
        spoken = self.statement
        return {
            "@context": dict(CONTEXT),
            **{name: list(v) if isinstance(v, list) else v for name, v in _ALWAYS.items()},
            "dct:identifier": f"urn:chorister:consent:{self.subject}:{self.given_s}",
            "dct:language": None if spoken is None else spoken.locale,
            "dpv:hasDataSubject": self.subject,
            "dpv:hasDataController": self.controller,
            "dpv:hasPurpose": list(self.purposes),
            "dpv:hasJurisdiction": self.jurisdiction,
            "dpv:hasStorageCondition": self.storage,
            "dpv:hasDuration": self.retention,
            "chorister:givenAt": self.given_s,
            "chorister:expiresAt": self.expires_s,
            "chorister:statement": None if spoken is None else spoken.to_plain(),
            "chorister:withdrawal": self.withdrawal,
            "chorister:replaces": self.replaces,
            "chorister:signature": self.signature.hex(),
        }

    @classmethod
    def from_plain(cls, plain: Any) -> ConsentRecord:
        """Return the record in a JSON-LD document; the signature is not verified yet.

        Raises:
            ConsentRefused: other fields, other types or an unknown purpose.
        """
        try:
            spoken = plain["chorister:statement"]
            record = cls(
                subject=plain["dpv:hasDataSubject"],
                controller=plain["dpv:hasDataController"],
                purposes=tuple(plain["dpv:hasPurpose"]),
                given_s=plain["chorister:givenAt"],
                expires_s=plain["chorister:expiresAt"],
                statement=None if spoken is None else SpokenStatement.from_plain(spoken),
                jurisdiction=plain["dpv:hasJurisdiction"],
                storage=plain["dpv:hasStorageCondition"],
                retention=plain["dpv:hasDuration"],
                withdrawal=plain["chorister:withdrawal"],
                replaces=plain["chorister:replaces"],
                signature=bytes.fromhex(plain["chorister:signature"]),
            )
            # Equal documents only: a changed or an added field shows here.
            sound = record.to_plain() == plain and set(record.purposes) <= set(PURPOSES)
            sound = sound and type(record.given_s) is int and type(record.expires_s) is int
        except (AttributeError, KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise ConsentRefused(
                "A consent record has the fields of docs/consent.md.",
                "a document with others",
                "Give the consent again with `chorister enrol`.",
            )
        return record

    def _body(self) -> bytes:
        plain = self.to_plain()
        del plain["chorister:signature"]
        return codec.encode(plain)
