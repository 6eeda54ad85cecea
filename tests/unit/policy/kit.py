"""What the tests of policies share: what is wrong with some options, and dependencies that answer as told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from somaresil import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable


def wrong(make: Callable[..., Any], *args: Any, **options: Any) -> list[str]:
    """Name the options that ``make`` complains about, in order."""
    with pytest.raises(ConfigurationError) as raised:
        make(*args, **options)
    return [problem.path.rpartition(".")[2] for problem in raised.value.problems]


class Script:
    """A dependency that goes through a script: an exception is raised, anything else returned; the last entry is repeated."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        step = self.steps[min(self.calls, len(self.steps) - 1)]
        self.calls += 1
        if isinstance(step, BaseException):
            raise step
        return step
