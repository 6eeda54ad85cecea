"""What came of a run: for people as text and Markdown, for programs as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil._version import __version__
from somaresil.load.thresholds import Answer, verdict
from somaresil.markdown import plain, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from somaresil.load.books import Book
    from somaresil.load.generator import Run
    from somaresil.load.scenario import Scenario
    from somaresil.load.server import ServerView
    from somaresil.load.thresholds import Check

__all__ = ["MARK", "LoadReport", "milliseconds"]

MARK: Final = "<!-- somaresil load -->"
"""The first line of the Markdown form, by which a comment of ours is found again."""
_EXIT: Final = {Answer.KEPT: 0, Answer.BROKEN: 1, Answer.UNKNOWN: 2}
_COLUMNS: Final = ("request", "ended", "good", "failed", "dropped", "p50", "p95", "p99", "max")
_STREAM_COLUMNS: Final = ("stream", "streams", "truncated", "items", "first p50", "first p95", "gap p50", "gap p99")
_WORDS: Final = {Answer.KEPT: "kept", Answer.BROKEN: "NOT KEPT", Answer.UNKNOWN: "not known"}


def milliseconds(seconds: float | None) -> str:
    """A duration in three digits, in milliseconds; ``-`` for None."""
    return "-" if seconds is None else f"{seconds * 1000.0:.3g} ms" if seconds < 1.0 else f"{seconds:.3g} s"


@dataclass(frozen=True, slots=True)
class LoadReport:
    """A run and its judgement."""

    scenario: Scenario
    run: Run
    checks: tuple[Check, ...]
    started_at: float = 0.0
    """Wall-clock time in seconds since the epoch."""
    server: ServerView | None = None
    chaos: tuple[str, ...] = ()
    """What became of the experiments."""
    interrupted: str | None = None
    """The signal that ended the run."""

    @property
    def answer(self) -> Answer:
        """Whether the scenario was kept. A run that was not brought to its end keeps nothing, but what is broken stays so."""
        found = verdict(self.checks)
        return Answer.UNKNOWN if found is Answer.KEPT and not self.run.complete else found

    @property
    def exit_code(self) -> int:
        """0 kept, 1 not kept, 2 not known."""
        return _EXIT[self.answer]

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON. The sketches are in it, so reports can be added up (:meth:`Books.from_dict`)."""
        run = self.run
        return {
            "version": 1,
            "somaresil": __version__,
            "scenario": self.scenario.name,
            "target": self.scenario.target,
            "seed": self.scenario.seed,
            "arrival": self.scenario.arrival,
            "stages": [asdict(stage) for stage in self.scenario.stages],
            "started_at": self.started_at,
            "seconds": run.seconds,
            "elapsed": run.elapsed,
            "throughput": run.per_second(run.books.total().good),
            "complete": run.complete,
            "interrupted": self.interrupted,
            "answer": self.answer.value,
            "exit_code": self.exit_code,
            "checks": [check.as_dict() for check in self.checks],
            "offered": run.offered,
            "concurrency": run.concurrency,
            "generator": {
                "cpu": run.cpu,
                "late_p99": run.lateness.quantile(0.99),
                "late_max": run.lateness.quantile(1.0),
                "saturated": list(run.saturated),
            },
            "requests": {name: _figures(run.books.total([name])) for name in run.books.requests},
            "books": run.books.as_dict(),
            "server": None if self.server is None else self.server.as_dict(),
            "chaos": list(self.chaos),
            "notes": list(self.run.notes),
            "points": [asdict(point) for point in run.points],
        }

    def to_json(self) -> str:
        """All of it."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False)

    # -- rows, for every form -------------------------------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """What it is about, and how it ended."""
        return f"{self.scenario.name}: {_WORDS[self.answer]}"

    @property
    def about(self) -> str:
        """How much, for how long, where to."""
        run = self.run
        offered = run.offered / run.seconds if run.seconds else 0.0
        answered = run.per_second(run.books.total().good)
        return (
            f"{self.scenario.target}, {run.offered} arrivals in {run.seconds:.4g} s ({self.scenario.arrival}, seed {self.scenario.seed}): "
            f"{offered:.4g} a second, {answered:.4g} good answers a second, {run.concurrency:.3g} in flight in the mean"
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should be known before the figures are believed."""
        found = [f"the generator was saturated: {why}" for why in self.run.saturated]
        if self.interrupted is not None:
            found.append(f"ended by {self.interrupted} after {self.run.seconds:.4g} s; {self._total().abandoned} requests were in flight")
        return (*found, *self.run.notes)

    def _total(self) -> Book:
        return self.run.books.total(parts=("calm", "chaos", "injected"))

    def requests(self) -> list[tuple[str, ...]]:
        """A row for each request, and one of all."""
        books = self.run.books
        rows = [_row(name, books.total([name])) for name in books.requests]
        if len(rows) > 1:
            rows.append(_row("all", books.total()))
        return rows

    def streams(self) -> list[tuple[str, ...]]:
        """A row for each request that was answered by streams."""
        books = self.run.books
        found = [(name, books.total([name])) for name in books.requests]
        return [
            (
                name,
                str(book.streams),
                str(book.truncated),
                str(book.items),
                milliseconds(book.first.quantile(0.5)),
                milliseconds(book.first.quantile(0.95)),
                milliseconds(book.gap.quantile(0.5)),
                milliseconds(book.gap.quantile(0.99)),
            )
            for name, book in found
            if book.streams
        ]

    def errors(self) -> list[tuple[str, str, str, str]]:
        """A row for each kind of error: request, kind, how many, and whether an experiment had a hand in it."""
        rows: list[tuple[str, str, str, str]] = []
        parts = (("calm", ""), ("chaos", "while an experiment ran"), ("injected", "struck by an experiment"))
        for part, words in parts:
            for name, book in sorted(getattr(self.run.books, part).items()):
                rows += [(name, kind, str(times), words) for kind, times in book.errors.most_common()]
        return rows

    def under_chaos(self) -> list[tuple[str, ...]]:
        """Rows for what began without an experiment, during one, and what was struck; empty without experiments."""
        books = self.run.books
        rows = [_row(words, books.total(parts=(part,))) for part, words in _PARTS if getattr(books, part)]
        return rows if len(rows) > 1 or books.injected else []

    def sides(self) -> list[tuple[str, str, str]]:
        """Rows for what clients saw beside what the service has counted."""
        if self.server is None or self.server.problem:
            return []
        total, server = self._total(), self.server
        rows = [("requests", str(total.ended), "-" if server.requests is None else f"{server.requests:.0f}")]
        rows.append(("failed", str(total.failed), f"{server.failed:.0f}"))
        for q, seconds in server.quantiles.items():
            rows.append((f"p{q * 100:g}", milliseconds(total.latency.quantile(q)), milliseconds(seconds)))
        for name, (good, events, target) in server.objectives.items():
            if events:
                rows.append((f"{name} (needs {target:.5g})", "", f"{good / events:.5g} of {events:.0f}"))
        return rows

    def stages(self) -> list[tuple[str, ...]]:
        """A row for each stage: what was offered in it, and what became of what ended in it."""
        rows: list[tuple[str, ...]] = []
        begun = 0.0
        for number, stage in enumerate(self.scenario.stages):
            points = [point for point in self.run.points if begun < point.at - point.seconds / 2.0 <= begun + stage.seconds]
            begun += stage.seconds
            if not points:
                continue
            slowest = max((point.p95 for point in points if point.p95 is not None), default=None)
            figures = [sum(getattr(point, name) for point in points) for name in ("offered", "good", "failed", "dropped")]
            rate = f"{stage.rate:.4g}/s" if stage.to is None else f"{stage.rate:.4g} to {stage.to:.4g}/s"
            rows.append((stage.name or f"stage {number + 1}", f"{stage.seconds:.4g} s", rate, *map(str, figures), milliseconds(slowest)))
        return rows

    def tables(self) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
        """Heading, columns and rows of everything that has rows."""
        checks = [(_WORDS[check.answer], check.what, check.why, check.side) for check in self.checks]
        found: list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]] = [
            ("Limits", ("", "limit", "counted", "by"), [*checks]),
            ("Requests", _COLUMNS, self.requests()),
            ("Streams", _STREAM_COLUMNS, self.streams()),
            ("Stages", ("stage", "time", "rate", "offered", "good", "failed", "dropped", "worst p95"), self.stages()),
            ("Errors", ("request", "kind", "times", ""), [*self.errors()]),
            ("Experiments", ("", *_COLUMNS[1:]), self.under_chaos()),
            ("Clients and service", ("", "clients", "service"), [*self.sides()]),
        ]
        return [(heading, columns, rows) for heading, columns, rows in found if rows]

    # -- forms ----------------------------------------------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """For a terminal."""
        lines = [self.title, self.about, *(f"! {warning}" for warning in self.warnings)]
        for heading, columns, rows in self.tables():
            lines += ["", heading, *_aligned([columns, *rows])]
        generator = self.run.lateness.quantile(0.99)
        lines += ["", f"generator: {self.run.cpu:.0%} of a processor, 99 % of the requests begun within {milliseconds(generator)}"]
        if self.server is not None and self.server.problem:
            lines.append(f"service: {self.server.problem}")
        lines += [f"experiment: {line}" for line in self.chaos]
        return "\n".join(_clean(line) for line in lines)

    def to_markdown(self) -> str:
        """For a comment or a page."""
        lines = [MARK, f"### Load: {plain(self.title)}", "", plain(self.about), ""]
        lines += [f"- {plain(warning)}" for warning in self.warnings] + ([""] if self.warnings else [])
        for heading, columns, rows in self.tables():
            lines += [f"#### {heading}", "", *table(columns, rows)]
        return "\n".join(lines)


