"""Which series are a service's own. What is recorded of them has the same labels as what is scraped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from somaresil.slo.rules.text import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Series"]


@dataclass(frozen=True, slots=True)
class Series:
    """Selectors for the series of one service."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """What they have in common: ``{"service": "gateway"}``."""

    def __call__(self, metric: str, *matchers: str) -> str:
        """A selector: ``somaresil_calls_total{service="gateway",outcome="bad"}``."""
        own = [f"{name}={quoted(value)}" for name, value in self.labels.items()]
        return f"{metric}{{{','.join([*own, *matchers])}}}"

    def appeared(self, metric: str, by: str, window: str, *matchers: str) -> str:
        """Whether a counter has grown within a window, also one that was not there before: its first step is no increase."""
        one = self(metric, *matchers)
        grown = f"sum by ({by}) (increase({one}[{window}])) > 0"
        new = f"sum by ({by}) ({one} unless {one} offset {window}) > 0"
        return f"({grown})\nor\n({new})"
