"""What passes between devices and server, with TLS off: no delta, no voice, no recording.

Beside what must not be there, the search finds what is: a device's public key on the way up, the
shared adapter on the way down, and the delta of a device that leaks it on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

WINDOW = 16
SPY = """
import sys
from pathlib import Path
import numpy as np
from chorister.client import contribute
from chorister.shared.cli import main
out, leaks = Path({out!r}), {leaks!r}
def spied(name):
    function = getattr(contribute, name)
    def call(*arguments, **more):
        found = function(*arguments, **more)
        np.save(out / (name + ".npy"), np.asarray(found.values))
        return found
    setattr(contribute, name, call)
for name in ("train_shared_adapter", "clip", "quantise", "add_noise"):
    spied(name)
if leaks:
    honest = contribute.contribute
    def leak(*arguments):
        answer = honest(*arguments)
        return answer + np.load(out / "train_shared_adapter.npy").astype("<f4").tobytes()
    contribute.contribute = leak
sys.exit(main())
"""


def windows(values: np.ndarray, step: int = 1) -> set[bytes]:
    """Every stretch of 16 bytes that begins with a value, the dull ones left out."""
    data, size = values.tobytes(), values.itemsize
    found = {data[i : i + WINDOW] for i in range(0, len(data) - WINDOW + 1, size * step)}
    return {window for window in found if len(set(window)) > 6}


def found_in(needles: Iterable[bytes], streams: Iterable[bytes]) -> int:
    """How many of the needles are in any of the streams, at any offset."""
    hay = {
        bytes(stream[i : i + WINDOW]) for stream in streams for i in range(len(stream) - WINDOW + 1)
    }
    return sum(needle in hay for needle in needles)


def forms(values: np.ndarray) -> list[np.ndarray]:
    """The same numbers as a program could have written them."""
    return [
        values.astype(kind) for kind in ("<f4", "<f8", ">f4", "<f2")
        if values.dtype.kind == "f"
    ] or [values.astype(kind) for kind in ("<i8", "<i4")]  # fmt: skip


def test_no_delta_no_voice_and_no_recording_leaves(
    town: ModuleType, lines: ModuleType, tmp_path: Path
) -> None:
    if not town.SPEECH.is_dir():
        pytest.skip("real speech is not there: ../shared/data/librispeech/test-clean")
    from chorister.client.enrol import HELD_OUT, TRAINING, enrolled_recordings
    from chorister.client.home import PROFILE, open_home
    from chorister.client.material import Segments
    from chorister.server.registry import Registry
    from chorister.shared.voice.profile import SpeakerProfile

    names = ["anna", "ben", "leaky"]
    with town.deployment(tmp_path / "town", encrypted=False, deadline_s=40.0) as made:
        with lines.Line(to=made.server.server_settings().listen_port, keep=True) as line:
            made.dial = f"127.0.0.1:{line.port}"
            for name, recordings in zip(names, town.speakers(3), strict=True):
                made.enrol(name, recordings)
                made.join(name)
                (tmp_path / name).mkdir()
            made.start_server()
            for name in names:
                made.start_device(
                    name, code=SPY.format(out=str(tmp_path / name), leaks=name == "leaky")
                )
            town.wait_for(lambda: made.online() == 3, 150, made.said("anna"))
            made.run(2, when=3)
            town.wait_for(lambda: len(made.rounds_done()) == 2, 240, made.said("anna"))
        up, down = [bytes(s) for s in line.up], [bytes(s) for s in line.down]

        first = made.rounds_done()[0]
        assert (first.status, first.survivors) == ("finished", 2), first
        for name in ("anna", "ben"):
            home = open_home(made.vault(name), made.passphrase.read_text().strip())
            profile = SpeakerProfile.from_bytes(home.vault.get(PROFILE))
            secret: dict[str, list[np.ndarray]] = {
                "speaker embedding": forms(profile.vector),
                "mel statistics": [*forms(profile.mel_mean), *forms(profile.mel_std)],
            }
            for stage in ("train_shared_adapter", "clip", "quantise", "add_noise"):
                values = np.load(tmp_path / name / f"{stage}.npy")
                assert np.any(values), stage
                secret[stage] = forms(values)
            audio = [r.samples for r in enrolled_recordings(home)]
            for part in (TRAINING, HELD_OUT):
                audio += [r.samples for r in Segments.from_bytes(home.vault.get(part)).recordings]
            pcm = np.concatenate([np.round(a * 32768.0).astype("<i2") for a in audio])
            secret["audio"] = [np.concatenate(audio).astype("<f4")]
            for what, arrays in secret.items():
                for array in arrays:
                    step = 1 if array.size < 100_000 else 7
                    assert found_in(windows(array, step), [*up, *down]) == 0, (name, what)
            # 16 bits a sample: every stretch of eight samples, but for near silence.
            assert found_in(windows(pcm, 7), [*up, *down]) == 0, name
            # The control on the way up: this very device's key is there to be read.
            assert any(home.device.raw in stream for stream in up)

        # The control on the way down: the second round's adapter, which is for all to see.
        registry = Registry(made.server.adapters)
        shared = registry.get(registry.versions()[1].sha256).values
        assert found_in(windows(shared.astype("<f4")), down) > len(shared) // 2
        # The planted needle: a device that sends its delta is seen to do so.
        leaked = np.load(tmp_path / "leaky" / "train_shared_adapter.npy")
        assert found_in(windows(leaked.astype("<f4")), up) > len(leaked) // 2
