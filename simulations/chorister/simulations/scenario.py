"""A scenario: everything that decides what a simulation computes, in one TOML file.

The same scenario, seed and machine type give the same shared adapter, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from chorister.shared.errors import BadSettings
from chorister.shared.settings import Federation, Settings, Share, read_toml

# The exchange at which a simulated client may vanish, as in chorister.shared.records.ROUND.
Stage = Literal["advertise", "share", "masked", "confirm", "reveal"]


class Dropout(Settings):
    """Probability that a client vanishes at an exchange and stays away until the round ends."""

    advertise: Share = 0.0
    share: Share = 0.0
    masked: Share = 0.0
    confirm: Share = 0.0
    reveal: Share = 0.0


class AdapterLayout(Settings):
    """The shared adapter: d = 160 (1 + rank), or half of that where it shifts one envelope.

    Attributes:
        rank: principal directions of the decoder that the envelope shift follows.
        placement: which envelopes it shifts.
    """

    rank: Annotated[int, Field(ge=0, le=8)] = 1
    placement: Literal["both", "harmonic", "noise"] = "both"


class PersonalLayout(Settings):
    """The personal adapters of the voices at the end.

    Attributes:
        rank: width of their bottlenecks.
        placement: in which of the decoder's blocks they are.
    """

    rank: Annotated[int, Field(ge=0, le=64)] = 16
    placement: Literal["all", "early", "late", "none"] = "all"


class RayResources(Settings):
    """What Ray gives each client at a time (engine = "ray" only)."""

    cpus: Annotated[float, Field(gt=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] = 0.0


class Scenario(Settings):
    """One simulated federation.

    Attributes:
        description: one line, shown in the report.
        seed: of everything that is drawn.
        clients: how many speakers take part; 0 means all that are not held out.
        held_out_share: share of the speakers that never take part and only measure.
        speakers: only these, by name; empty means all.
        shift: what all recordings went through before the clients saw them.
        engine: who calls the clients.
        personalise: how many held-out voices get a personal model at the end.
        personalise_steps: optimiser steps of each personal adapter, at most.
        personal_private: trains the personal adapters by DP-SGD as well, with the clip and noise
            of `federation.segment_privacy`.
        federated: False trains on each device alone (baseline).
        baselines: further runs for the table 'price of privacy'.
    """

    description: str = ""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 7
    clients: Annotated[int, Field(ge=0, le=100_000)] = 0
    held_out_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    speakers: tuple[str, ...] = ()
    shift: Literal["none", "microphone", "room", "telephone"] = "none"
    engine: Literal["in-process", "ray"] = "in-process"
    personalise: Annotated[int, Field(ge=0, le=100)] = 2
    personal_private: bool = False
    personalise_steps: Annotated[int, Field(ge=1, le=5000)] = 48
    federated: bool = True
    baselines: tuple[Literal["plain_fedavg", "local_only"], ...] = ()
    federation: Federation = Federation()
    adapter: AdapterLayout = AdapterLayout()
    personal_adapter: PersonalLayout = PersonalLayout()
    dropout: Dropout = Dropout()
    ray: RayResources = RayResources()


def read_scenario(name: str | None, overrides: Mapping[str, Any]) -> Scenario:
    """Return the scenario in a file, or one that comes with Chorister, with overrides.

    Args:
        name: path of a TOML file, or the name of a packaged one; None takes 'default'.
        overrides: values from the command line that replace the file's.

    Raises:
        BadSettings: no such scenario, or its values are wrong.
    """
    values = read_toml(_find(name or "default"))
    for key, value in overrides.items():
        table, _, leaf = key.rpartition(".")
        target = values
        for part in filter(None, table.split(".")):
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                # Without the override: the file is what is wrong.
                return Scenario.parse(values, f"scenario {name or 'default'}")
        target[leaf] = value
    return Scenario.parse(values, f"scenario {name or 'default'}")


def packaged_scenarios() -> list[str]:
    """Return the names of the scenarios that come with Chorister."""
    folder = resources.files("chorister.simulations") / "scenarios"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        return path
    if name in packaged_scenarios():
        return Path(str(resources.files("chorister.simulations") / "scenarios" / f"{name}.toml"))
    raise BadSettings(
        "A scenario is a TOML file or a packaged name.",
        f"'{name}'",
        f"Packaged scenarios: {', '.join(packaged_scenarios())}.",
    )
