"""What the pytest plugin knows of one run of pytest: its options, and the test that runs now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    import threading

    import pytest

    from somaresil.resilience import Resilience

__all__ = ["Session"]


class Session:
    """What the plugin knows of one run of pytest."""

    def __init__(self, config: pytest.Config, refused: type[Exception]) -> None:
        """Read the options; ``refused`` is what pytest takes for a wrong one."""
        self._refused = refused
        self.config = config
        self.item: pytest.Item | None = None
        """The test that runs now."""
        self.threads: WeakSet[threading.Thread] = WeakSet()
        """Those that were there before it."""
        self.given = False
        """Whether the function that is collected now was given to pytest-asyncio."""
        problems: list[str] = []
        self.seed = _whole(config, "somaresil_seed", problems)
        self.stall = _number(config, "somaresil_stall", 0.01, 3_600.0, problems) or 5.0
        self.most_jumps = int(_number(config, "somaresil_most_jumps", 1, 1e12, problems) or 1_000_000)
        self.fail_under = _number(config, "somaresil_faulted_guards_fail_under", 0.0, 100.0, problems)
        self.reference = str(config.getini("somaresil_resilience")).strip()
        if self.reference and not all(part.isidentifier() for part in self.reference.replace(":", ".", 1).split(".")):
            problems.append(f"somaresil_resilience = {self.reference!r}: expected module:name")
        if problems:
            raise self._refused("\n".join([f"{len(problems)} problem(s) in the ini options of somaresil", *problems]))

    def service(self) -> Resilience | None:
        """The ``Resilience`` that the ini file names; None: it names none."""
        if not self.reference:
            return None
        from importlib import import_module

        from somaresil.resilience import Resilience

        module, _, name = self.reference.partition(":")
        try:
            found: Any = import_module(module)
            for part in (name or "resilience").split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise self._refused(f"somaresil_resilience = {self.reference!r}: {type(error).__name__}: {error}") from error
        if not isinstance(found, Resilience):
            raise self._refused(f"somaresil_resilience = {self.reference!r}: expected a Resilience, found {type(found).__name__}")
        return found


def _whole(config: pytest.Config, name: str, problems: list[str]) -> int:
    value = str(config.getini(name)).strip()
    if value.isdecimal():
        return int(value)
    problems.append(f"{name} = {value!r}: expected a whole number >= 0")
    return 0


def _number(config: pytest.Config, name: str, least: float, most: float, problems: list[str]) -> float | None:
    value = str(config.getini(name)).strip()
    if not value:
        return None
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if least <= number <= most:
        return number
    problems.append(f"{name} = {value!r}: expected a number from {least:g} to {most:g}")
    return None
