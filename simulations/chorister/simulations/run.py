"""One simulation, top to bottom: from a folder of speech to a report.

    1 speakers   read or synthesise the corpus, leave out bad files, keep some speakers aside
    2 enrolment  keys, certificates, consents, profiles
    3 rounds     the federation itself, by the apps of a deployment
    4 measure    held-out loss under every version of the shared adapter
    5 baselines  the same without privacy, and each device alone
    6 voices     personal adapters, voice.onnx, samples
    7 report     run.json, metrics.csv, report.html

Everything up to 3 is resumed from what is on disk; what comes after is computed again.
"""

from __future__ import annotations

import csv
import io
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from chorister.server.registry import Registry
from chorister.server.rounds import ROUNDS_FILE, RoundRecord, read_rounds
from chorister.server.terms import plan_round
from chorister.shared.adapter_digest import adapter_digest
from chorister.shared.console import say
from chorister.shared.files import write_atomically
from chorister.shared.voice.base import load_base
from chorister.shared.voice.base_digest import BASE_SHA256
from chorister.shared.voice.speaker import SPEAKER_SHA256
from chorister.simulations import costs, enrolment, facts, network, outcome
from chorister.simulations.corpus import Corpus, open_corpus, screen_corpus
from chorister.simulations.embedded import embedded_corpus
from chorister.simulations.federate import run_rounds
from chorister.simulations.folder import RunFolder, check_room, open_baseline, open_folder
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.recordings import analyse_speakers
from chorister.simulations.report import write_report
from chorister.simulations.run_record import FORMAT_VERSION, write_run
from chorister.simulations.scenario import Scenario
from chorister.simulations.separation import measure_separation, shipped_embed
from chorister.simulations.speakers import Skipped, hold_out_speakers
from chorister.simulations.voices import make_voices
from chorister.simulations.world import World, load_world, make_world

ROOM_BYTES = 200 * 2**20


def simulate(
    scenario: Scenario, data: Path | None, out: Path, *, resume: bool, command: str
) -> dict[str, Any]:
    """Run a scenario and return its record, which is also in OUT/run.json.

    Args:
        scenario: what to run.
        data: folder of speech; None synthesises the embedded corpus.
        out: output folder, empty or new unless resumed.
        resume: go on after the last finished round.
        command: as typed, for the record.

    Raises:
        UsageError: something asked for cannot be; nothing is half-written then.
    """
    started_s = time.time()
    torch.set_num_threads(1)
    check_room(out, ROOM_BYTES)
    load_base()  # a wrong weights file stops the run here

    # 1 speakers, 2 enrolment
    corpus = _read_corpus(scenario, data)
    world, resumed = _begin(scenario, corpus, data, out, resume=resume)
    record = _first_record(world, data, command, started_s)
    record["resumed"] = resumed

    # 3 rounds, 4 measure
    records: list[RoundRecord] = []
    if scenario.federated:
        records = run_rounds(world, "Rounds")
    measured = outcome.measure_versions(world, "Measuring")
    final = measured.versions[-1]
    record["initial_held_out_loss"] = measured.mean(0)
    record["rounds"] = outcome.rounds_json(records, measured)
    record["shared_adapter_sha256"] = adapter_digest(final)
    record["cohort_advice"] = outcome.cohort_advice(records, len(final.values))
    record["budgets"] = costs.budgets(world, records)
    record["evaluation"] = (
        measured.evaluation()
        if scenario.federated
        else outcome.measure_alone(world, "Training each device alone")
    )

    # 5 baselines
    record["baselines"] = [_baseline(world, name) for name in scenario.baselines]

    # 6 voices
    voices = make_voices(world, final)
    record["personalised"], record["voice"] = voices.personalised, voices.voice
    record["samples"] = voices.samples

    # 7 report
    record["warnings"] = _warnings(world, records)
    record["finished_s"] = time.time()
    write_run(out / "run.json", record)
    _write_metrics(world.folder, record)
    enrolment.open_ledger(world).checkpoint(enrolment.server_key(scenario))
    write_report(out)
    return record


def _read_corpus(scenario: Scenario, data: Path | None) -> Corpus:
    if data is not None:
        names = scenario.speakers or None
        return open_corpus(data, speakers=names, shift=scenario.shift)
    say("No --data: synthesising voices with espeak-ng.")
    corpus = open_corpus(
        embedded_corpus(), speakers=scenario.speakers or None, shift=scenario.shift
    )
    found = measure_separation(corpus.speakers, shipped_embed())
    say(
        f"{found.speakers} voices; cosine with the own voice {found.same:.2f}, with others "
        f"{found.different:.2f}; {found.identified:.0%} of {found.utterances} sentences identified."
    )
    return corpus


def _begin(
    scenario: Scenario, corpus: Corpus, data: Path | None, out: Path, *, resume: bool
) -> tuple[World, list[dict[str, Any]]]:
    plan = {
        "scenario": scenario.model_dump(mode="json"),
        "data": None if data is None else str(data.resolve()),
        "base_sha256": BASE_SHA256,
    }
    if not resume or not (out / "state" / "world.json").exists():
        folder = open_folder(out, plan, resume=resume)
        try:
            return _choose_speakers(scenario, corpus, folder), []
        except BaseException:
            folder.discard()
            raise
    folder = open_folder(out, plan, resume=True)
    world = load_world(folder.root.resolve())
    finished = read_rounds(folder.server / ROUNDS_FILE)
    _go_back(world, finished)
    return world, [{"at_s": time.time(), "after_round": len(finished)}]


