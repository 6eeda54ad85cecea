"""The usual shapes of load, in users; how many arrivals a second a user makes is the scenario's to say (``think``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from somaresil.load.arrivals import Stage

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A shape: shares of the time and of the users."""

    name: str
    users: int
    seconds: float
    parts: tuple[tuple[str, float, float, float], ...]
    """Name, share of the time, share of the users at the beginning and at the end."""
    about: str

    def stages(self, users: float, think: float) -> tuple[Stage, ...]:
        """The stages for so many users, each of whom makes a request every ``think`` seconds."""
        rate = users / think
        return tuple(
            Stage(self.seconds * share, rate * begin, None if begin == end else rate * end, name) for name, share, begin, end in self.parts
        )


PRESETS: Final[dict[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset("baseline", 100, 600.0, (("warm-up", 0.1, 0.1, 1.0), ("steady", 0.9, 1.0, 1.0)), "what is usual"),
        Preset("stress", 1_000, 1_800.0, (("ramp", 0.2, 0.1, 1.0), ("steady", 0.8, 1.0, 1.0)), "as much as was promised"),
        Preset("soak", 200, 14_400.0, (("warm-up", 0.02, 0.1, 1.0), ("steady", 0.98, 1.0, 1.0)), "long enough for leaks"),
        Preset(
            "spike",
            500,
            300.0,
            (("before", 0.3, 0.1, 0.1), ("spike", 0.4, 1.0, 1.0), ("after", 0.3, 0.1, 0.1)),
            "everybody at once, and whether it comes back from that",
        ),
        Preset(
            "ramp-to-capacity",
            1_000,
            600.0,
            tuple((f"step-{number}", 0.1, number / 10.0, number / 10.0) for number in range(1, 11)),
            "more and more, in ten steps",
        ),
    )
}
"""By name."""
