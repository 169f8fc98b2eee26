"""What a report says in words: the summary, the trust model, and what its figures rest on."""

from __future__ import annotations

from collections.abc import Sequence

from chorister.server.report_record import Figure, Party, Round
from chorister.shared.privacy.figures import MEANINGFUL_EPSILON

PROVES = (
    "Who claimed what, and when by the writer's own clock: each line names the digest of the line "
    "before.",
    "That no line was altered, removed, added or moved since it was written; with a checkpoint "
    "that was kept elsewhere, that the end was not cut off and that all was not written anew.",
    "That each device that the server admitted signed a consent token for exactly that round and "
    "its terms, and that each device in a sum signed its masked delta.",
    "That each side charged its budget before anything left a device, in the order that the "
    "protocol asks for.",
)
DOES_NOT_PROVE = (
    "That a device really drew its noise. It signed that it would; nobody can see it afterwards.",
    "That at most the assumed share of devices were corrupt, or that they did not collude.",
    "That a device trained on the speech that its owner consented to, or on speech at all.",
    "That the clocks were right, or that a party showed all of its ledgers.",
)
FLOATING_POINT = (
    "The noise of DP-SGD on the devices is floating-point Gaussian noise, by Box and Muller's "
    "method in double precision; attacks on its last bits (Mironov 2012) are outside of the "
    "segment-level figure. The speaker-level noise is integer noise by exact sampling."
)
ENROLMENT = (
    "The enrolment set (speaker vector, mel and F0 statistics, table of enrolment frames) is not "
    "protected by the segment-level figure; only the speaker-level one covers it."
)
COUNT = (
    "How many segments a device trains on is taken as public: sampling chance and mean gradient "
    "follow from it."
)
HONEST = (
    "The speaker-level figure needs at least min_honest honest devices in each sum that draw their "
    "noise; corrupt devices know their own noise, so it is not counted."
)
GRAPH = (
    "In a sparse masking graph the neighbours may be badly chosen with a chance of at most 2^-40 "
    "a round; delta includes it for rounds that were charged, not for attempts that ended before."
)
SIMULATED = (
    "All randomness of this run was simulated from a seed: it protected nobody. Its figures are "
    "what the same run would cost with the operating system's generator."
)


def summarise(
    federation: str, figures: Sequence[Figure], rounds: Sequence[Round], *, devices: int,
    simulated: bool, sound: bool, withdrawn: int, purpose: str,
) -> str:  # fmt: skip
    """Return the paragraph for somebody who is no specialist."""
    finished = sum(r.status == "finished" for r in rounds)
    sentences = [
        f"In the federation '{federation}', {_count(devices, 'device')} learnt one small shared "
        f"voice adapter together in {_count(finished, 'finished round')}"
        + (f" of {len(rounds)}" if len(rounds) != finished else "")
        + "; recordings, transcripts and individual updates stayed on the devices, and the server "
        "saw only noisy sums."
    ]
    if purpose:
        sentences.append(f"The purpose that was stated: {purpose.rstrip('.')}.")
    speaker = next((f for f in figures if f.unit == "speaker"), None)
    if speaker is None:
        sentences.append(
            "No noise was added to the sums, so nothing bounds what the adapter tells about one "
            "speaker."
        )
    elif speaker.epsilon is None or speaker.epsilon > MEANINGFUL_EPSILON:
        shown = "unbounded" if speaker.epsilon is None else f"{speaker.epsilon:.3g}"
        sentences.append(
            f"The privacy figure for a whole speaker is epsilon {shown}: that is no meaningful "
            "guarantee, whatever else was done well."
        )
    else:
        sentences.append(
            "Whether any one speaker contributed changes the odds of anything that could be "
            f"concluded from the adapter by at most a factor of {_factor(speaker.epsilon)} "
            f"(epsilon {speaker.epsilon:.3g}), but for a chance of {speaker.delta:g}."
        )
    if simulated:
        sentences.append("This was a simulation: it shows the cost of privacy and gave none.")
    if withdrawn:
        sentences.append(f"{_count(withdrawn, 'speaker')} withdrew.")
    sentences.append(
        "The records behind this report contradict nothing."
        if sound
        else "THE RECORDS BEHIND THIS REPORT CONTRADICT EACH OTHER; do not rely on its figures."
    )
    return " ".join(sentences)


