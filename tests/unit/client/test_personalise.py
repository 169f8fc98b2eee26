"""The personal adapter: refused without a permit, kept only where it helps, the same each time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from chorister.client import personalise as personalise_module
from chorister.client.consent import Permit
from chorister.client.personal_judge import WORDS_BY_CONTENT, Opinion
from chorister.client.personal_lessons import Lessons, disguised
from chorister.client.personal_privacy import PersonalPrivacy
from chorister.client.personalise import Personalised, PersonaliseSettings, personalise
from chorister.client.prepare import segments
from chorister.shared.errors import BadAudio, BadSettings, ConsentRefused
from chorister.shared.privacy.charges import personal_event
from chorister.shared.settings import SegmentPrivacy
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice import adapters
from chorister.shared.voice.f0 import estimate_f0
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile
from chorister.simulations.randomness import SimulatedRandomness

NOW_S = 1_800_000_000
Speech = Callable[[float, int], FloatArray]
Permits = Callable[[str], Permit]
QUICK = PersonaliseSettings(rank=4, steps=12, batch_size=4, check_every=4, learning_rate=1e-2)


class Judging:
    """An encoder whose opinion of each further conversion is given beforehand.

    Args:
        cosines: with the target's vector, one a judgement; the last one is repeated.
    """

    def __init__(self, target: SpeakerProfile, cosines: Sequence[float]) -> None:
        self._vector = target.vector
        self._across = np.roll(target.vector, 1)
        self._across -= (self._across @ self._vector) * self._vector
        self._across /= np.linalg.norm(self._across)
        self._cosines = list(cosines)

    def embed(self, log_mel: FloatArray) -> FloatArray:
        cosine = self._cosines.pop(0) if len(self._cosines) > 1 else self._cosines[0]
        vector = cosine * self._vector + np.sqrt(1 - cosine**2) * self._across
        return vector.astype(np.float32)

    def __call__(self, log_mel: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._vector).expand(len(log_mel), -1)


class Approving:
    """A second judge that likes every adapter, or none."""

    approves = True

    def __init__(self, *_: object) -> None:
        self._looks = 0

    def look(self, _: VoiceModel) -> Opinion:
        self._looks += 1
        likeness = 0.1 * self._looks if self.approves else -0.1 * self._looks
        return Opinion(likeness, 0.5, WORDS_BY_CONTENT)


@pytest.fixture(autouse=True)
def second_judge(monkeypatch: pytest.MonkeyPatch) -> type[Approving]:
    monkeypatch.setattr(personalise_module, "PersonalJudge", Approving)
    monkeypatch.setattr(Approving, "approves", True)
    return Approving


@pytest.fixture(scope="module")
def material(speech: Speech) -> tuple[tuple[Recording, ...], tuple[Recording, ...]]:
    own = Recording(speech(18.0, 7), "own")
    return segments([own]), segments([Recording(speech(4.0, 8), "held out")])


@pytest.fixture(scope="module")
def probe(speech: Speech) -> Recording:
    return Recording(speech(2.0, 9), "probe")


def run(
    model: VoiceModel,
    material: tuple[tuple[Recording, ...], tuple[Recording, ...]],
    target: SpeakerProfile,
    probe: Recording,
    permit: Permit,
    cosines: Sequence[float] = (0.5,),
    settings: PersonaliseSettings = QUICK,
    privacy: PersonalPrivacy | None = None,
) -> Personalised:
    training, held_out = material
    encoder = Judging(target, cosines)
    return personalise(
        model, training, held_out, target, [probe], encoder, permit, now_s=NOW_S,
        settings=settings, privacy=privacy,
    )  # fmt: skip


@pytest.mark.parametrize("placement", ["all", "early", "late", "none"])
def test_it_trains_what_was_placed_and_nothing_else(
    make_model, material, target, probe, permits: Permits, placement: str
) -> None:
    model = make_model()
    frozen = {name: value.clone() for name, value in model.state_dict().items()}
    settings = QUICK.model_copy(update={"placement": placement})
    result = run(model, material, target, probe, permits("training"), (0.5, 0.9), settings)
    assert result.kept
    spec = adapters.PersonalAdapterSpec(QUICK.rank, placement)
    blocks = {name.split(".")[0] for name in result.adapter} - {"offset"}
    assert blocks == {str(i) for i in spec.blocks(model.settings.decoder_blocks)}
    assert all(value.abs().sum() > 0 for value in result.adapter.values())
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())


def test_it_needs_a_permit_for_training(
    small_model: VoiceModel, material, target, probe, permits: Permits
) -> None:
    with pytest.raises(ConsentRefused, match="training"):
        run(small_model, material, target, probe, permits("conversion"))


@pytest.mark.parametrize("missing", [0, 1])
def test_it_needs_segments_of_both_kinds(
    small_model: VoiceModel, material, target, probe, permits: Permits, missing: int
) -> None:
    material = tuple(() if i == missing else part for i, part in enumerate(material))
    with pytest.raises(BadSettings, match="Record more"):
        run(small_model, material, target, probe, permits("training"))


def test_an_adapter_that_helps_is_kept(
    small_model: VoiceModel, material, target, probe, permits: Permits
) -> None:
    base = copy.deepcopy(small_model.state_dict())
    done = run(small_model, material, target, probe, permits("training"), [0.5, 0.6])
    assert done.kept
    assert done.loss_after < done.loss_before
    assert (done.similarity_before, done.similarity_after) == pytest.approx((0.5, 0.6), abs=1e-5)
    attached = adapters.read_personal(small_model)
    assert attached.keys() == done.adapter.keys()
    assert all(torch.equal(attached[name], value) for name, value in done.adapter.items())
    state = small_model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in base.items())
    assert not any(p.requires_grad for p in small_model.parameters())
    assert "Personalised" in done.verdict()


def test_one_that_the_second_judge_does_not_like_is_not_kept(
    small_model: VoiceModel, material, target, probe, permits: Permits, second_judge
) -> None:
    second_judge.approves = False
    done = run(small_model, material, target, probe, permits("training"), [0.5, 0.6])
    assert not done.kept
    assert not done.adapter
    assert small_model.decoder.condition.offset is None
    assert "was not trained on" in done.verdict()


def test_one_that_moves_away_from_the_speaker_is_not_kept(
    small_model: VoiceModel, material, target, probe, permits: Permits
) -> None:
    names = set(small_model.state_dict())
    done = run(small_model, material, target, probe, permits("training"), [0.5, 0.49])
    assert not done.kept
    assert done.adapter == {}
    assert done.loss_after < done.loss_before
    assert set(small_model.state_dict()) == names
    assert "did not help" in done.verdict()


def test_one_that_learns_nothing_stops_early_and_is_not_kept(
    small_model: VoiceModel, material, target, probe, permits: Permits
) -> None:
    """At a learning rate that float32 swallows, conversions stay what they were."""
    settings = QUICK.model_copy(update={"steps": 100, "patience": 2, "learning_rate": 1e-30})
    names = set(small_model.state_dict())
    done = run(small_model, material, target, probe, permits("training"), [0.5], settings)
    assert not done.kept
    assert done.steps == 8, "a patience of two looks, four steps each"
    assert set(small_model.state_dict()) == names


def test_of_several_looks_the_best_allowed_one_is_kept(
    small_model: VoiceModel, material, target, probe, permits: Permits
) -> None:
    """Similarity falls below zero-shot at the last look: the second look is kept."""
    seen = [0.5, 0.55, 0.6, 0.4]
    done = run(small_model, material, target, probe, permits("training"), seen)
    assert done.kept
    assert done.steps == 12
    assert done.similarity_after == pytest.approx(0.6, abs=1e-5)


def test_the_same_seed_gives_the_same_adapter(
    small_model: VoiceModel, material, target, probe, permits: Permits
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rising = [0.5, 0.6]
    try:
        again = [
            run(copy.deepcopy(small_model), material, target, probe, permits("training"), rising, s)
            for s in (QUICK, QUICK, QUICK.model_copy(update={"seed": 1}))
        ]
    finally:
        torch.set_num_threads(threads)
    first, second, other = (done.adapter for done in again)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def private(clip_norm: float, noise: float, seed: int = 0) -> PersonalPrivacy:
    segment = SegmentPrivacy(clip_norm=clip_norm, noise_multiplier=noise)
    return PersonalPrivacy(segment, SimulatedRandomness(seed, "test"))


def test_by_dp_sgd_every_step_is_charged(
    small_model: VoiceModel, material, target, probe, permits: Permits, one_thread
) -> None:
    done = run(
        small_model, material, target, probe, permits("training"), [0.5, 0.6],
        privacy=private(0.1, 1.0),
    )  # fmt: skip
    rate = min(1.0, QUICK.batch_size / len(material[0]))
    assert done.event == personal_event(1.0, rate, done.steps)
    assert done.steps > 0
    hooks = [m for m in small_model.modules() if m._backward_hooks or m._forward_hooks]
    assert not hooks, "Opacus's hooks must come off"


def test_dp_sgd_learns_without_noise_and_less_with_it(
    small_model: VoiceModel, material, target, probe, permits: Permits, one_thread
) -> None:
    quiet, loud = (
        run(
            copy.deepcopy(small_model), material, target, probe, permits("training"), [0.5, 0.6],
            privacy=private(0.1, noise),
        )
        for noise in (1e-30, 1e4)
    )  # fmt: skip
    assert quiet.loss_after < quiet.loss_before
    assert loud.loss_after > quiet.loss_after


def test_the_same_randomness_gives_the_same_private_adapter(
    small_model: VoiceModel, material, target, probe, permits: Permits, one_thread
) -> None:
    first, second, other = (
        run(
            copy.deepcopy(small_model), material, target, probe, permits("training"), [0.5, 0.6],
            privacy=private(0.1, 0.01, seed),
        ).loss_after
        for seed in (0, 0, 1)
    )  # fmt: skip
    assert first == second
    assert first != other


def test_it_stands_on_the_shared_adapter(
    small_model: VoiceModel, material, target, probe, permits: Permits
) -> None:
    plain = run(copy.deepcopy(small_model), material, target, probe, permits("training"))
    adapters.attach_shared(small_model, adapters.SharedAdapterSpec(0))
    shift = np.full(160, 0.5, np.float32)
    adapters.write_shared(small_model, shift)
    done = run(small_model, material, target, probe, permits("training"))
    assert done.loss_before != plain.loss_before
    np.testing.assert_array_equal(adapters.read_shared(small_model), shift)


def test_a_time_limit_ends_training(
    small_model: VoiceModel, material, target, probe, permits: Permits
) -> None:
    hasty = QUICK.model_copy(update={"steps": 10_000, "max_s": 1e-9})
    done = run(small_model, material, target, probe, permits("training"), settings=hasty)
    assert (done.steps, done.kept) == (0, False)


def test_probes_without_speech_give_way_to_a_disguise(
    small_model: VoiceModel, material, target, permits: Permits
) -> None:
    silent = Recording(np.zeros(16_000, np.float32), "silent")
    done = run(small_model, material, target, silent, permits("training"), [0.1, 0.5, 0.5])
    assert done.steps == 12


def test_held_out_silence_cannot_judge(
    small_model: VoiceModel, material, target, permits: Permits
) -> None:
    silent = Recording(np.zeros(20_480, np.float32), "silent")
    with pytest.raises(BadAudio):
        run(small_model, (material[0], (silent,)), target, silent, permits("training"))


@pytest.mark.parametrize("factor", [0.84, 1.19])
def test_a_disguise_moves_the_pitch(speech: Speech, factor: float) -> None:
    own = Recording(speech(3.0, 7), "own")
    other = disguised(own, factor)
    assert len(other.samples) == pytest.approx(len(own.samples) / factor, abs=1)
    before, after = estimate_f0(own.samples), estimate_f0(other.samples)
    ratio = np.median(after[after > 0]) / np.median(before[before > 0])
    assert ratio == pytest.approx(factor, rel=0.03)


def test_no_segment_recalls_itself(
    small_model: VoiceModel, material, target, probe, permits: Permits, monkeypatch
) -> None:
    seen = []
    recall = type(small_model.decoder.recall)
    honest = recall.forward

    def watched(self, content, sounds_content, sounds_log_mel, foreign):
        if torch.is_grad_enabled() and small_model.decoder.condition.offset is not None:
            seen.append((content.detach(), sounds_content.detach()))
        return honest(self, content, sounds_content, sounds_log_mel, foreign)

    monkeypatch.setattr(recall, "forward", watched)
    plain = QUICK.model_copy(update={"content_noise": 0.0})
    run(small_model, material, target, probe, permits("training"), settings=plain)
    assert seen
    for content, table in seen:
        for own, known in zip(content, table, strict=True):
            assert torch.cdist(own, known).min() > 1e-4
    # The rows of a batch are of both halves, and where one is not disguised the others' tables
    # have its frames.
    assert any(torch.cdist(a, b).min() < 1e-4 for own, known in seen for a in own for b in known)


def test_training_computes_where_the_model_is(make_model, material, target: SpeakerProfile) -> None:
    """On torch's 'meta' device, which refuses to mix: there is no GPU here."""
    model = make_model().to("meta")
    adapters.attach_personal(model, adapters.PersonalAdapterSpec(4, "late"))

    class Hearing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = torch.nn.Linear(80, 256)

        def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
            return self.project(log_mel.mean(dim=1))

    lessons = Lessons(
        model,
        material[0],
        target,
        Hearing().to("meta"),
        likeness_weight=1.0,
        cycle_weight=1.0,
        content_noise=0.1,
        apart=False,
    )
    each = lessons.loss(torch.tensor([0, 2, 1]), torch.Generator().manual_seed(1))
    assert (each.shape, each.device.type) == ((3,), "meta")
    each.sum().backward()
    gradients = [parameter.grad for parameter in adapters.personal_parameters(model)]
    assert all(one is not None and one.device.type == "meta" for one in gradients)


