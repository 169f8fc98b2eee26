"""The personal adapter: plain training on one's own speech, for one's own device alone.

It is trained on top of the current shared adapter, stops when conversions stop improving, and is
kept only if it is better than doing without: conversions of other speech nearer to the speaker by
the speaker encoder and by a judge that it was not trained on, their words kept, and held-out
segments reconstructed as well. Else the zero-shot voice stays, and the result says so.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from chorister.client.compute import with_fallback
from chorister.client.consent import Permit
from chorister.client.personal_judge import Opinion, PersonalJudge, say_probe
from chorister.client.personal_lessons import Lessons, VoiceEncoder, device_of, disguised
from chorister.client.personal_privacy import PersonalPrivacy, PrivateSteps
from chorister.client.probes import Probe, probe_of, probes_of, shipped_probes
from chorister.shared.errors import BadSettings
from chorister.shared.privacy.events import PrivacyEvent
from chorister.shared.settings import NotNegative, Positive, Settings
from chorister.shared.types import Recording
from chorister.shared.voice import adapters
from chorister.shared.voice.batches import hiss_for, own_voice_batch
from chorister.shared.voice.features import log_mel
from chorister.shared.voice.losses import SpectralLoss
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.phones import PhoneRecogniser, find_recogniser
from chorister.shared.voice.profile import SpeakerProfile

_MAX_HELD_OUT = 12
_DISGUISES = (0.84, 1.19)
# The vocoder's noise is the same before and after, so that only the adapter differs.
_JUDGE_SEED = 0
# The adapter also learns what conversions sound like, which may cost its own voice a little.
LARGEST_LOSS_RATIO = 1.02


class PersonaliseSettings(Settings):
    """How a personal adapter is trained.

    Attributes:
        rank: width of its bottlenecks, 0 for none.
        placement: in which of the decoder's blocks they are: 'all', 'early', 'late' or 'none'.
        steps: optimiser steps at most.
        batch_size: segments a step.
        learning_rate: of AdamW at the start; it falls to zero along a cosine.
        likeness_weight: of 1 - cosine between what is said and the speaker's vector.
        cycle_weight: of the squared distance between its content and what was to be said.
        content_noise: standard deviation of the noise on the content.
        check_every: steps between two looks at the held-out segments.
        patience: looks without improvement after which training stops.
        max_s: training stops after this many seconds, for a slow machine; the result then depends
            on its speed. None sets no limit.
        seed: of first values, order and noise.
    """

    rank: Annotated[int, Field(ge=0, le=64)] = 16
    placement: adapters.PersonalPlacement = "all"
    steps: Annotated[int, Field(ge=1, le=10_000)] = 120
    batch_size: Annotated[int, Field(ge=1, le=64)] = 6
    learning_rate: Positive = 5e-3
    likeness_weight: NotNegative = 6.0
    cycle_weight: NotNegative = 0.5
    content_noise: NotNegative = 0.1
    check_every: Annotated[int, Field(ge=1, le=1000)] = 20
    patience: Annotated[int, Field(ge=1, le=1000)] = 3
    max_s: Positive | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


@dataclass(frozen=True, slots=True)
class Personalised:
    """What personalising came to.

    Attributes:
        kept: True if the adapter is in the model now; False if zero-shot is better and was kept.
        adapter: the tensors by name; empty if not kept.
        opinion_before: what a judge that nothing is trained on thinks of conversions, zero-shot.
        opinion_after: the same with the adapter that looked best; None if none looked better.
        loss_before: mean over held-out segments, zero-shot.
        loss_after: the same with the adapter; with the last one tried, if none was kept.
        similarity_before: mean cosine of conversions with the speaker's vector, zero-shot.
        similarity_after: the same with the adapter, likewise.
        tried_on: what the conversions said: whose speech.
        steps: optimiser steps done.
        seconds: time taken.
        event: what training cost each training segment; None without noise. The held-out segments,
            by which it was judged and stopped, are not protected.
    """

    kept: bool
    adapter: dict[str, Tensor]
    loss_before: float
    loss_after: float
    similarity_before: float
    similarity_after: float
    opinion_before: Opinion
    opinion_after: Opinion | None
    tried_on: str
    steps: int
    seconds: float
    event: PrivacyEvent | None = None

    def __repr__(self) -> str:
        return f"Personalised(kept={self.kept}, steps={self.steps})"

    def verdict(self) -> str:
        """One plain sentence."""
        figures = (
            f"held-out loss {self.loss_before:.3f} -> {self.loss_after:.3f}, "
            f"similarity {self.similarity_before:.3f} -> {self.similarity_after:.3f}"
        )
        figures += f" on {self.tried_on}"
        if self.opinion_after is not None:
            before, after = self.opinion_before, self.opinion_after
            figures += (
                f"; by a judge that was not trained on: likeness {before.likeness:.3f} -> "
                f"{after.likeness:.3f}, {after.words_by} {before.words:.3f} -> {after.words:.3f}"
            )
        if self.kept:
            return f"Personalised in {self.steps} steps ({figures})."
        return f"Personalising did not help ({figures}): the zero-shot voice is kept."


def personalise(
    model: VoiceModel,
    training: Sequence[Recording],
    held_out: Sequence[Recording],
    profile: SpeakerProfile,
    probes: Sequence[Recording],
    encoder: VoiceEncoder,
    permit: Permit,
    *,
    now_s: int,
    settings: PersonaliseSettings | None = None,
    privacy: PersonalPrivacy | None = None,
    on_step: Callable[[int], None] = lambda _: None,
) -> Personalised:
    """Trains a personal adapter on top of what is attached, and keeps it if it helps.

    It computes where the model is, and on the CPU where that fails. The same inputs, seed,
    versions and one thread of a CPU give the same adapter.

    Args:
        model: the base, with the shared adapter where there is one; the personal adapter is in it
            afterwards if it was kept, and none is if it was not.
        training: segments of the speaker, of one length.
        held_out: segments of the speaker that are not in `training`, of one length.
        profile: of the speaker, from the enrolment set; with `privacy`, of none of `training`.
        probes: speech of others to convert as a test, at most 12 recordings and 4 s of each; those
            with too little speech are left out. Where none is left, what the package ships for this
            content encoder; for any other, the speaker's own held-out speech is disguised.
        encoder: speaker encoder that the adapter learns from and that judges the conversions.
        permit: for 'training'.
        now_s: Unix time.
        settings: how to train.
        privacy: trains by DP-SGD, for an adapter that is to be given away; None trains without
            noise, since it stays at home.
        on_step: told after each step, for a progress bar.

    Raises:
        ConsentRefused: the permit is for something else, or it has ended.
        BadSettings: no segments to train on, or none to judge by.
        BadAudio: hardly any speech in the held-out segments, and no probes.
    """
    permit.require("training", now_s)
    if not training or not held_out:
        raise BadSettings(
            "Personalising needs segments to train on, and others to judge by.",
            f"{len(training)} and {len(held_out)}",
            "Record more speech: a minute gives both.",
        )
    wanted, began = settings or PersonaliseSettings(), time.monotonic()
    return with_fallback(
        device_of(model),
        lambda device: _personalise_on(
            device, model, training, held_out, profile, probes, encoder, wanted, privacy, began,
            on_step,
        ),
    )  # fmt: skip


def _personalise_on(
    device: torch.device,
    model: VoiceModel,
    training: Sequence[Recording],
    held_out: Sequence[Recording],
    profile: SpeakerProfile,
    probes: Sequence[Recording],
    encoder: VoiceEncoder,
    settings: PersonaliseSettings,
    privacy: PersonalPrivacy | None,
    began: float,
    on_step: Callable[[int], None],
) -> Personalised:
    model.to(device)
    encoder = _on(device, encoder)
    recogniser = find_recogniser()
    tried, tried_on = _probes(model, probes, held_out, recogniser)
    judge = _Judge(list(held_out)[:_MAX_HELD_OUT], tried, profile, encoder, device)
    adapters.detach_personal(model)
    model.requires_grad_(False)
    before = judge.look(model)
    # What the figure protects decides nothing: it is neither judged by nor stopped by.
    known_by = [*held_out] if privacy is not None else [*training, *held_out]
    independent = PersonalJudge(known_by, tried, profile, recogniser)
    opinion, second = independent.look(model), None
    steps, best, last = _train(
        model, training, profile, encoder, judge, before, settings, privacy, began, on_step
    )
    if best is not None:
        adapters.write_personal(model, best.adapter)
        second = independent.look(model)
    kept = second is not None and second.beats(opinion)
    if not kept:
        adapters.detach_personal(model)
    after = (best or last).seen
    return Personalised(
        kept,
        best.adapter if kept and best is not None else {},
        before.loss,
        after.loss,
        before.similarity,
        after.similarity,
        opinion,
        second,
        tried_on,
        steps,
        time.monotonic() - began,
        None if privacy is None else privacy.event(len(training), settings.batch_size, steps),
    )


def _probes(
    model: VoiceModel,
    named: Sequence[Recording],
    held_out: Sequence[Recording],
    recogniser: PhoneRecogniser | None,
) -> tuple[tuple[Probe, ...], str]:
    """What conversions are tried on, and where it is from."""
    if found := probes_of(named, model, recogniser):
        return found, f"{len(found)} recordings of others"
    if found := shipped_probes(model):
        return found, f"speech of {len(found)} others, shipped"
    # The package knows no content encoder but its own.
    own = np.concatenate([segment.samples for segment in held_out[:_MAX_HELD_OUT]])
    copies = (disguised(Recording(own, "own"), factor) for factor in _DISGUISES)
    return tuple(probe_of(copy, model, recogniser) for copy in copies), "the speaker in disguise"


def _on(device: torch.device, encoder: VoiceEncoder) -> VoiceEncoder:
    """The encoder where the model is; the shipped one is shared, so it is copied."""
    if not isinstance(encoder, nn.Module):
        return encoder
    there = all(parameter.device == device for parameter in encoder.parameters())
    return encoder if there else copy.deepcopy(encoder).to(device)


@dataclass(frozen=True, slots=True)
class _Seen:
    loss: float
    similarity: float

    def beats(self, zero_shot: _Seen) -> bool:
        sound = self.loss < LARGEST_LOSS_RATIO * zero_shot.loss
        return sound and self.similarity > zero_shot.similarity


@dataclass(frozen=True, slots=True)
class _Candidate:
    seen: _Seen
    adapter: dict[str, Tensor]


class _Judge:
    """Held-out loss, and similarity of conversions, of a model as it stands."""

    def __init__(
        self,
        held_out: list[Recording],
        probes: Sequence[Probe],
        profile: SpeakerProfile,
        encoder: VoiceEncoder,
        device: torch.device,
    ) -> None:
        batch, targets = own_voice_batch(held_out, profile)
        self._batch, self._targets = batch.to(device), targets.to(device)
        self._hiss = hiss_for(self._batch, torch.Generator().manual_seed(_JUDGE_SEED))
        self._profile = profile
        self._encoder = encoder
        self.probes = list(probes)
        self._loss = SpectralLoss().to(device)

    def look(self, model: VoiceModel) -> _Seen:
        """Both figures."""
        return _Seen(self.loss(model), self.similarity(model))

    def loss(self, model: VoiceModel) -> float:
        """Mean reconstruction loss of the held-out segments."""
        model.eval()
        with torch.inference_mode():
            return float(self._loss(model(self._batch, self._hiss), self._targets).mean())

    def similarity(self, model: VoiceModel) -> float:
        """Mean cosine between conversions of the probes and the speaker's vector."""
        cosines = []
        for probe in self.probes:
            speech = say_probe(model, probe, self._profile, seed=_JUDGE_SEED)
            cosines.append(float(self._encoder.embed(log_mel(speech)) @ self._profile.vector))
        return float(np.mean(cosines))


