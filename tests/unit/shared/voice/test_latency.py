"""The delay of a stream, term by term."""

from __future__ import annotations

import pytest

from chorister.shared.errors import BadSettings
from chorister.shared.voice.latency import Latency


@pytest.mark.parametrize("look_ahead_frames", [3, 4, 6, 15])
@pytest.mark.parametrize("chunk_frames", [1, 2, 8])
def test_the_terms_add_up_to_the_whole(look_ahead_frames: int, chunk_frames: int) -> None:
    latency = Latency(look_ahead_frames, chunk_frames)
    terms = latency.terms_ms()
    assert set(terms) == {"window", "look-ahead", "chunk", "F0", "overlap-add"}
    assert all(value >= 0 for value in terms.values())
    assert sum(terms.values()) == pytest.approx(latency.total_samples / 16)
    assert terms["chunk"] == 10 * chunk_frames
    assert terms["look-ahead"] == 10 * look_ahead_frames


def test_f0_waits_for_its_own_window_a_decision_and_the_next_frame() -> None:
    # Half of 512 + 260 samples less a frame, two frames, less what mel waits for anyway.
    assert Latency(3, 1).terms_ms()["F0"] == (306 + 320 - 480 - 120) / 16
    assert Latency(3, 1).f0_delay_frames == 1
    assert Latency(4, 1).terms_ms()["F0"] == 0
    # Where more is awaited anyway, F0 is decided by more.
    assert Latency(6, 1).f0_delay_frames == 3


@pytest.mark.parametrize(("look_ahead_frames", "chunk_frames"), [(2, 1), (-1, 1), (3, 0)])
def test_what_no_stream_can_do_is_refused(look_ahead_frames: int, chunk_frames: int) -> None:
    with pytest.raises(BadSettings):
        Latency(look_ahead_frames, chunk_frames)
