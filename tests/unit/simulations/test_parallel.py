"""Several processes train one model: the same weights everywhere, other examples in each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from chorister.shared.errors import BadSettings
from chorister.simulations.base_recipe import StageSettings
from chorister.simulations.base_state import _check_share
from chorister.simulations.parallel import Processes, join, lower_precision

RECIPE = """
seed = 4
[data]
split_file = "splits.json"
split = "base"
held_out_split = "held_out"
speaker_folders = ["speech"]
[model]
content = 4
encoder_width = 8
encoder_blocks = 1
decoder_width = 8
decoder_blocks = 1
[[stages]]
kind = "reconstruction"
steps = 2
batch = 4
frames = 32
learning_rate = 1e-3
[[stages]]
kind = "adversarial"
steps = 2
batch = 4
frames = 32
learning_rate = 1e-3
speaker_weight = 1.0
fooling_weight = 0.1
matching_weight = 0.1
"""
# Runs the command and notes what this process drew and which weights it ended each stage with.
CHILD = """
import hashlib, json, sys
from pathlib import Path
from chorister.simulations import base_state, train_base
from chorister.simulations.base_batches import Batches
from chorister.simulations.parallel import Processes

base_state._DIRECTION_BATCHES = 1
train_base._VALIDATE_EVERY = 1
noted = {"drawn": [], "weights": [], "saved": 0}

def digest(tensors):
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest()

draw, finish, save = Batches.draw, base_state.Training.finish_stage, base_state.torch.save

def noted_draw(self, *arguments):
    batch = draw(self, *arguments)
    if len(arguments) > 5:
        noted["drawn"].append([tuple(batch.wav.shape), digest([batch.wav])])
    return batch

def noted_finish(self, *arguments):
    noted["weights"].append(digest(self.trainee.state_dict().values()))
    finish(self, *arguments)
    noted["weights"].append(digest(self.average.state_dict().values()))
    noted["weights"].append(digest(self.critics.state_dict().values()))

def noted_save(*arguments):
    noted["saved"] += 1
    save(*arguments)

Batches.draw, base_state.Training.finish_stage = noted_draw, noted_finish
base_state.torch.save = noted_save
status = train_base.main(sys.argv[2:])
Path(sys.argv[1]).write_text(json.dumps(noted))
sys.exit(status)
"""


def corpus(root: Path) -> None:
    for speaker, f0_hz in (("11", 110.0), ("12", 210.0), ("13", 150.0), ("14", 180.0)):
        path = root / "data" / "speech" / speaker / "1" / f"{speaker}-1-0000.wav"
        path.parent.mkdir(parents=True)
        phase = 2.0 * np.pi * f0_hz * np.arange(16_000) / 16_000.0
        buzz = sum(np.sin(k * phase) / k for k in range(1, 12))
        hiss = np.random.default_rng(int(speaker)).normal(size=16_000)
        soundfile.write(path, 0.05 * buzz + 0.002 * hiss, 16_000)
    splits = {"base": ["11", "12"], "held_out": ["13", "14"]}
    (root / "data" / "splits.json").write_text(json.dumps(splits))
    (root / "recipe.toml").write_text(RECIPE)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def train(root: Path, count: int, *more: str) -> list[subprocess.CompletedProcess[str]]:
    """What torchrun does, without a third process: one command for each rank."""
    arguments = [str(root / "recipe.toml"), "--data", str(root / "data"), "--cache"]
    arguments += [str(root / "cache"), "--out", str(root / "out"), "--device", "cpu", *more]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(root / f"rank{rank}.json"), *arguments],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    done = []
    for one in running:
        out, err = one.communicate(timeout=540)
        done.append(subprocess.CompletedProcess(one.args, one.returncode, out, err))
    return done


def test_two_processes_hold_the_same_weights_and_draw_their_own_examples(tmp_path: Path) -> None:
    """The first one alone writes and speaks."""
    corpus(tmp_path)
    first, second = train(tmp_path, 2, "--tensorboard")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "trained 2 stages" in first.stdout
    assert "trained" not in second.stdout
    one, two = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert one["weights"] == two["weights"]
    assert len(set(one["weights"])) == len(one["weights"])
    assert len(one["drawn"]) == len(two["drawn"]) == 4
    assert all(shape == [2, 5120] for shape, _ in one["drawn"] + two["drawn"])
    assert not {digest for _, digest in one["drawn"]} & {digest for _, digest in two["drawn"]}
    assert (one["saved"] > 0, two["saved"]) == (True, 0)
    steps = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").open()]
    assert [(line["stage"], line["step"]) for line in steps] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    checkpoint = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert checkpoint["processes"] == 2


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    stage = StageSettings(kind="swapped", steps=1, batch=6, learning_rate=1e-3)
    for count in (1, 2, 3):
        _check_share(stage, count)
    for count in (4, 6):  # no whole part; nobody to convert to
        with pytest.raises(BadSettings, match="equal part of a batch"):
            _check_share(stage, count)


@pytest.mark.parametrize("name", ["cuda:63", "tpu", "mps", ""])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(BadSettings) as caught:
        join(name)
    assert name in caught.value.found


def test_alone_on_a_cpu_nothing_is_exchanged() -> None:
    alone = join("cpu")
    assert alone == Processes()
    weight = torch.nn.Parameter(torch.ones(3))
    alone.average_gradients([weight])
    assert weight.grad is None
    assert alone.agree(0.25) == 0.25
    with alone.first_then_others():
        pass


def test_precision_is_lower_only_where_asked_or_on_a_gpu() -> None:
    assert join("cpu", "auto").lower is None
    assert join("cpu", "bfloat16").lower is torch.bfloat16
    rows = torch.ones(2, 3)
    with lower_precision(torch.bfloat16, rows):
        assert (rows @ rows.T).dtype is torch.bfloat16
    with lower_precision(None, rows):
        assert (rows @ rows.T).dtype is torch.float32
