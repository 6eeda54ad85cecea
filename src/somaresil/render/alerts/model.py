"""What an alert is: a condition, what it says to whoever is woken, and a history in which it fires and some in which it does not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from somaresil.render.series import Series

__all__ = ["Alert", "History", "told"]

_VALUE: Final = re.compile(r"\{\{\s*\$value[^}]*\}\}")
_LABEL: Final = re.compile(r"\{\{\s*\$labels\.(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class History:
    """Series as promtool writes them, one sample a step from the epoch on, a Thursday; the labels of the service are added to each."""

    name: str
    """What happens in it, in words."""
    series: Mapping[str, str]
    at: str
    """When the alert is looked at."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the alert that fires says beside the labels of the service."""
    value: str = ""
    """How its value reads in the description."""
    step: str = "1m"
    """Between two samples, and two looks at the rules: long ones are dear by the minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert of a service."""

    name: str
    about: str
    """When it fires, for people."""
    severity: str
    """``page``: somebody is woken; ``ticket``: on the next working day."""
    summary: str
    description: str
    """With ``{{ $value }}`` and ``{{ $labels.guard }}``; it says what is, the runbook says what to do."""
    condition: Callable[[Series], str]
    lasts: str = "0s"
    """How long the condition must hold."""
    board: str = "services"
    """Which board shows it; empty: none."""
    fires: History
    silent: tuple[History, ...]


def told(text: str, history: History) -> str:
    """A description as the alert of a history reads it."""
    return _LABEL.sub(lambda found: history.labels.get(found[1], ""), _VALUE.sub(lambda _: history.value, text))