_PARTS: Final = (("calm", "no experiment"), ("chaos", "while one ran"), ("injected", "struck"))


def _row(name: str, book: Book) -> tuple[str, ...]:
    quantiles = (milliseconds(book.latency.quantile(q)) for q in (0.5, 0.95, 0.99, 1.0))
    return (name, str(book.ended), str(book.good), str(book.failed), str(book.dropped), *quantiles)


def _figures(book: Book) -> dict[str, Any]:
    return {
        "ended": book.ended,
        "good": book.good,
        "failed": book.failed,
        "dropped": book.dropped,
        "errors": dict(book.errors),
        "latency": {f"p{q * 100:g}": book.latency.quantile(q) for q in (0.5, 0.95, 0.99, 1.0)},
        "first": {f"p{q * 100:g}": book.first.quantile(q) for q in (0.5, 0.95, 0.99)},
        "gap": {f"p{q * 100:g}": book.gap.quantile(q) for q in (0.5, 0.95, 0.99)},
        "streams": book.streams,
        "truncated": book.truncated,
    }


def _aligned(rows: Iterable[tuple[str, ...]]) -> list[str]:
    listed = [*rows]
    widths = [max(len(row[column]) for row in listed) for column in range(len(listed[0]))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in listed]


def _clean(text: str) -> str:
    """Without what a terminal would obey: kinds of errors come from a service that may be in other hands."""
    return "".join(character if character.isprintable() else "?" for character in text)
