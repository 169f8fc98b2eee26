"""The recipe of a base model: corpus, sizes and the stages of training, read from TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from chorister.shared.settings import NotNegative, Positive, Settings
from chorister.shared.voice.model import ModelSettings
from chorister.simulations.augment import AugmentSettings
from chorister.simulations.base_data import Corpus

Count = Annotated[int, Field(ge=1)]
_CONVERTING = ("swapped", "adversarial")


class DataSettings(Settings):
    """Where the speech lies, relative to the folder given as --data.

    Attributes:
        split_file: JSON object of speaker lists.
        split: the list that is trained on.
        held_out_split: the list that only the validation loss is computed on.
        speaker_folders: LibriSpeech-like folders.
        file_folders: folders whose files are each taken as a speaker.
        weights: how often a second of a folder is drawn, relative to 1; by folder.
    """

    split_file: str
    split: str
    held_out_split: str
    speaker_folders: tuple[str, ...]
    file_folders: tuple[str, ...] = ()
    weights: dict[str, Positive] = Field(default_factory=dict)

    def corpus(self, *, held_out: bool = False, speeds: tuple[float, ...] = ()) -> Corpus:
        """The folders with the training or the held-out split.

        Args:
            held_out: the held-out split, without `file_folders` and synthetic speakers.
            speeds: of the synthetic speakers.
        """
        if held_out:
            return Corpus(self.split_file, self.held_out_split, self.speaker_folders, ())
        return Corpus(
            self.split_file,
            self.split,
            self.speaker_folders,
            self.file_folders,
            speeds,
        )


class SizeSettings(Settings):
    """The sizes in `ModelSettings`."""

    content: Count = 48
    encoder_width: Count = 192
    encoder_blocks: Count = 5
    decoder_width: Count = 224
    decoder_blocks: Count = 6
    kernel: Count = 7
    expansion: Count = 2
    decoder_recurrent: bool = False

    def sizes(self) -> ModelSettings:
        """The same as the model takes them."""
        return ModelSettings(**self.model_dump())


class StageSettings(Settings):
    """One stage of training.

    Attributes:
        kind: `reconstruction`; `swapped`: that plus conversions to other speakers; `adversarial`:
            that plus two critics of whether speech is real; `hearing`: the content encoder alone,
            so that it hears disturbed speech as it has heard the clean one, for content that is
            settled.
        vectors: which encoder names the voices, `speaker` (ours) or `ge2e` (its teacher).
        learn: `all`, or the `decoder` alone: the content then stays what it was, and every
            example gets a table of its speaker's other frames to recall sounds from.
        synthetic_speeds: each makes synthetic speakers of those in `speaker_folders`, played that
            much faster.
        synthetic_weight: how often a second of theirs is drawn, relative to the original.
        steps: optimiser steps.
        batch: examples a step.
        frames: length of an example in frames of 10 ms.
        learning_rate: the highest, after `warm_up` steps; then a cosine down to a twentieth.
        warm_up: steps of linear increase.
        phone_weight: of the phone cross-entropy where labels are known.
        content_noise: standard deviation of the noise on the content (which has variance 1).
        largest_warp: filterbank warping is drawn between its reciprocal and itself.
        augment: what the content encoder hears instead of the clean source; the decoder still has
            to give the clean one.
        speaker_weight: of 1 - cosine to the target in converted speech, by our speaker encoder.
        teacher_weight: the same by GE2E, which the evaluation also judges by (and says so).
        residual_weight: of the similarity to the source beyond the target's own, by GE2E.
        cycle_weight: of the distance between the content of source and converted speech.
        recalled_weight: of the distance between what the decoder alone makes of another voice's
            words and the frames of the target's table that say the same: there is no parallel
            speech, and this stands for it.
        voicing_weight: of voiced frames whose low bands are not led by the harmonics.
        tables: frames in a table; each batch draws one of these sizes.
        content_share: how far every frame's content is moved to the mean content of those that the
            table holds for it; None leaves what the stage before had.
        recall_gain: what the learnt share of recalled sounds is multiplied by at the end: training
            finds it on small tables, on which the look-up is poorer than on an enrolment.
        contrast: how much of the ripples that conversions lack, against speech, a conversion
            gets back, as a power of the ratio of their spreads, which is measured when the stage
            begins and when it ends; 0 leaves what the stage before had.
        hearing_share: how far a hearing stage moves the encoder's weights from what they were to
            what it learnt: what is between them hears nearly as well in noise, and clean speech
            better (Wortsman et al. 2022).
        fooling_weight: of being taken for real by the critics.
        matching_weight: of the distance between the critics' hidden layers.
        critic_rate: learning rate of the critics.
    """

    kind: Literal["reconstruction", "swapped", "adversarial", "hearing"]
    vectors: Literal["speaker", "ge2e"] = "speaker"
    learn: Literal["all", "decoder"] = "all"
    synthetic_speeds: tuple[Annotated[float, Field(ge=0.7, le=1.4)], ...] = ()
    synthetic_weight: Positive = 0.5
    steps: Count
    batch: Count
    frames: Annotated[int, Field(ge=32)] = 160
    learning_rate: Positive
    warm_up: Annotated[int, Field(ge=0)] = 100
    phone_weight: NotNegative = 0.1
    content_noise: NotNegative = 0.15
    largest_warp: Annotated[float, Field(ge=1.0, le=1.4)] = 1.22
    augment: AugmentSettings = AugmentSettings()
    speaker_weight: NotNegative = 0.0
    teacher_weight: NotNegative = 0.0
    residual_weight: NotNegative = 0.0
    cycle_weight: NotNegative = 0.0
    recalled_weight: NotNegative = 0.0
    voicing_weight: NotNegative = 0.0
    tables: Annotated[tuple[Count, ...], Field(min_length=1)] = (250, 500, 1000)
    content_share: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    recall_gain: Positive = 1.0
    contrast: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    hearing_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    fooling_weight: NotNegative = 0.0
    matching_weight: NotNegative = 0.0
    critic_rate: Positive = 2e-4

    @model_validator(mode="after")
    def _where_they_count(self) -> Self:
        if self.contrast and (self.learn != "decoder" or self.kind not in _CONVERTING):
            raise ValueError(
                "contrast is measured on conversions with tables: in a swapped or adversarial stage"
                ' with learn = "decoder"'
            )
        if self.hearing_share != 1.0 and self.kind != "hearing":
            raise ValueError("hearing_share belongs to a hearing stage")
        return self


class Recipe(Settings):
    """A whole training.

    Attributes:
        seed: of the initial weights, the data order and all noise.
        data: the corpus.
        model: sizes.
        stages: what to do, in this order.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    data: DataSettings
    model: SizeSettings = SizeSettings()
    stages: Annotated[tuple[StageSettings, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _something_to_hear_like(self) -> Self:
        if self.stages[0].kind == "hearing":
            raise ValueError("a hearing stage needs a stage before it, whose content it keeps")
        return self


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        BadSettings: missing, no TOML, an unknown key, or a value out of range.
    """
    return Recipe.load(path)
