"""Run the rounds of one federation: the ServerApp and ClientApp of a deployment, on an engine."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, RecordDict

from chorister.client.app import app as client_app
from chorister.server.app import app as server_app
from chorister.server.rounds import ROUNDS_FILE, RoundRecord, read_rounds
from chorister.shared.console import Step, progress
from chorister.shared.errors import UsageError
from chorister.simulations import network
from chorister.simulations.grid import RUN_ID, InProcessGrid
from chorister.simulations.world import World

EXCHANGES = 5


def run_rounds(world: World, title: str) -> list[RoundRecord]:
    """Run the rounds that are still to do and return all of them.

    Args:
        world: the speakers, the settings and the folder, enrolled.
        title: what the progress bar says.
    """
    path = world.folder.server / ROUNDS_FILE
    wanted = world.scenario.federation.rounds
    missing = wanted - len(read_rounds(path))
    if missing <= 0:
        return read_rounds(path)
    network.enter(world.folder)
    _quieten_flower(world.folder.state)
    in_process = world.scenario.engine == "in-process"
    steps = missing * (EXCHANGES * len(world.clients) if in_process else 1)
    with progress(title, steps) as step:
        if in_process:
            _run_in_process(world, step)
        else:
            _run_on_ray(world, step)
    return read_rounds(path)


def _run_in_process(world: World, step: Step) -> None:
    grid = InProcessGrid(client_app, len(world.clients), on_delivery=step)
    context = Context(run_id=RUN_ID, node_id=0, node_config={}, state=RecordDict(), run_config={})
    server_app(grid, context)


def _run_on_ray(world: World, step: Step) -> None:
    try:
        import ray
    except ModuleNotFoundError:
        raise UsageError(
            "The engine 'ray' needs the package ray.",
            "it is not installed",
            "Install it with: pip install 'chorister[simulation]', or use --engine in-process.",
        ) from None
    from flwr.simulation import run_simulation

    # One thread a client: the same sums in the same order as in one process.
    os.environ["OMP_NUM_THREADS"] = "1"
    done: Callable[[], None] = step
    with network.on_each_round(done), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run_simulation(
                server_app,
                client_app,
                num_supernodes=len(world.clients),
                backend_config={
                    "client_resources": {
                        "num_cpus": world.scenario.ray.cpus,
                        "num_gpus": world.scenario.ray.gpus,
                    },
                    "init_args": {"logging_level": "ERROR", "log_to_driver": False},
                },
            )
        finally:
            ray.shutdown()


def _quieten_flower(folder: Path) -> None:
    os.environ.setdefault("FLWR_HOME", str((folder / "flower").resolve()))
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    logging.getLogger("flwr").setLevel(logging.ERROR)
