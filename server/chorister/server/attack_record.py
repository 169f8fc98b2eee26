"""Measured attacks as data: the signed file that `chorister audit attack` writes and reports read.

The file is `{"attacks": ..., "key": ..., "signature": ...}`, signed like a report. An attack bounds
leakage from below: one that fails shows that it failed, and no more.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from chorister.shared.errors import BadLedger, BadSignature, UsageError
from chorister.shared.signing import SigningKey, VerifyKey

LABEL = "chorister/1 measured attacks"
FILE_NAME = "attacks.json"
MOST_BYTES = 32 * 2**20
_PNG = b"\x89PNG\r\n\x1a\n"

Text = Annotated[str, Field(max_length=20_000)]
Number = Annotated[float, Field(allow_inf_nan=False)]
MaybeNumber = Number | None
"""None where nothing bounds a figure."""


class Part(BaseModel):
    """Base of all parts: frozen, and no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _check_png(text: str) -> str:
    if not base64.b64decode(text, validate=True).startswith(_PNG):
        raise ValueError("a picture is a PNG in base64")
    return text


class Control(Part):
    """A positive control: the same attack where it has to succeed."""

    name: Text
    figure: Number
    interval: tuple[Number, Number] | None = None


class Beside(Part):
    """The same figure under other conditions, to be read beside it."""

    name: Text
    figure: MaybeNumber
    interval: tuple[Number, Number] | None = None


class Attack(Part):
    """One attack that was measured."""

    name: Text
    question: Text = Field(description="what an attacker wants to know, in plain words")
    adversary: Text = Field(description="what the attacker knows and sees")
    figure_name: Text = Field(description="e.g. 'equal error rate', 'epsilon, lower bound'")
    figure: MaybeNumber
    interval: tuple[Number, Number] | None
    confidence: Number = Field(description="of the interval, e.g. 0.95")
    chance: MaybeNumber = Field(description="what guessing gives, on the same scale")
    trials: int
    positive_control: Control | None
    beside: list[Beside] = Field(description="other conditions, bounds that are claimed")
    notes: list[Text] = Field(description="limits, e.g. what so many canaries can certify at most")


class Picture(Part):
    """A spectrogram: time to the right, mel bands upwards."""

    title: Text
    png: Annotated[str, Field(max_length=2**20), AfterValidator(_check_png)]
    duration_s: Number
    bands: int


class Attacks(Part):
    """What `chorister audit attack` measured."""

    format: Literal[2] = 2
    chorister: Text
    simulated: bool = Field(description="measured on simulated devices, where the truth is known")
    made_at_s: int
    command: Text = Field(description="repeats it")
    scale: Literal["quick", "full"]
    seed: int
    data: Text = Field(description="what the voices were")
    settings: list[tuple[Text, Text]] = Field(description="of the federation that was attacked")
    base_sha256: Text
    took_s: Number = Field(description="processor seconds of the whole")
    attacks: list[Attack]
    pictures: list[Picture]
    limits: list[Text] = Field(description="what these figures do not show")


class SealedAttacks(Part):
    """The file: measured attacks and who signed them."""

    attacks: Attacks
    key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    signature: Annotated[str, Field(pattern="^[0-9a-f]{128}$")]

    @property
    def signer(self) -> VerifyKey:
        """The public key that signed."""
        return VerifyKey(bytes.fromhex(self.key))


def attacks_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, the one that docs/attacks.schema.json shows."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Chorister measured attacks",
        **SealedAttacks.model_json_schema(),
    }


def seal_attacks(attacks: Attacks, key: SigningKey) -> bytes:
    """Return the signed file."""
    plain = attacks.model_dump(mode="json")
    signature = key.sign(LABEL, _digest(plain)).hex()
    signed = {"attacks": plain, "key": key.verify_key().raw.hex(), "signature": signature}
    return (json.dumps(signed, indent=1, allow_nan=False) + "\n").encode()


def read_attacks(path: Path) -> SealedAttacks:
    """Return the measured attacks in a file, as they were signed.

    Raises:
        UsageError: it cannot be read, is too large, or follows another schema.
        BadLedger: it was altered since it was signed.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(
                f"A file of measured attacks has at most {MOST_BYTES} bytes.",
                f"{path.stat().st_size} bytes in {path}", "Check the path.",
            )  # fmt: skip
        data = path.read_bytes()
        sealed = SealedAttacks.model_validate_json(data)
    except OSError as error:
        raise UsageError(
            "The attacks' file can be read.", f"{path}: {error.strerror}", "Check the path."
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(
            "A file of measured attacks follows docs/attacks.schema.json.",
            f"{path}: {where}: {first['msg'].lower()}",
            "Measure again with `chorister audit attack`, or leave out --attacks.",
        ) from None  # fmt: skip
    try:
        plain = json.loads(data)["attacks"]
        sealed.signer.verify(LABEL, _digest(plain), bytes.fromhex(sealed.signature))
    except BadSignature:
        raise BadLedger(
            "A file of measured attacks is as it was signed.",
            f"{path.name}, altered since, or signed by another key than it names",
            "Measure again with `chorister audit attack`.",
        ) from None
    return sealed


def find_attacks(paths: Sequence[Path]) -> Path | None:
    """Return the one file of measured attacks in run folders or one level below, None for none.

    Raises:
        UsageError: there are several.
    """
    found = [
        file
        for folder in paths
        if folder.is_dir()
        for pattern in (FILE_NAME, f"*/{FILE_NAME}")
        for file in sorted(folder.glob(pattern))
    ]
    if len(found) > 1:
        raise UsageError(
            "A report takes one file of measured attacks.", ", ".join(str(f) for f in found),
            "Name it with --attacks FILE.",
        )  # fmt: skip
    return found[0] if found else None


def _digest(plain: Any) -> bytes:
    body = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(body.encode()).digest()
