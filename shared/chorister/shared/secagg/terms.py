"""What one round promises: the numbers that the server announces and every device checks and signs.

The digest of the terms is bound into every key, signature and message of the round, so two devices
that were told different terms cannot finish a round together (docs/protocol.md, section 3).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields
from typing import Any

from chorister.shared import codec
from chorister.shared.errors import BadMessage, BadSettings
from chorister.shared.privacy.discrete_gaussian import MAX_VARIANCE

PROTOCOL = 1
MAX_COHORT = 4096
MAX_DIMENSION = 2**23
MAX_TERMS_BYTES = 2048
WRAP_BITS = 40
"""A sum wraps around the modulus with probability at most 2**-WRAP_BITS in a round."""

LEAST_VARIANCE = 16
"""From here on a sum of discrete Gaussians is one for every purpose (docs/adr/0010)."""


@dataclass(frozen=True, slots=True)
class RoundTerms:
    """The terms of one round; devices recompute whatever follows from the rest.

    Attributes:
        federation: name of the federation, as in the certificates.
        run: name of the run, at most 64 characters.
        round: number of the round within the run, from 0.
        cohort: how many devices were invited.
        gamma: assumed fraction of the cohort that is corrupt, in [0, 1/3).
        dropout: assumed fraction that drops out over all stages, in [0, 1/2].
        min_honest: smallest number of honest devices that a released sum covers; noise is sized for
            it.
        dimension: d, values in a delta.
        modulus_bits: the sum is taken modulo 2**modulus_bits, 16 to 32.
        clip_norm: L2 bound of a delta before quantisation.
        scale: integer steps per unit of the delta.
        noise_multiplier: standard deviation of min_honest devices' noise over the L2 sensitivity
            after rounding; 0 for a run without speaker-level privacy.
        client_variance: variance parameter of every device's discrete Gaussian noise, in steps
            squared.
        bit_steps: B, by how much one further value of the sum rises or falls, device by device, to
            count whose delta was within clip_norm; 0 where the clip does not adapt.
        rotation: whether deltas are rotated before they are rounded.
        adapter: digest of the shared adapter that the round starts from, 64 hexadecimal digits.
        simulated: True only where keys, masks and noise come from a keyed generator.
    """

    federation: str
    run: str
    round: int
    cohort: int
    gamma: float
    dropout: float
    min_honest: int
    dimension: int
    modulus_bits: int
    clip_norm: float
    scale: float
    noise_multiplier: float
    client_variance: int
    bit_steps: int
    rotation: bool
    adapter: str
    simulated: bool

    def __post_init__(self) -> None:
        """Refuse values out of range.

        Raises:
            BadSettings: a value out of range, or noise that is too small or wraps too often.
        """
        # What the numbers promise is looked at only once each of them is in its range.
        for rules in (self._ranges, self._promises):
            for name, holds, rule in rules():
                if not holds:
                    raise BadSettings(
                        f"The round terms need {rule}.",
                        f"{name} = {getattr(self, name)!r}"[:200],
                        f"Change {name}; `chorister secagg plan` derives values that fit together.",
                    )

    def _ranges(self) -> list[tuple[str, bool, str]]:
        return [
            ("federation", 0 < len(self.federation) <= 64, "a federation of 1 to 64 characters"),
            ("run", 0 < len(self.run) <= 64, "a run name of 1 to 64 characters"),
            ("round", 0 <= self.round < 2**31, "a round number from 0"),
            ("cohort", 2 <= self.cohort <= MAX_COHORT, f"a cohort of 2 to {MAX_COHORT} devices"),
            ("gamma", 0 <= self.gamma < 1 / 3, "a corrupt fraction gamma in [0, 1/3)"),
            ("dropout", 0 <= self.dropout <= 0.5, "a drop-out fraction in [0, 0.5]"),
            ("min_honest", 2 <= self.min_honest <= self.cohort, "min_honest in 2 to the cohort"),
            (
                "dimension",
                1 <= self.dimension < MAX_DIMENSION,
                f"fewer than {MAX_DIMENSION} values",
            ),
            ("modulus_bits", 16 <= self.modulus_bits <= 32, "a modulus of 16 to 32 bits"),
            ("clip_norm", 1e-9 < self.clip_norm < 1e9, "a clip_norm in (1e-9, 1e9)"),
            ("scale", 1e-9 < self.scale < 1e15, "a scale in (1e-9, 1e15)"),
            ("noise_multiplier", 0 <= self.noise_multiplier <= 1e3, "noise of 0 to 1000 clips"),
            ("client_variance", 0 <= self.client_variance <= MAX_VARIANCE, "a variance to 2**26"),
            ("bit_steps", 0 <= self.bit_steps < 2**31, "bit_steps in 0 to 2**31"),
            ("adapter", len(self.adapter) == 64, "a digest of 64 hexadecimal digits"),
        ]

    def _promises(self) -> list[tuple[str, bool, str]]:
        samplable = self.client_variance >= LEAST_VARIANCE
        silent = not self.private and self.client_variance == 0
        return [
            ("client_variance", samplable or silent, f"a variance from {LEAST_VARIANCE} for noise"),
            ("bit_steps", self.private or not self.bit_steps, "noise where the clip adapts"),
            ("client_variance", self.enough_noise(), "noise as large as noise_multiplier says"),
            (
                "modulus_bits",
                self.fits_modulus(),
                f"a sum that wraps at most once in 2**{WRAP_BITS} rounds",
            ),
        ]

    @property
    def private(self) -> bool:
        """Whether speaker-level noise is added at all."""
        return self.noise_multiplier > 0

    @property
    def length(self) -> int:
        """Values in a masked delta: d, and one more where the clip adapts."""
        return self.dimension + (self.bit_steps > 0)

    @property
    def norm_bound(self) -> int:
        """Largest squared L2 norm, in steps squared, of a delta after stochastic rounding.

        Source: Kairouz, Liu, Steinke 2021, equation (1), with beta = exp(-1/2).
        """
        clipped = self.clip_norm * self.scale
        root_d = math.sqrt(self.dimension)
        return math.floor(
            min(
                clipped**2 + self.dimension / 4 + clipped + root_d / 2,
                (clipped + root_d) ** 2,
            )
        )

    @property
    def squared_sensitivity(self) -> int:
        """Largest squared L2 norm of all that one device adds: its rounded delta and its bit."""
        return self.norm_bound + self.bit_steps**2

    @property
    def sensitivity(self) -> float:
        """L2 sensitivity of the sum in steps: one speaker's contribution replaced by zero."""
        return math.sqrt(self.squared_sensitivity)

    def enough_noise(self) -> bool:
        """Return whether min_honest shares together are as much noise as the terms state."""
        stated = self.noise_multiplier**2 * self.squared_sensitivity
        return self.client_variance * self.min_honest >= stated * (1 - 1e-12)

    def noise_tail(self) -> float:
        """Return a bound in steps that the noise of the whole cohort exceeds with probability
        2**-40.

        A discrete Gaussian is sub-Gaussian with its own variance parameter (Canonne, Kamath,
        Steinke 2020, fact 18), so a sum of n in d coordinates stays below
        sqrt(2 n variance ln(2 d 2**40)).
        """
        exponent = math.log(2 * self.length) + WRAP_BITS * math.log(2)
        return math.sqrt(2 * self.cohort * self.client_variance * exponent)

    def fits_modulus(self) -> bool:
        """Return whether the sum stays inside the modulus, but for once in 2**40 rounds."""
        signal = self.cohort * self.sensitivity
        return signal + self.noise_tail() < 2.0 ** (self.modulus_bits - 1)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        plain: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return codec.encode({"message": "terms", "protocol": PROTOCOL, **plain})

    @classmethod
    def from_bytes(cls, data: bytes) -> RoundTerms:
        """Return the terms in canonical bytes.

        Raises:
            BadMessage: another form, another protocol version, or values out of range.
        """
        plain = codec.decode(data, max_bytes=MAX_TERMS_BYTES)
        kinds = {f.name: _KINDS[str(f.type)] for f in fields(cls)}
        if (
            not isinstance(plain, dict)
            or plain.pop("message", None) != "terms"
            or plain.pop("protocol", None) != PROTOCOL
            or plain.keys() != kinds.keys()
            or any(type(plain[name]) is not kind for name, kind in kinds.items())
        ):
            raise BadMessage(
                f"Round terms have the fields of protocol {PROTOCOL}.",
                "something else",
                "Drop them.",
            )
        try:
            return cls(**plain)
        except BadSettings as e:
            raise BadMessage(e.rule, e.found, "Leave the round.") from None

    def sha256(self) -> bytes:
        """Return the SHA-256 of the canonical bytes, 32 bytes; every key is bound to it."""
        return hashlib.sha256(self.to_bytes()).digest()

    def digest(self) -> str:
        """Return the same as 64 hexadecimal digits, for ledgers and consent tokens."""
        return self.sha256().hex()

    @property
    def round_id(self) -> str:
        """The round's name: the run, a slash, the number."""
        return f"{self.run}/{self.round}"


_KINDS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
