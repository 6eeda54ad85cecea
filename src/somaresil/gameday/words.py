"""A report in words and tables, as every rendering shows it. None is shown as a dash: nothing was seen, which is not 0."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from somaresil.gameday.report import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from somaresil.gameday.report import ExperimentReport, GameDayReport

__all__ = ["facts", "moment", "number", "share", "title_of", "totals", "when"]

NOTHING: Final = "-"
_MOMENTS: Final = {"before": "before the faults", "during": "while the faults were on", "after": "after the faults"}


def number(value: float | None, unit: str = "") -> str:
    """Four digits and the unit."""
    return NOTHING if value is None else f"{value:.4g}{unit}"


def share(value: float | None) -> str:
    """A percentage with one digit; never rounded up to 100 %."""
    if value is None:
        return NOTHING
    return f"{value:.1%}" if value == 1.0 or value < 0.9995 else "99.9%"  # noqa: PLR2004 - where it would be rounded up


def when(at: float) -> str:
    """Wall-clock seconds as a date and a time in UTC."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")
    except (OverflowError, OSError, ValueError):
        return f"{at:.0f} s"


def moment(name: str) -> str:
    """When a hypothesis was looked at."""
    return _MOMENTS.get(name, name)


def title_of(report: GameDayReport) -> str:
    """The judgement in a few words."""
    if report.interrupted is not None:
        return "interrupted"
    held = sum(experiment.status is Status.HELD for experiment in report.experiments)
    total = len(report.experiments)
    return f"all {total} held" if report.held else f"{held} of {total} held"


def totals(report: GameDayReport) -> Iterable[tuple[str, str]]:
    """What stands first in a report."""
    recovery, times = report.recovery, report.recoveries
    yield "faults injected", str(report.injected)
    yield "calls touched", str(report.touched)
    yield "absorbed", f"{report.absorbed} ({share(report.absorbed / report.touched)})" if report.touched else NOTHING
    yield "recovered", f"{recovery.recovered} of {recovery.failures} failures"
    yield "recovery rate, Wilson 95 % lower bound", share(recovery.lower_bound)
    if times is not None:
        shown = f"mean {times.mean:.4g} s, p50 {times.p50:.4g} s, p90 {times.p90:.4g} s, p95 {times.p95:.4g} s, worst {times.most:.4g} s"
        yield "time to recovery", f"{shown} (of {times.count})"
    yield "not recovered", str(report.unrecovered)


def facts(experiment: ExperimentReport) -> Iterable[tuple[str, Sequence[str], list[Sequence[str]]]]:
    """The tables of an experiment: heading, columns, rows. Those without rows are left out."""
    tables: list[tuple[str, Sequence[str], list[Sequence[str]]]] = [
        (
            "Phases",
            ("phase", "seconds", "calls", "good", "touched", "attempts", "p50", "p95"),
            [
                (
                    each.name,
                    number(each.seconds),
                    str(each.calls),
                    share(each.good / each.calls if each.calls else None),
                    str(each.touched),
                    str(each.attempts),
                    number(each.p50, " s"),
                    number(each.p95, " s"),
                )
                for each in experiment.phases
            ],
        ),
        (
            "Faults",
            ("target", "kind", "from", "for", "injected", "ended"),
            [
                (
                    str(each.window.get("target", "")),
                    str(each.window.get("kind", "")),
                    f"{each.window.get('start', NOTHING)} s",
                    f"{each.window.get('duration', NOTHING)} s",
                    str(each.injected),
                    each.end_reason or NOTHING,
                )
                for each in experiment.faults
            ],
        ),
        (
            "Attempts a call",
            ("guard", "baseline", "during", "amplified"),
            [(each.guard, number(each.baseline), number(each.during), number(each.factor, "x")) for each in experiment.amplifications],
        ),
        (
            "Incidents",
            ("incident", "detected", "mitigated", "seconds", "recovered", "injected"),
            [
                (
                    each.id,
                    number(each.detected_after),
                    number(each.mitigated_after),
                    number(each.seconds),
                    "yes" if each.recovered else "no",
                    each.experiment or ("yes" if each.injected else "no"),
                )
                for each in experiment.incidents
            ],
        ),
        (
            "Error budgets",
            ("objective", "target", "good", "bad", "left before", "left after", "burn rate"),
            [
                (
                    each.slo,
                    f"{each.target:g}%",
                    str(each.good),
                    str(each.bad),
                    share(each.before),
                    share(each.after),
                    number(each.burn_rate, "x"),
                )
                for each in experiment.budgets
            ],
        ),
    ]
    groups = experiment.groups
    if groups is not None:
        rows: list[Sequence[str]] = [
            (
                name,
                str(side.calls),
                share(side.good / side.calls if side.calls else None),
                str(side.touched),
                number(side.p50, " s"),
                number(side.p95, " s"),
            )
            for name, side in (("experiment", groups.experiment), ("control", groups.control))
        ]
        tables.append(
            (
                f"Experiment against control, {groups.judgement.value}: {groups.why}",
                ("group", "calls", "good", "touched", "p50", "p95"),
                rows,
            )
        )
    yield from (table for table in tables if table[2])
