"""A writer is killed at any moment: every item is then the old one or a new one, whole."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from chorister.client.vault import Vault
from chorister.shared.randomness import SystemRandomness

KEY = bytes(range(32))
NAMES = ("identity", "profile", "training")
LETTERS = b"abcdefgh"
WRITER = """
import os, sys
from itertools import count
from pathlib import Path
from chorister.client.vault import Vault
from chorister.shared.randomness import SystemRandomness
os.fsync = lambda handle: None  # a killed process, not a lost power
vault = Vault.with_key(Path(sys.argv[1]), bytes(range(32)), SystemRandomness())
print("ready", flush=True)
for i in count():
    letter = bytes([b"abcdefgh"[i % 8]])
    for name in ("identity", "profile", "training"):
        vault.put(name, letter * 50_000)
    vault.put("passing", b"x" * 1000)
    vault.delete("passing")
"""


def test_a_killed_writer_leaves_each_item_old_or_new_and_whole(tmp_path):
    folder = tmp_path / "vault"
    vault = Vault.with_key(folder, KEY, SystemRandomness())
    for name in NAMES:
        vault.put(name, b"a" * 50_000)
    rng = random.Random(5)
    seen = set()
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE
        )
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.02, 0.3))
        writer.kill()
        writer.wait()
        found = Vault.with_key(folder, KEY, SystemRandomness())
        for name in NAMES:
            data = found.get(name)
            assert len(data) == 50_000
            assert len(set(data)) == 1
            assert data[:1] in (bytes([letter]) for letter in LETTERS)
            seen.add(data[:1])
        verdict = found.verify()
        assert not verdict.damaged
        assert {item.name for item in verdict.sound} - {"passing"} == set(NAMES)
        assert found.verify().leftovers == 0
    assert len(seen) > 1, "the writer was never in the middle of anything"


@pytest.mark.parametrize("cut", [0.0, 0.3, 0.9])
def test_an_item_that_was_cut_off_while_it_was_written_is_not_yet_the_item(tmp_path, cut):
    vault = Vault.with_key(tmp_path / "vault", KEY, SystemRandomness())
    vault.put("identity", b"old")
    other = Vault.with_key(tmp_path / "other", KEY, SystemRandomness())
    other.put("identity", b"new" * 1000)
    (sealed,) = (tmp_path / "other" / "items").iterdir()
    whole = sealed.read_bytes()
    # Both places in which a crash can leave a file: under its temporary name, and under its own.
    for name in (f".{sealed.name}.abc", sealed.name):
        (tmp_path / "vault" / "items" / name).write_bytes(whole[: int(cut * len(whole))])
    assert vault.get("identity") == b"old"
    assert vault.verify().leftovers == 2
    assert vault.get("identity") == b"old"
