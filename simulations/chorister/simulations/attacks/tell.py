"""From what was measured to the entries of attacks.json: figures, controls, limits in words."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

from chorister.server.attack_record import Attack, Beside, Control, Picture
from chorister.simulations.attacks.client_canaries import Estimate, Setting, exact_epsilon
from chorister.simulations.attacks.identify import Identification, Identified
from chorister.simulations.attacks.inversion import Inversion
from chorister.simulations.attacks.membership import Inferred, Membership
from chorister.simulations.attacks.one_run import epsilon_lower_bound, most_certifiable
from chorister.simulations.attacks.planted import Detection
from chorister.simulations.attacks.rates import Measured
from chorister.simulations.attacks.sgd_canaries import DELTA_DP
from chorister.simulations.attacks.training_audit import TrainingAudit
from chorister.simulations.listening import log_mel_png

CONFIDENCE = 0.95
PUBLISHED_ERROR = Beside(
    name="published for raw updates of another model (arXiv:2111.03777): 1 to 2 %", figure=0.015,
    interval=(0.01, 0.02),
)  # fmt: skip
PUBLISHED_TOP_ONE = Beside(
    name="published for gradients of another model (arXiv:2104.07815): 34 %", figure=0.34
)
LIMITS = (
    "Attacks bound a leak from below. That one fails proves nothing: a better one, or one that "
    "knows more, may succeed. Only the accountants' figures bound it from above.",
    "They were run on simulated devices with the product's own training, clipping, rounding, noise "
    "and masks; no deployed device was looked at, and nothing here shows that one draws its noise.",
    "Intervals cover chance in these runs, not other speakers, languages or settings.",
)


def tell_detections(unit: str, found: Sequence[Detection], canaries: int) -> list[Attack]:
    """Return the entry on planted faults: the worst-caught one, and false alarms beside it."""
    faults = [d for d in found if d.fault != "none"]
    honest = [d for d in found if d.fault == "none"]
    worst = min(faults, key=lambda d: d.alarms.value)
    noisiest = max(honest, key=lambda d: d.alarms.value)
    ceiling = most_certifiable(canaries, DELTA_DP)
    return [
        Attack(
            name=f"Planted faults, {unit} level",
            question="Would an audit with so many canaries notice a broken mechanism?",
            adversary="chose every canary, knows all else, sees each noised sum.",
            figure_name="share of audits that caught the fault, worst fault",
            figure=worst.alarms.value, interval=_interval(worst.alarms), confidence=CONFIDENCE,
            chance=0.05, trials=worst.alarms.trials, positive_control=None,
            beside=[_detection(d) for d in found],
            notes=[
                f"{canaries} canaries an audit certify at most epsilon {ceiling:.2f} "
                f"(delta {DELTA_DP:g}, 95 %).",
                f"False alarms on the honest mechanism: {noisiest.alarms.value:.0%} at most "
                f"({_words(noisiest.alarms)}).",
                "Faults are test doubles around the product's functions; the claimed epsilon is "
                "what the honest mechanism guarantees.",
            ],
        )
    ]  # fmt: skip


def tell_training(audit: TrainingAudit) -> Attack:
    """Return the entry on one-run auditing of whole trainings."""
    m = audit.guesses.canaries
    claims = ", ".join(f"{name} {value:.2f}" for name, value in audit.claim.accountants.items())
    return Attack(
        name="Empirical epsilon of a device's training",
        question="How much does the delta of one training tell of one segment, at least?",
        adversary="made the canary segments, knows model and all data but the coins, sees the "
        "delta before the speaker-level noise and without a mask.",
        figure_name="epsilon, lower bound (one-run audit)",
        figure=audit.bound, interval=None, confidence=CONFIDENCE, chance=0.0, trials=m,
        positive_control=Control(name="the same without noise", figure=audit.without_noise),
        beside=[Beside(name="upper bound by the accountants", figure=audit.claim.epsilon)],
        notes=[
            f"{m} canaries in {audit.runs} trainings, {audit.guesses.made} guessed, "
            f"{audit.guesses.right} right; so many can certify at most epsilon "
            f"{most_certifiable(m, DELTA_DP):.2f} at delta {DELTA_DP:g}, and so many guesses "
            f"{epsilon_lower_bound_of_all(m, audit.guesses.made):.2f}.",
            f"One step over all segments (no sampling), for which the accountants state {claims}.",
            "Source: Steinke, Nasr, Jagielski 2023 (arXiv:2305.08846).",
        ],
    )  # fmt: skip


def epsilon_lower_bound_of_all(canaries: int, guesses: int) -> float:
    """Return the bound if every guess were right."""
    from chorister.simulations.attacks.one_run import Guesses

    return epsilon_lower_bound(Guesses(canaries, guesses, guesses), DELTA_DP)


def tell_estimate(claimed: Setting, honest: Estimate, halved: Estimate) -> Attack:
    """Return the entry on canary clients."""
    accountants = claimed.claim().accountants
    stated = ", ".join(f"{name} {value:.2f}" for name, value in accountants.items())
    return Attack(
        name="Empirical epsilon of a round, by canary clients",
        question="How much does the noisy sum tell of one speaker, as estimated?",
        adversary="made the canary updates, sees the sum of the fewest devices that are allowed.",
        figure_name="epsilon, estimate (not a bound)",
        figure=honest.epsilon, interval=honest.interval, confidence=CONFIDENCE, chance=0.0,
        trials=honest.canaries,
        positive_control=Control(
            name="half of the noise", figure=halved.epsilon, interval=halved.interval
        ),
        beside=[
            Beside(name="exact for Gaussian noise of this size", figure=exact_epsilon(claimed)),
            Beside(name="upper bound by the accountants", figure=max(accountants.values())),
        ],
        notes=[
            f"{honest.canaries} canaries, {claimed.terms.min_honest} devices in a sum, "
            f"{claimed.terms.dimension} values, noise multiplier "
            f"{claimed.terms.noise_multiplier:g}, delta {DELTA_DP:g}; as a test with confidence, "
            f"so many canaries would certify at most "
            f"{most_certifiable(honest.canaries, DELTA_DP):.2f}. The accountants state {stated}.",
            "An estimate may lie above or below the truth. Source: Andrew et al. 2023 "
            "(arXiv:2302.03098).",
        ],
    )  # fmt: skip


def tell_identification(found: Identification) -> list[Attack]:
    """Return the entries on speaker identification: error rate, and best guess."""
    adversary = (
        "is the server; knows base, adapter and task, and of every candidate the profile and other "
        "recordings, from which it computes what each would send."
    )
    others = (
        ("unmasked: DP-SGD, clip and its share of noise", found.unmasked),
        ("after DP-SGD alone", found.trained),
        ("without any noise", found.raw),
    )
    return [
        Attack(
            name="Speaker identification from one update",
            question="Do two pieces of evidence, an update and a voice, belong together?",
            adversary=adversary, figure_name="equal error rate, masked as the server sees it",
            figure=found.masked.equal_error.value,
            interval=_interval(found.masked.equal_error), confidence=CONFIDENCE, chance=0.5,
            trials=found.masked.equal_error.trials,
            positive_control=_control(found.reused, "equal_error"),
            beside=[
                Beside(name=name, figure=one.equal_error.value, interval=_interval(one.equal_error))
                for name, one in others
            ] + [PUBLISHED_ERROR],
            notes=[f"{found.candidates} speakers; intervals over speakers."],
        ),
        Attack(
            name="Speaker named from one update",
            question="Which of the speakers sent this?", adversary=adversary,
            figure_name="top-1, masked as the server sees it",
            figure=found.masked.top_one.value, interval=_interval(found.masked.top_one),
            confidence=CONFIDENCE, chance=1 / found.candidates, trials=found.masked.top_one.trials,
            positive_control=_control(found.reused, "top_one"),
            beside=[
                Beside(name=name, figure=one.top_one.value, interval=_interval(one.top_one))
                for name, one in others
            ] + [PUBLISHED_TOP_ONE],
            notes=["Intervals are Clopper-Pearson over updates."],
        ),
    ]  # fmt: skip


def tell_membership(found: Membership) -> list[Attack]:
    """Return the entries on membership: of a recording, of a speaker."""
    knows = (
        "knows base, settings and profiles, ran shadow federations of its own, sees the first and "
        "the last adapter"
    )
    setup = (
        f"{found.federations} federations of {found.clients} voices and {found.rounds} "
        f"round{'s' if found.rounds > 1 else ''}, each with and without privacy; likelihood ratios "
        "by all other federations (after arXiv:2112.03570)."
    )
    return [
        _tell_member(
            "recording", "Was this recording trained on?",
            f"{knows}; has the recording and knows that its speaker took part.",
            found.recording, found.recording_plain, setup, found.recording_alone,
        ),
        _tell_member(
            "speaker", "Did this speaker take part?",
            f"{knows}; has other recordings of the speaker.",
            found.speaker, found.speaker_plain, setup,
        ),
    ]  # fmt: skip


def _tell_member(
    what: str, question: str, adversary: str, private: Inferred, plain: Inferred, setup: str,
    alone: Inferred | None = None,
) -> Attack:  # fmt: skip
    control, name = (plain, "without privacy") if alone is None else (
        alone, "one device's plain update, without a mask"
    )  # fmt: skip
    notes = [setup]
    if plain.area.low <= 0.5:
        notes.append(
            "Without privacy, too, the released adapter gave this attack nothing that is told from "
            "chance: averaging alone hid it here, and nothing is shown of what noise adds."
        )
    beside = [] if alone is None else [_beside("without privacy", plain.area)]
    return Attack(
        name=f"Membership of a {what} in the released adapter", question=question,
        adversary=adversary, figure_name="area under the ROC curve, with privacy",
        figure=private.area.value, interval=_interval(private.area), confidence=CONFIDENCE,
        chance=0.5, trials=private.area.trials,
        positive_control=Control(
            name=name, figure=control.area.value, interval=_interval(control.area)
        ),
        beside=[
            *beside,
            _beside("true positives at 1 % false ones, with privacy", private.found),
            _beside("true positives at 1 % false ones, without privacy", plain.found),
        ],
        notes=notes,
    )  # fmt: skip


def _beside(name: str, found: Measured) -> Beside:
    return Beside(name=name, figure=found.value, interval=_interval(found))


def tell_inversion(found: Inversion) -> Attack:
    """Return the entry on gradient inversion."""
    plain, private, framewise = found.plain, found.private, found.framewise
    return Attack(
        name="Gradient inversion of one segment",
        question="Can speech be read out of an unmasked delta of one step on one segment?",
        adversary="knows base, adapter, the speaker's profile and the segment's pitch contour; "
        "sees the delta of one step on that segment alone, without a mask.",
        figure_name="log-mel distance won over the baseline, dB, with DP-SGD",
        figure=private.gain_db.value, interval=_interval(private.gain_db), confidence=CONFIDENCE,
        chance=0.0, trials=found.segments,
        positive_control=Control(
            name="gradient frame by frame (20 480 values instead of 320)",
            figure=framewise.gain_db.value, interval=_interval(framewise.gain_db),
        ),
        beside=[
            Beside(name="without noise", figure=plain.gain_db.value,
                   interval=_interval(plain.gain_db)),
            *(
                _beside(f"mean spectrum alone, dB won, {one.seen}", one.spectrum_gain_db)
                for one in (private, plain, framewise)
            ),
            *(
                Beside(name=f"correlation with the segment, {one.seen}",
                       figure=one.correlation.value, interval=_interval(one.correlation))
                for one in (private, plain, framewise)
            ),
            Beside(name="distance of the baseline (mean of other speech), dB",
                   figure=found.baseline_db.value, interval=_interval(found.baseline_db)),
        ],
        notes=[
            "Above 0 the reconstruction is nearer to the segment than what is known without it.",
            f"Match of gradients reached (cosine): {plain.match:.2f} without noise, "
            f"{private.match:.2f} with DP-SGD, {framewise.match:.2f} in the control.",
            "By matching gradients (after arXiv:2003.14053), absolute values rounded for the "
            "search.",
        ],
    )  # fmt: skip


def draw_pictures(found: Inversion) -> list[Picture]:
    """Return the first segment's spectrograms: the truth, the baseline, what was read out."""
    return [
        Picture(
            title=f"Inversion: {title}", duration_s=len(log_mel) / 100.0, bands=log_mel.shape[1],
            png=base64.b64encode(log_mel_png(log_mel)).decode(),
        )
        for title, log_mel in found.pictures.items()
    ]  # fmt: skip


def _detection(found: Detection) -> Beside:
    name = "false alarms" if found.fault == "none" else found.fault
    low, high = found.bounds
    return Beside(
        name=f"{name} ({found.claim}: epsilon {found.claimed:.2f} claimed, bounds {low:.2f} to "
        f"{high:.2f} found)",
        figure=found.alarms.value, interval=_interval(found.alarms),
    )  # fmt: skip


def _control(found: Identified, figure: str) -> Control:
    measured: Measured = getattr(found, figure)
    return Control(
        name="two devices with one mask, no noise", figure=measured.value,
        interval=_interval(measured),
    )  # fmt: skip


def _interval(found: Measured) -> tuple[float, float] | None:
    return None if math.isnan(found.low) else (found.low, found.high)


def _words(found: Measured) -> str:
    return f"95 % {found.low:.1%} to {found.high:.1%} of {found.trials}"
