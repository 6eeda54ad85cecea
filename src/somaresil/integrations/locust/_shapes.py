"""The usual shapes of load for Locust, in users, and the stages of a scenario file."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from locust import LoadTestShape

from somaresil.config import Checker
from somaresil.load.arrivals import rate_at
from somaresil.load.presets import PRESETS
from somaresil.load.scenario import read_scenario

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from locust import User

    from somaresil.load.arrivals import Stage

__all__ = ["Baseline", "RampToCapacity", "ScenarioShape", "Soak", "Spike", "Stress"]


class _StagedShape(LoadTestShape):
    """Users by stages of time."""

    abstract: ClassVar[bool] = True
    compress: ClassVar[float] = 1.0
    """The same users in a time that is so many times shorter."""
    scale: ClassVar[float] = 1.0
    """So many times as many users in the same time."""

    def __init__(self) -> None:
        """Raises :class:`~somaresil.errors.ConfigurationError`."""
        super().__init__()
        check = Checker(type(self).__name__)
        check.number("compress", self.compress, minimum=1.0, maximum=100_000.0)
        check.number("scale", self.scale, minimum=0.0, maximum=1_000.0, exclusive=True)
        check.finish()
        self._users = self._stages()
        self._seconds = sum(stage.seconds for stage in self._users) / self.compress
        self._peak = max(1.0, self.scale * max(max(stage.rate, stage.end_rate) for stage in self._users))

    def _stages(self) -> Sequence[Stage]:
        """Stages whose rate is a number of users."""
        raise NotImplementedError

    def users_at(self, seconds: float) -> int | None:
        """How many users there are so many seconds after the beginning; None when it is over."""
        if seconds >= self._seconds:
            return None
        return max(1, round(self.scale * rate_at(self._users, seconds * self.compress)))

    def tick(self) -> tuple[int, float] | tuple[int, float, list[type[User]] | None] | None:
        """What Locust asks once a second."""
        users = self.users_at(self.get_run_time())
        # All that are new begin within a second: who rises slowly is in the stages.
        return None if users is None else (users, self._peak)


class _PresetShape(_StagedShape):
    """One of the presets of ``somaresil load``."""

    abstract: ClassVar[bool] = True
    preset: ClassVar[str] = "baseline"
    users: ClassVar[int | None] = None
    """The most users; None: those of the preset."""

    def _stages(self) -> Sequence[Stage]:
        preset = PRESETS[self.preset]
        check = Checker(type(self).__name__)
        users = check.count("users", preset.users if self.users is None else self.users, maximum=100_000)
        check.finish()
        return preset.stages(users, 1.0)


class Baseline(_PresetShape):
    """100 users for 10 minutes."""

    abstract: ClassVar[bool] = True
    preset: ClassVar[str] = "baseline"


class Stress(_PresetShape):
    """1,000 users for 30 minutes."""

    abstract: ClassVar[bool] = True
    preset: ClassVar[str] = "stress"


class Soak(_PresetShape):
    """200 users for 4 hours."""

    abstract: ClassVar[bool] = True
    preset: ClassVar[str] = "soak"


class Spike(_PresetShape):
    """500 users at once, within 5 minutes."""

    abstract: ClassVar[bool] = True
    preset: ClassVar[str] = "spike"


class RampToCapacity(_PresetShape):
    """More and more users, in ten steps of a minute."""

    abstract: ClassVar[bool] = True
    preset: ClassVar[str] = "ramp-to-capacity"


class ScenarioShape(_StagedShape):
    """The stages of a scenario file of ``somaresil load``, with as many users as make its arrivals, one every ``think`` seconds each."""

    abstract: ClassVar[bool] = True
    scenario: ClassVar[str | os.PathLike[str]] = "scenario.toml"
    think: ClassVar[float] = 1.0
    """Seconds from one run of a user to its next: what its ``constant_pacing`` says."""

    def _stages(self) -> Sequence[Stage]:
        from dataclasses import replace

        check = Checker(type(self).__name__)
        think = check.seconds("think", self.think)
        check.finish()
        found = read_scenario(self.scenario).stages
        return [replace(stage, rate=stage.rate * think, to=None if stage.to is None else stage.to * think) for stage in found]
