"""The two settings files as a new operator finds them: every value with what it means."""

from __future__ import annotations

import json

from chorister.shared.settings import Federation

_FEDERATION = """\
# What this federation asks of devices and promises them. The enrolment authority signs these values
# in every invitation, and a device that joined refuses a server that changes them to its harm:
# change them before the first invitation, and make new invitations when you change them later.

# Bound into every certificate. The authority has the same name.
name = {name}

# How many rounds you intend; `chorister server run` says when they begin.
rounds = 20

# false adds no noise at all: for tests, never for real speakers.
private = true

[training]
# Steps of each device in one round, and segments (1 to 2 s of speech) a step on average.
local_steps = {training.local_steps}
expected_batch_size = {training.expected_batch_size}
learning_rate = {training.learning_rate}
momentum = {training.momentum}

[segment_privacy]
# DP-SGD on the device: protects each segment against whoever gets the shared adapter.
clip_norm = {segment.clip_norm}
noise_multiplier = {segment.noise_multiplier}
delta_dp = {segment.delta_dp}
# Devices stop training at this epsilon.
epsilon_max = {segment.epsilon_max}

[speaker_privacy]
# Noise inside the secure sum: protects all that one speaker contributes.
clip_norm = {speaker.clip_norm}
noise_multiplier = {speaker.noise_multiplier}
# At most 1 / (number of speakers) ** 1.1: rounds are refused otherwise.
delta_dp = {speaker.delta_dp}
# Devices and this server stop at this epsilon.
epsilon_max = {speaker.epsilon_max}

[aggregation]
# Share of each cohort that may collude with the server, and share that may vanish, over all stages.
corrupt_fraction = {aggregation.corrupt_fraction}
dropout_fraction = {aggregation.dropout_fraction}
# Share of the connected devices that a round asks.
cohort_share = {aggregation.cohort_share}
# A device that has not answered a stage by then has dropped out of the round. Laptops need time to
# train; a round has five stages.
stage_deadline_s = {deadline_s}
server_learning_rate = {aggregation.server_learning_rate}

[accountability]
# For the ledger and the audit report.
purpose = ""
controller = ""
contact = ""
legal_basis = ""
jurisdiction = ""
retention = ""
"""

_SERVER = """\
# This machine. `chorister server start` reads it; the authority and devices do not.

# The enrolment authority's public key: it says which devices exist, on another machine.
authority = {authority}

# Part of every round's name. Never change it, and never use it for a second server.
run = {run}

# Layout of the shared adapter, as the authority's invitation says.
adapter_rank = {rank}
# Which envelopes it shifts: "both", "harmonic" or "noise".
adapter_placement = {placement}

# Where devices connect: nothing but Flower's Fleet API answers there, over TLS, to members only.
listen_host = {listen_host}
listen_port = {port}
# Connections at once that have not shown to be a member's; one more closes the oldest of them.
most_strangers = 512
# Memory that requests of all members together may take while they are read and answered; a member
# beyond it is told to try again (503).
most_held_mib = 256
# Flower's Control and Runtime APIs, on 127.0.0.1 only.
local_port = {local_port}
# Page and metrics, on 127.0.0.1 only: ssh -L {page_port}:127.0.0.1:{page_port} THIS_MACHINE
page_port = {page_port}

# What devices dial; in the invitation and in the TLS certificate.
public_address = {address}
"""
DEADLINE_S = 300.0


def federation_text(name: str) -> str:
    """Return `federation.toml` of a new federation, with the defaults of its settings."""
    defaults = Federation()
    return _FEDERATION.format(
        name=json.dumps(name), training=defaults.training, segment=defaults.segment_privacy,
        speaker=defaults.speaker_privacy, aggregation=defaults.aggregation, deadline_s=DEADLINE_S,
    )  # fmt: skip


def server_text(
    *,
    authority: str,
    run: str,
    rank: int,
    placement: str,
    listen_host: str,
    port: int,
    local_port: int,
    page_port: int,
    address: str,
) -> str:
    """Return `server.toml` of a new server."""
    return _SERVER.format(
        authority=json.dumps(authority), run=json.dumps(run), rank=rank,
        placement=json.dumps(placement), listen_host=json.dumps(listen_host), port=port,
        local_port=local_port, page_port=page_port, address=json.dumps(address),
    )  # fmt: skip