def _train(
    model: VoiceModel,
    training: Sequence[Recording],
    profile: SpeakerProfile,
    encoder: VoiceEncoder,
    judge: _Judge,
    zero_shot: _Seen,
    settings: PersonaliseSettings,
    privacy: PersonalPrivacy | None,
    began: float,
    on_step: Callable[[int], None],
) -> tuple[int, _Candidate | None, _Candidate]:
    """Steps done, the best adapter that beats zero-shot if there was one, and the last one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        adapters.attach_personal(
            model, adapters.PersonalAdapterSpec(settings.rank, settings.placement)
        )
    parameters = adapters.personal_parameters(model)
    adam = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, settings.steps)
    generator = torch.Generator().manual_seed(settings.seed)
    lessons = Lessons(
        model,
        training,
        profile,
        encoder,
        likeness_weight=settings.likeness_weight,
        cycle_weight=settings.cycle_weight,
        content_noise=settings.content_noise,
        apart=privacy is not None,
    )

    def loss(rows: Tensor) -> Tensor:
        return lessons.loss(rows, generator)

    def plain_step() -> None:
        rows = torch.randperm(len(training), generator=generator)[: settings.batch_size]
        adam.zero_grad(set_to_none=True)
        torch.autograd.backward(loss(rows).mean())
        adam.step()

    private = (
        None
        if privacy is None
        else PrivateSteps(
            model, parameters, adam, privacy, len(training), settings.batch_size, loss
        )
    )
    step = plain_step if private is None else private.step
    best: _Candidate | None = None
    last = _Candidate(zero_shot, adapters.read_personal(model))
    nearest = zero_shot.similarity
    worse = done = 0
    while done < settings.steps and worse < settings.patience:
        if settings.max_s is not None and time.monotonic() - began > settings.max_s:
            break
        step()
        schedule.step()
        done += 1
        on_step(1)
        if done % settings.check_every == 0 or done == settings.steps:
            last = _Candidate(judge.look(model), adapters.read_personal(model))
            worse = worse + 1 if last.seen.similarity <= nearest else 0
            nearest = max(nearest, last.seen.similarity)
            if last.seen.beats(zero_shot) and last.seen.similarity == nearest:
                best = last
    if private is not None:
        private.close()
    model.requires_grad_(False)
    return done, best, last
