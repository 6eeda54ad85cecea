"""What the benchmarks share: rounds, minima, tables, ratios, and the flags --quick, --check and --json.

How a figure comes about. All cases of a table run in turn, each for well under a millisecond, over and over; the figure is the smallest
mean of such a turn. On a machine that does other work as well, the minimum is the only statistic that converges, and taking turns gives
every case the same chance of a quiet moment. The garbage collector rests meanwhile. Each case gets a loop with a code object of its own,
so that the interpreter specialises the call as it would in a program that calls nothing else there.

A ratio that is not met is measured on for two more spells before it counts as not met: a minimum only gets truer with time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import logging
import os
import platform
import sys
import time
import types
import warnings
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NOT_INSTALLED = "not installed"
BARE = "bare function"
_TURN = 400_000
"""Nanoseconds that one turn of one case takes, about; more where a case has much code to bring back into the caches."""
_SPELLS = 3


@dataclass(frozen=True)
class Ratio:
    """A figure and how large it may be. ``value`` is None when something it needs is missing."""

    name: str
    value: float | None
    limit: float
    unit: str = "x"

    @property
    def met(self) -> bool:
        return self.value is not None and self.value <= self.limit


@dataclass
class Table:
    """Rows of figures; a text in place of a figure says why there is none."""

    title: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float | str, ...]] = field(default_factory=dict)


class Benchmark:
    """One script: its flags, its tables and its ratios."""

    def __init__(self, about: str, packages: Sequence[str], parts: dict[str, str] | None = None) -> None:
        """``parts`` are flags that have something else measured, by name with a line of help: see :meth:`part`."""
        parser = argparse.ArgumentParser(description=about.partition("\n")[0])
        parser.add_argument("--quick", action="store_true", help="measure briefly: shows that everything runs, the figures are rough")
        parser.add_argument(
            "--check", action="store_true", help="exit with 1 and name the ratios that are not met and the peers that are missing"
        )
        parser.add_argument("--json", action="store_true", help="print the figures as JSON")
        for part, help_of_it in (parts or {}).items():
            parser.add_argument(f"--{part}", action="store_true", help=help_of_it)
        self._arguments = parser.parse_args()
        self.quick: bool = self._arguments.quick
        self.title = about.partition("\n")[0]
        self.versions = {package: version_of(package) for package in packages}
        self.missing: dict[str, str] = {name: NOT_INSTALLED for name, version in self.versions.items() if version == NOT_INSTALLED}
        self.tables: list[Table] = []
        self.ratios: list[Ratio] = []
        self.notes: list[str] = []
        self._began = time.monotonic()
        # Peers warn about their own age and log their own openings; both would be timed.
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)

    def part(self, name: str) -> bool:
        """Whether this part is wanted."""
        return bool(getattr(self._arguments, name))

    def seconds(self, usual: float) -> float:
        """How long to measure: ``usual``, or a moment when quick."""
        return 0.3 if self.quick else usual

    def objects(self, usual: int) -> int:
        """How many objects to make: ``usual``, or a few when quick."""
        return max(10, usual // 20) if self.quick else usual

    def peer(self, name: str, build: Callable[[], Any]) -> Any:
        """What ``build`` gives, or why there is nothing: a peer is never dropped silently."""
        try:
            return build()
        except ImportError as error:
            self.missing.setdefault(name, str(error))
            return NOT_INSTALLED

    def measure(self, timings: Iterable[Timing], seconds: float, ratios: Callable[[], list[Ratio]] = list) -> None:
        """Time the cases; go on while a ratio is not met, up to three spells in all. Keeps the ratios."""
        found: list[Ratio] = []
        for _ in range(1 if self.quick else _SPELLS):
            for timing in timings:
                timing.run(self.seconds(seconds))
            found = ratios()
            if all(ratio.met or ratio.value is None for ratio in found):
                break
        self.ratios += found

    def finish(self) -> None:
        """Print everything and exit."""
        if self._arguments.json:
            print(json.dumps(self._figures(), indent=2))
        else:
            self._print()
        failed = [f"{ratio.name}: {_number(ratio.value)} {ratio.unit}, limit {ratio.limit:g}" for ratio in self.ratios if not ratio.met]
        failed += [f"missing peer: {name} ({why})" for name, why in self.missing.items()]
        if self._arguments.check and failed:
            print("NOT MET\n  " + "\n  ".join(failed), file=sys.stderr)
            sys.exit(1)

    def _figures(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "quick": self.quick,
            "machine": _machine(),
            "versions": self.versions,
            "tables": {
                table.title: {name: dict(zip(table.columns, row, strict=True)) for name, row in table.rows.items()} for table in self.tables
            },
            "ratios": [{"name": r.name, "value": r.value, "limit": r.limit, "unit": r.unit, "met": r.met} for r in self.ratios],
            "missing": self.missing,
            "notes": self.notes,
            "seconds": round(time.monotonic() - self._began, 1),
        }

    def _print(self) -> None:
        print(self.title)
        print(", ".join(f"{key} {value}" for key, value in _machine().items()))
        print(", ".join(f"{name} {version}" for name, version in self.versions.items()))
        for table in self.tables:
            width = max(map(len, [*table.rows, table.title]))
            print(f"\n{table.title:{width}}  " + "".join(f"{column:>16}" for column in table.columns))
            for name, row in table.rows.items():
                print(f"{name:{width}}  " + "".join(f"{_number(value):>16}" for value in row))
        if self.ratios:
            width = max(len(ratio.name) for ratio in self.ratios)
            print(f"\n{'ratio':{width}}  {'value':>10}  {'limit':>8}")
            for ratio in self.ratios:
                verdict = "" if ratio.met else "   NOT MET"
                print(f"{ratio.name:{width}}  {_number(ratio.value):>10}  {ratio.limit:>8g}  {ratio.unit}{verdict}")
        for note in self.notes:
            print(f"\n{note}")
        rough = " (quick: the figures are rough)" if self.quick else ""
        print(f"\n{time.monotonic() - self._began:.1f} s{rough}")


class Timing:
    """Cases that are timed in turns. A case is a function, or a text that says why there is none."""

    def __init__(
        self, loop: Callable[..., Any], cases: dict[str, Any], after: dict[str, Callable[[], None]] | None = None, turn: int = _TURN
    ) -> None:
        """``loop`` is one of the loops below; ``after`` is called after each turn of a case, untimed."""
        self._turn = turn
        self.best: dict[str, float] = {}
        self.texts = {name: case for name, case in cases.items() if isinstance(case, str)}
        self.names = tuple(cases)
        self._asynchronous = asyncio.iscoroutinefunction(loop)
        self._cases = {name: (_own(loop, name), case) for name, case in cases.items() if name not in self.texts}
        self._after = after or {}
        self._counts: dict[str, int] = {}

    def run(self, seconds: float) -> None:
        """Measure for ``seconds``; what was measured before counts on."""
        gc.collect()
        gc.disable()
        try:
            asyncio.run(self._rounds(seconds))
        finally:
            gc.enable()

    async def _rounds(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        turn = 0
        while turn < 3 or time.monotonic() < end:
            for name, (loop, case) in self._cases.items():
                count = self._counts.get(name, 20)
                spent = loop(case, count)
                if self._asynchronous:
                    spent = await spent
                if name in self._after:
                    self._after[name]()
                if spent < self._turn // 2 and turn < 40:
                    self._counts[name] = min(count * 2, 50_000)
                each = spent / count
                if turn > 2:
                    self.best[name] = min(self.best.get(name, each), each)
            turn += 1
            if turn % 200 == 0:
                gc.collect()
        for name, (loop, case) in self._cases.items():
            if name not in self.best:
                count = self._counts.get(name, 20)
                spent = loop(case, count)
                self.best[name] = (await spent if self._asynchronous else spent) / count

    def over(self, name: str, base: str = BARE) -> float | None:
        """Nanoseconds a call beyond ``base``; None when one of the two is missing."""
        if name not in self.best or base not in self.best:
            return None
        return self.best[name] - self.best[base]

    def table(self, title: str, base: str | None = BARE, scale: float = 1.0, unit: str = "ns") -> Table:
        """The figures: each by itself and, with a base, beyond it."""
        table = Table(title, (unit,) if base is None else (unit, f"{unit} over"))
        for name in self.names:
            if name in self.texts:
                table.rows[name] = (self.texts[name], "")[: len(table.columns)]
            else:
                row = (self.best[name] * scale,)
                table.rows[name] = row if base is None else (*row, (self.over(name, base) or 0.0) * scale)
        return table


def ratio(name: str, value: float | None, of: float | None, limit: float) -> Ratio:
    """``value`` as a multiple of ``of``."""
    return Ratio(name, None if value is None or of is None else value / max(of, 1e-9), limit)


# -- loops: what is timed -------------------------------------------------------------------------------------------------------------


def calls(function: Callable[[Any], Any], count: int) -> int:
    """``function(1)``."""
    turns = repeat(None, count)
    start = time.perf_counter_ns()
    for _ in turns:
        function(1)
    return time.perf_counter_ns() - start


def caught_calls(function: Callable[[Any], Any], count: int) -> int:
    """``function(1)`` by somebody who catches what it raises."""
    turns = repeat(None, count)
    start = time.perf_counter_ns()
    for _ in turns:
        try:  # noqa: SIM105 - contextlib.suppress would cost more than what is measured
            function(1)
        except Exception:
            pass
    return time.perf_counter_ns() - start


def acts(function: Callable[[], Any], count: int) -> int:
    """``function()``."""
    turns = repeat(None, count)
    start = time.perf_counter_ns()
    for _ in turns:
        function()
    return time.perf_counter_ns() - start


async def awaits(function: Callable[[Any], Any], count: int) -> int:
    """``await function(1)``, which does not suspend."""
    turns = repeat(None, count)
    start = time.perf_counter_ns()
    for _ in turns:
        await function(1)
    return time.perf_counter_ns() - start


async def caught_awaits(function: Callable[[Any], Any], count: int) -> int:
    """``await function(1)`` by somebody who catches what it raises."""
    turns = repeat(None, count)
    start = time.perf_counter_ns()
    for _ in turns:
        try:  # noqa: SIM105
            await function(1)
        except Exception:
            pass
    return time.perf_counter_ns() - start


def _own(loop: Any, name: str) -> Any:
    """The loop with a code object of its own."""
    return types.FunctionType(loop.__code__.replace(co_name=f"{loop.__name__} {name}"), loop.__globals__)


# -- the surroundings -----------------------------------------------------------------------------------------------------------------


def version_of(package: str) -> str:
    """The installed version."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if package == "somaresil":
            # Run from a checkout that is on the path but not installed.
            import somaresil

            return somaresil.__version__
        return NOT_INSTALLED


def _machine() -> dict[str, str]:
    return {
        platform.python_implementation(): platform.python_version(),
        "on": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
    }


def _number(value: float | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