def test_a_device_that_fails_gives_way_to_the_cpu(
    make_model, material, target, probe, permits: Permits, monkeypatch
) -> None:
    from chorister.client import compute

    monkeypatch.setattr(compute, "_failed", set())
    wanted = run(make_model(), material, target, probe, permits("training"), (0.5, 0.9))
    model = make_model()
    asked = []

    def device_of(_: VoiceModel) -> torch.device:
        return torch.device("meta")

    honest = personalise_module._personalise_on

    def failing(device: torch.device, *arguments: object) -> Personalised:
        asked.append(device.type)
        if device.type != "cpu":
            raise RuntimeError("out of memory")
        return honest(device, *arguments)

    monkeypatch.setattr(personalise_module, "device_of", device_of)
    monkeypatch.setattr(personalise_module, "_personalise_on", failing)
    found = run(model, material, target, probe, permits("training"), (0.5, 0.9))
    assert asked == ["meta", "cpu"]
    assert all(torch.equal(wanted.adapter[name], value) for name, value in found.adapter.items())


def test_training_stops_when_conversions_stop_improving(
    make_model, material, target, probe, permits: Permits
) -> None:
    patient = QUICK.model_copy(update={"steps": 400, "check_every": 2, "patience": 3})
    cosines = (0.1, 0.5, 0.4, 0.4, 0.4, 0.9)
    done = run(make_model(), material, target, probe, permits("training"), cosines, patient)
    assert done.steps == 2 * 4
    assert done.similarity_after == pytest.approx(0.5)
