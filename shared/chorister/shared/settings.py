"""Settings as typed, bounded values, read from TOML.

An unknown key, a wrong type or a value out of range stops the command before anything starts, with
the nearest known key. Units are in the names.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chorister.shared.errors import BadSettings

Share = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
MAX_FOUND = 80  # characters of a wrong value in an error; a peer may have chosen it
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Delta = Annotated[float, Field(gt=0.0, lt=0.1, allow_inf_nan=False)]


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown keys, and strict where they are parsed."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Return the settings in plain values.

        Args:
            values: nested dictionaries as TOML gives them.
            where: what to call the source in an error, e.g. a file name.

        Raises:
            BadSettings: an unknown key (with the nearest known one), a wrong type, or out of range.
        """
        try:
            # As JSON, where strictness still lets an array be a tuple, and a date is a wrong type.
            return cls.model_validate_json(json.dumps(dict(values), default=str), strict=True)
        except ValidationError as error:
            raise _explain(cls, error, where) from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the settings in a TOML file.

        Raises:
            BadSettings: the file is missing, no TOML, or `parse` refuses it.
        """
        return cls.parse(read_toml(path), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file as nested dictionaries.

    Raises:
        BadSettings: the file is missing or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings(
            "A settings file can be read.", f"{path}: {error.strerror}", "Check the path."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(
            "A settings file is TOML.", f"{path}: {error}", "Correct that line."
        ) from None


class SegmentPrivacy(Settings):
    """DP-SGD on the device; the privacy unit is one training segment.

    Attributes:
        clip_norm: L2 bound of one segment's gradient.
        noise_multiplier: standard deviation of the noise over `clip_norm`.
        delta_dp: the delta at which epsilon is stated.
        epsilon_max: the device refuses to train past it.
    """

    clip_norm: Positive = 0.1
    noise_multiplier: Positive = 1.0
    delta_dp: Delta = 1e-3
    epsilon_max: Positive = 50.0


class AdaptiveClip(Settings):
    """How the clip of the next round follows from a noisy count of deltas that were within it.

    Source: Andrew et al. 2021, section 3.

    Attributes:
        quantile: share of the deltas that should be within the clip.
        learning_rate: of the clip's logarithm.
        budget_share: part of each round's privacy cost that goes to the count.
        least_norm: the clip falls no lower, and devices refuse terms below it.
        most_norm: the clip rises no higher, and devices refuse terms above it.
    """

    quantile: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    learning_rate: Annotated[float, Field(gt=0.0, le=2.0)] = 0.2
    budget_share: Annotated[float, Field(gt=0.0, le=0.5)] = 0.1
    least_norm: Annotated[float, Field(ge=1e-6, le=1e6)] = 1e-3
    most_norm: Annotated[float, Field(ge=1e-6, le=1e6)] = 10.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least_norm > self.most_norm:
            raise ValueError("least_norm is at most most_norm")
        return self


class SpeakerPrivacy(Settings):
    """Integer noise inside the secure sum; the privacy unit is one speaker's whole contribution.

    Attributes:
        clip_norm: L2 bound of one client's delta; of the first round where it adapts.
        noise_multiplier: standard deviation of the honest clients' noise over all that one client
            adds: its clipped delta and, where the clip adapts, its bit.
        delta_dp: the delta at which epsilon is stated.
        epsilon_max: device and server refuse a round past it.
        adaptive_clip: lets the clip follow the deltas; None keeps it fixed.
    """

    clip_norm: Positive = 0.5
    noise_multiplier: Positive = 1.0
    delta_dp: Delta = 1e-3
    epsilon_max: Positive = 50.0
    adaptive_clip: AdaptiveClip | None = None


class TrainingTask(Settings):
    """What one client does to the shared adapter in one round.

    Attributes:
        local_steps: optimiser steps.
        expected_batch_size: segments a step on average (Poisson sampling).
        learning_rate: of plain SGD on the noised mean gradient.
        momentum: of the same.
    """

    local_steps: Annotated[int, Field(ge=1, le=1000)] = 8
    expected_batch_size: Annotated[int, Field(ge=1, le=256)] = 8
    learning_rate: Positive = 1.0
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class Aggregation(Settings):
    """How masked deltas become one sum, and the sum a new adapter.

    Attributes:
        corrupt_fraction: gamma, the share of the cohort assumed to collude with the server.
        dropout_fraction: share of the cohort that may vanish over all stages.
        modulus_bits: the sum is taken modulo 2**modulus_bits.
        rotation: rotates deltas before they are rounded (docs/adr/0012 says when that helps).
        optimiser: of the server.
        server_learning_rate: factor on the mean delta.
        cohort_share: share of the known devices asked each round.
        stage_deadline_s: a device that has not answered by then has dropped out.
    """

    corrupt_fraction: Share = 0.0
    dropout_fraction: Annotated[float, Field(ge=0.0, le=0.5)] = 0.15
    modulus_bits: Annotated[int, Field(ge=16, le=32)] = 32
    rotation: bool = False
    optimiser: Literal["fedavg", "fedadam"] = "fedavg"
    server_learning_rate: Positive = 1.0
    cohort_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    stage_deadline_s: Positive = 600.0


Line = Annotated[str, Field(max_length=500)]


class Accountability(Settings):
    """Who answers for a federation, and why it may do what it does; for its ledger and its reports.

    Attributes:
        purpose: what the voices are used for.
        controller: who decides on purpose and means.
        contact: of the controller or its data protection officer.
        legal_basis: e.g. 'explicit consent, GDPR article 9(2)(a)'.
        jurisdiction: whose law.
        retention: how long what is kept.
    """

    purpose: Line = ""
    controller: Line = ""
    contact: Line = ""
    legal_basis: Line = ""
    jurisdiction: Line = ""
    retention: Line = ""


class Federation(Settings):
    """Everything that the operator of a federation decides.

    Attributes:
        name: the federation's name, bound into every certificate and key.
        rounds: how many rounds to run.
        private: False turns clipping of segments and all noise off: the baseline, never for real
            speakers.
    """

    name: Annotated[str, Field(min_length=1, max_length=64)] = "simulation"
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 2
    private: bool = True
    training: TrainingTask = TrainingTask()
    segment_privacy: SegmentPrivacy = SegmentPrivacy()
    speaker_privacy: SpeakerPrivacy = SpeakerPrivacy()
    aggregation: Aggregation = Aggregation()
    accountability: Accountability = Accountability()


def _explain(cls: type[BaseModel], error: ValidationError, where: str) -> BadSettings:
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = _known_keys(cls, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        advice = f"Did you mean '{near[0]}'?" if near else f"Known keys: {', '.join(known)}."
        return BadSettings(f"{where} holds known keys only.", f"'{key[:MAX_FOUND]}'", advice)
    return BadSettings(
        f"{where}: '{key}' must be valid ({first['msg'][0].lower()}{first['msg'][1:]}).",
        repr(first["input"])[:MAX_FOUND],
        "Correct this value.",
    )


def _known_keys(cls: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        if part.isdecimal():  # the place in an array of tables
            continue
        annotation = cls.model_fields[part].annotation
        kinds = (annotation, *get_args(annotation))  # a table, a table or nothing, or several
        cls = next(k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel))
    return sorted(cls.model_fields)