def undermining(
    figures: Sequence[Figure], *, simulated: bool, population: int, largest_delta: float
) -> list[str]:
    """Return what could make the figures wrong, the worst first."""
    found = []
    if simulated:
        found.append(SIMULATED)
    for figure in figures:
        if figure.label:
            found.append(
                f"The {figure.unit}-level epsilon is {_shown(figure.epsilon)}: {figure.label}. "
                f"Above {MEANINGFUL_EPSILON:g} a figure is printed so that it can be seen, and "
                "not as a promise."
            )
        if figure.unit == "speaker" and figure.delta > largest_delta:
            found.append(
                f"Delta {figure.delta:g} is larger than N^-1.1 = {largest_delta:.2g} for "
                f"{population} speakers: with so large a delta a few of them may be exposed."
            )
    units = {figure.unit for figure in figures}
    if "speaker" in units:
        found += [HONEST, GRAPH]
    if "segment" in units:
        found += [FLOATING_POINT, ENROLMENT, COUNT]
    return found


def tell_dropouts(rounds: Sequence[Round]) -> str:
    """Return what drop-outs did to the noise."""
    sums = [r for r in rounds if r.status == "finished" and r.survivors]
    if not sums:
        return "No sum was opened, so there was no noise to compare."
    share = [r.survivors / r.asked for r in sums if r.asked]
    text = (
        f"Between {min(share):.0%} and {max(share):.0%} of the devices that were asked were in the "
        "sums."
    )
    more = [r.noise_in_sum / r.noise_promised for r in sums if r.noise_in_sum and r.noise_promised]
    if not more:
        return text + " No noise was added."
    return text + (
        f" Every device adds a share of noise that is enough with {sums[0].min_honest} of them, so "
        f"the sums held {min(more):.2f} to {max(more):.2f} times the noise that was promised. The "
        "figures count the promised noise only."
    )


def trust_model(rounds: Sequence[Round], gamma: float | None) -> list[Party]:
    """Return who could see what, as it was executed."""
    sizes = [r.survivors for r in rounds if r.status == "finished"]
    summed = f"noisy sums over {min(sizes)} to {max(sizes)} devices" if sizes else "no sum at all"
    share = "none" if not gamma else f"{gamma:.0%} of a cohort"
    return [
        Party(
            party="Server operator (curious; may lie)",
            saw=f"who took part and when, {summed}, the shared adapters",
            never="one device's delta, recordings, speaker vectors, personal adapters, consents "
            "in clear",
        ),
        Party(
            party=f"Other devices (assumed to collude with the server: {share})",
            saw="the shared adapter, public keys of the cohort",
            never="the same",
        ),
        Party(
            party="Enrolment authority",
            saw="which pseudonymous devices exist",
            never="everything else",
        ),
        Party(party="Network", saw="sizes and times", never="contents"),
        Party(
            party="Reader of this report",
            saw="pseudonyms, digests, counts and budgets",
            never="voices, names, losses or counts of words of one device",
        ),
    ]


def registry_entry(
    *, federation: str, purpose: str, controller: str, date: str, figures: Sequence[Figure],
    rounds: int, code_sha256: str, version: str,
) -> dict[str, str]:  # fmt: skip
    """Return the fields that an entry in the OpenDP deployments registry asks for, tiers 1 to 3."""
    speaker = next((f for f in figures if f.unit == "speaker"), None)
    segment = next((f for f in figures if f.unit == "segment"), None)

    def parameters(figure: Figure | None) -> str:
        if figure is None:
            return "none"
        return f"epsilon {_shown(figure.epsilon)}, delta {figure.delta:g}"

    return {
        "data_curator": controller or "not stated",
        "intended_use": purpose or "not stated",
        "data_product": f"shared voice adapter of the federation '{federation}'",
        "publication_date": date,
        "dp_flavor": "approximate differential privacy, from concentrated and Renyi bounds",
        "privacy_unit": speaker.protects if speaker else "none",
        "privacy_unit_description": speaker.relation if speaker else "no noise in the sums",
        "privacy_loss": parameters(speaker),
        "second_privacy_unit": segment.protects if segment else "none",
        "second_privacy_loss": parameters(segment),
        "deployment_model": "distributed: noise shares on the devices inside a secure sum; DP-SGD "
        "on each device",
        "data_domain": "speech of consenting speakers, on their own devices",
        "unprotected_quantities": "participation, number of segments of a device, drop-outs",
        "post_processing": "server optimiser on the noisy mean",
        "composition": f"adaptive, over {rounds} rounds, by the larger of two accountants",
        "mechanisms": "; ".join(m for f in figures for m in f.mechanisms) or "none",
        "justification": "docs/adr/0010 (noise), docs/protocol.md (aggregation)",
        "implementation": f"Chorister {version}, code {code_sha256 or 'not stated'}",
    }


def _factor(epsilon: float) -> str:
    value = 2.718281828459045**epsilon
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _shown(epsilon: float | None) -> str:
    return "unbounded" if epsilon is None else f"{epsilon:.3g}"
