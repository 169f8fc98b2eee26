"""Measured attacks as lines on a terminal."""

from __future__ import annotations

from chorister.server.attack_record import Attacks
from chorister.shared.console import say


def print_table(found: Attacks) -> None:
    """Print every attack with its interval, its chance and its control."""
    say(f"\n{found.data}; {found.scale} run, seed {found.seed}")
    for attack in found.attacks:
        chance = "" if attack.chance is None else f", chance {attack.chance:.3g}"
        say(f"\n{attack.name} ({attack.trials} trials{chance})")
        _line(attack.figure_name, attack.figure, attack.interval)
        control = attack.positive_control
        if control is not None:
            _line(f"control: {control.name}", control.figure, control.interval)
        for one in attack.beside:
            _line(one.name, one.figure, one.interval)
        for note in attack.notes:
            say(f"    {note}")
    say("")
    for limit in found.limits:
        say(limit)


def _line(name: str, figure: float | None, interval: tuple[float, float] | None) -> None:
    value = "–" if figure is None else f"{figure:.3f}"
    around = "" if interval is None else f"  [{interval[0]:.3f}, {interval[1]:.3f}]"
    say(f"  {value:>8}{around:20}  {name}")
