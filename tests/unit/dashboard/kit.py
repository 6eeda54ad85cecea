"""What the tests of the dashboard leave behind them: nothing that runs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

from somaresil.dashboard.exchange import Exchange
from somaresil.dashboard.sources import Sources
from somaresil.slo.alerting import Alerting

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["stopped"]


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stop everything with a thread of its own that was made: a later test of how memory grows would count what it does."""
    made: list[Any] = []
    for kind in (Sources, Exchange, Alerting):
        begin: Any = kind.__init__

        @functools.wraps(begin)
        def remember(self: Any, *given: Any, begin: Any = begin, **named: Any) -> None:
            begin(self, *given, **named)
            made.append(self)

        monkeypatch.setattr(kind, "__init__", remember)
    yield
    for each in reversed(made):
        each.stop()
