"""A privacy figure that says what it is a figure of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrivacyFigure:
    """One (epsilon, delta), with everything that it needs to mean something.

    Attributes:
        unit: what is protected: 'one segment' or 'one speaker'.
        relation: which two inputs count as neighbours.
        epsilon: the larger of the two accountants' figures; infinity where there was no noise.
        delta: of (epsilon, delta).
        accountants: name of each accountant to its epsilon.
    """

    unit: str
    relation: str
    epsilon: float
    delta: float
    accountants: dict[str, float]

    def sentence(self) -> str:
        """Return the figure as one line for a report."""
        each = ", ".join(f"{name} {value:.4g}" for name, value in self.accountants.items())
        return (
            f"epsilon {self.epsilon:.4g} at delta {self.delta:.2g} for {self.unit} "
            f"({self.relation}; {each})"
        )
