"""What a run knows of its speakers: written once, read back the same, by content."""

from __future__ import annotations

import json

import pytest

from chorister.simulations.corpus import Corpus
from chorister.simulations.folder import RunFolder
from chorister.simulations.scenario import Scenario
from chorister.simulations.speakers import Skipped, Speaker, Utterance
from chorister.simulations.world import load_world, make_world


def speakers(root, names, content=b"sound"):
    made = []
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        path = root / name / "a.wav"
        path.write_bytes(content + name.encode())
        text = root / name / "a.txt"
        text.write_text("la la")
        made.append(Speaker(name, (Utterance(path, text), Utterance(path)), "room"))
    return tuple(made)


@pytest.fixture
def make(tmp_path):
    def world(names=("anna", "berta"), held_out=("carla",), content=b"sound", run="out"):
        root = tmp_path / "corpus"
        clients, out = speakers(root, names, content), speakers(root, held_out, content)
        folder = RunFolder(tmp_path / run)
        folder.state.mkdir(parents=True, exist_ok=True)
        corpus = Corpus(root=root, layout="folders", speakers=clients + out)
        scenario = Scenario(shift="room", seed=9, speakers=("anna", "berta", "carla"))
        unfit = {"dora": "too short"}
        made = make_world(scenario, folder, corpus, clients, out, Skipped(), unfit)
        assert not folder.world.exists(), "its speakers are not settled yet"
        made.save()
        return made

    return world


def test_a_world_is_read_as_it_was_written(make):
    world = make()
    assert load_world(world.folder.root) == world
    assert world.skipped == (("speaker dora", "too short"),)
    assert [s.name for s in world.speakers] == ["anna", "berta", "carla"]


def test_the_digest_follows_names_and_contents(make):
    one = make().corpus_sha256
    assert make(run="again").corpus_sha256 == one
    others = [make(content=b"other", run="b"), make(names=("anna",), run="c")]
    assert len({one, *(o.corpus_sha256 for o in others)}) == 3


def test_paths_in_the_file_are_relative_to_the_corpus(make):
    world = make()
    plain = json.loads(world.folder.world.read_text())
    assert plain["clients"][0]["utterances"] == [["anna/a.wav", "anna/a.txt"], ["anna/a.wav", None]]
