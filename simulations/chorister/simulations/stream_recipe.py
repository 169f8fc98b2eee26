"""The recipe of the streaming model: look-ahead, corpus and the three phases of learning it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from chorister.shared.settings import Settings
from chorister.simulations.base_recipe import DataSettings, StageSettings

Phase = Literal["content", "envelopes", "speech"]
PHASES: tuple[Phase, ...] = get_args(Phase)


class DistilSettings(StageSettings):
    """A phase that learns from the offline model; nothing else judges it.

    Attributes:
        kind: fixed.
        frames: length of an example; what the teacher cannot see whole is not learnt from.
    """

    kind: Literal["reconstruction"] = "reconstruction"
    frames: Annotated[int, Field(ge=96)] = 200


class LookAhead(Settings):
    """How far each block sees ahead, in frames; the sizes are those of the offline model."""

    encoder_ahead: tuple[int, ...]
    decoder_ahead: tuple[int, ...]


class StreamRecipe(Settings):
    """How a streaming model is made from an offline one.

    Attributes:
        seed: of the data order and all noise.
        data: the corpus.
        model: look-ahead.
        content: the encoder learns the content that the offline encoder finds.
        envelopes: the decoder learns the offline decoder's envelopes, for the speaker's own voice
            and for others.
        speech: the decoder learns from speech, like the last stage of a base; None leaves it out.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    data: DataSettings
    model: LookAhead
    content: DistilSettings
    envelopes: DistilSettings
    speech: StageSettings | None = None

    def phases(self) -> tuple[Phase, ...]:
        """What is done, in this order."""
        return tuple(name for name in PHASES if getattr(self, name) is not None)

    def phase(self, name: Phase) -> StageSettings:
        """The settings of one phase that is done."""
        settings: StageSettings = getattr(self, name)
        return settings


def read_stream_recipe(path: Path) -> StreamRecipe:
    """Reads a recipe.

    Raises:
        BadSettings: missing, no TOML, an unknown key, or a value out of range.
    """
    return StreamRecipe.load(path)
