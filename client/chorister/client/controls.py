"""What a user may change of converted speech; neutral values change nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields

from chorister.shared.errors import UsageError


@dataclass(frozen=True, slots=True)
class Controls:
    """How the converted speech shall differ from what the voice makes of the source by itself.

    Attributes:
        pitch_st: semitones up, -24 to 24.
        formant: factor on the frequencies of the formants, 0.7 to 1.4.
        rate: factor on the speed of speech, 0.5 to 2; the pitch stays.
        energy_db: decibels louder than the source, -20 to 20.
        intonation: factor on the movement of the pitch about its median, 0 (monotone) to 2.
        breathiness: -1 to 1: above 0 the share of the harmonics' power that becomes noise (1
            whispers), below 0 the share of the noise's power, in voiced speech, that becomes
            harmonics.

    Raises:
        UsageError: a value out of its range.
    """

    pitch_st: float = 0.0
    formant: float = 1.0
    rate: float = 1.0
    energy_db: float = 0.0
    intonation: float = 1.0
    breathiness: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            limits = LIMITS[field.name]
            value = getattr(self, field.name)
            # Written so that NaN is refused as well.
            if not limits.low <= value <= limits.high:
                raise UsageError(
                    f"{limits.what} lies in {limits.low:g} to {limits.high:g}.",
                    f"{value:g}",
                    f"Choose a value in that range; {limits.neutral:g} changes nothing.",
                )


@dataclass(frozen=True, slots=True)
class Limits:
    """What values a control takes.

    Attributes:
        what: the control in words, with its unit.
        low: lowest value.
        neutral: the value that changes nothing.
        high: highest value.
    """

    what: str
    low: float
    neutral: float
    high: float


LIMITS = {
    "pitch_st": Limits("The pitch, in semitones up,", -24.0, 0.0, 24.0),
    "formant": Limits("The factor on the formants", 0.7, 1.0, 1.4),
    "rate": Limits("The factor on the speed of speech", 0.5, 1.0, 2.0),
    "energy_db": Limits("The energy, in decibels above the source,", -20.0, 0.0, 20.0),
    "intonation": Limits("The factor on the intonation", 0.0, 1.0, 2.0),
    "breathiness": Limits("The breathiness", -1.0, 0.0, 1.0),
}
NEUTRAL = Controls()