def _choose_speakers(scenario: Scenario, corpus: Corpus, folder: RunFolder) -> World:
    """Choose clients and held-out speakers among those whose recordings can serve; enrol them."""
    skipped = Skipped()
    screened = screen_corpus(corpus, skipped)
    unfit: dict[str, str] = {}
    while True:
        usable = [speaker for speaker in screened.speakers if speaker.name not in unfit]
        clients, held_out = hold_out_speakers(
            usable, scenario.held_out_share, scenario.seed, scenario.clients or None
        )
        _check_feasible(scenario, len(clients))
        world = make_world(scenario, folder, screened, clients, held_out, skipped, unfit)
        found = analyse_speakers(enrolment.vaults(world), len(world.speakers))
        if not found:
            # Written last: a run that is killed before chooses again, from the same analysis.
            folder.server.mkdir(parents=True, exist_ok=True)
            world.save()
            enrolment.enrol_devices(world)
            return world
        unfit |= found
        say(f"{len(found)} speakers cannot take part and are replaced: {', '.join(found)}.")


def _go_back(
    world: World, finished: list[RoundRecord], prepared_by: RunFolder | None = None
) -> None:
    """Take a folder to the end of its last committed round, or to a fresh enrolment."""
    network.rewind(world.folder, len(finished), finished[-1].adapter_sha256 if finished else None)
    if not finished:
        enrolment.enrol_devices(world, prepared_by)


def _check_feasible(scenario: Scenario, clients: int) -> None:
    """Refuse terms that no round of this size could have, before anything is written."""
    first = enrolment.first_adapter(scenario)
    plan_round(scenario.federation, "plan", 1, clients, first, adapter_digest(first), True)


def _first_record(
    world: World, data: Path | None, command: str, started_s: float
) -> dict[str, Any]:
    scenario = world.scenario
    first = enrolment.first_adapter(scenario)
    return {
        "format_version": FORMAT_VERSION,
        "chorister_version": version("chorister"),
        "command": command,
        "started_s": started_s,
        "finished_s": None,
        "machine": facts.machine(),
        "settings": scenario.model_dump(mode="json"),
        "seed": scenario.seed,
        "engine": scenario.engine,
        "federated": scenario.federated,
        "private": scenario.federation.private,
        "randomness": {"private": False, "statement": SimulatedRandomness.statement},
        "data": facts.data(world, embedded=data is None),
        "base_sha256": BASE_SHA256,
        "speaker_encoder_sha256": SPEAKER_SHA256,
        "shared_adapter": {
            "spec": first.spec,
            "d": len(first.values),
            "initial_sha256": adapter_digest(first),
        },
    }


def _baseline(world: World, name: str) -> dict[str, Any]:
    """Run the same clients, seed and settings with one thing switched."""
    if name == "local_only":
        found = outcome.measure_alone(world, "Baseline: each device alone")
        return {"name": name, "evaluation": found, "rounds": 0, "shared_adapter_sha256": None}
    scenario = world.scenario.model_copy(
        update={
            "federation": world.scenario.federation.model_copy(update={"private": False}),
            "baselines": (),
        }
    )
    folder = open_baseline(world.folder, name)
    folder.server.mkdir(parents=True, exist_ok=True)
    plain = World(
        scenario, folder, world.layout, world.root, world.clients, world.held_out,
        world.corpus_sha256, world.skipped,
    )  # fmt: skip
    plain.save()
    _go_back(plain, read_rounds(folder.server / ROUNDS_FILE), prepared_by=world.folder)
    records = run_rounds(plain, "Baseline: without privacy")
    measured = outcome.measure_versions(plain, "Measuring the baseline")
    newest = Registry(folder.adapters).latest()
    return {
        "name": name,
        "evaluation": measured.evaluation(),
        "rounds": sum(record.status == "finished" for record in records),
        "shared_adapter_sha256": newest.sha256 if newest else None,
    }


def _warnings(world: World, records: list[RoundRecord]) -> list[str]:
    found = []
    if world.skipped:
        found.append(f"{len(world.skipped)} files were left out; the list is below.")
    aborted = [record for record in records if record.status == "aborted"]
    if aborted:
        found.append(f"{len(aborted)} of {len(records)} rounds were aborted.")
    if not world.scenario.federation.private:
        found.append("Privacy was off: this is a baseline and never for real speakers.")
    return found


def _write_metrics(folder: RunFolder, record: dict[str, Any]) -> None:
    """Write metrics.csv: one row a round, round 0 being the base."""
    columns = (
        "round", "status", "cohort", "survivors", "held_out_loss", "client_loss", "noise_to_signal",
        "epsilon_speaker", "bytes_up_per_client", "seconds",
    )  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    first = record["initial_held_out_loss"]
    writer.writerow((0, "base", "", "", first["speakers"], first["clients"], "", "", "", ""))
    for row in record["rounds"]:
        loss = row["held_out_loss"]
        writer.writerow(
            (
                row["round"], row["status"], row["cohort"], row["survivors"], loss["speakers"],
                loss["clients"], row["noise_to_signal"], row["epsilon_speaker"], row["bytes_up"],
                round(row["seconds"], 3),
            )
        )  # fmt: skip
    write_atomically(folder.root / "metrics.csv", text.getvalue().encode(), mode=0o644)
