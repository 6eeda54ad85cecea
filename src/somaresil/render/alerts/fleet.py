"""The processes themselves: whether they tell, whether what they tell is whole, and what went wrong inside of us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.render.alerts.model import Alert, History

if TYPE_CHECKING:
    from somaresil.render.series import Series

__all__ = ["FLEET"]

_WORKERS: Final = 'somaresil_workers{service_name="gateway"}'
_DEFECTS: Final = 'somaresil_defects_total{place="%s"}'
_RECORDS: Final = 'place=~"(?i).*(journal|snapshot|audit log).*"'


def _unseen(series: Series) -> str:
    return f"absent(sum({series('somaresil_workers')}))"


def _failing(series: Series) -> str:
    return f"min by (instance) ({series('up')}) == 0"


def _fewer(series: Series) -> str:
    workers = f"sum({series('somaresil_workers')})"
    return f"{workers} / max_over_time(({workers})[1h:1m]) < 0.5"


def _lost(series: Series) -> str:
    return f"sum by (backend) ({series('somaresil_shared_state_lost')}) > 0"


def _defects(series: Series) -> str:
    return series.appeared("somaresil_defects_total", "place", "15m", _RECORDS.replace("=~", "!~"))


def _records(series: Series) -> str:
    return series.appeared("somaresil_defects_total", "place", "15m", _RECORDS)


def _overflows(series: Series) -> str:
    named = '__name__=~"somaresil_.+"'
    # The groups of an objective share one budget under _other by design; all else is there because the limit was reached.
    kinds = ("guard", "component", "pool", "canary", "place", "http_route")
    other = "\n  or ".join(
        series("", named if kind != "http_route" else '__name__=~"http_server_.+"', f'{kind}="_other"') for kind in kinds
    )
    return f'count by (metric) (label_replace(\n  {other},\n  "metric", "$1", "__name__", "(.+)"\n)) > 0'


FLEET: Final = (
    Alert(
        name="ServiceUnseen",
        about="no process of the service has told anything for 5 minutes",
        severity="page",
        summary="Nothing is known of this service",
        description="No process has told what it counts for 5 minutes: no other alert of this service can fire.",
        condition=_unseen,
        lasts="5m",
        fires=History("the scrape finds nothing", {_WORKERS: "2x10 _x30"}, "25m"),
        silent=(History("one worker is left", {_WORKERS: "2x10 1x30"}, "25m"),),
    ),
    Alert(
        name="ScrapeFailing",
        about="scrapes of one target have failed for 5 minutes",
        severity="ticket",
        summary="Prometheus cannot scrape {{ $labels.instance }}",
        description="No scrape of {{ $labels.instance }} has worked for 5 minutes; what it counts is missing in every sum.",
        condition=_failing,
        lasts="5m",
        fires=History(
            "one of two does not answer", {'up{instance="a:80"}': "1x5 0x20", 'up{instance="b:80"}': "1x30"}, "20m", {"instance": "a:80"}
        ),
        silent=(History("one scrape is lost", {'up{instance="a:80"}': "1x5 0 1x20"}, "20m"),),
    ),
    Alert(
        name="WorkersMissing",
        about="less than half of the workers of the last hour tell what they count, for 10 minutes",
        severity="ticket",
        summary="Less than half of the workers tell what they count",
        description="Of the workers that told within the last hour, {{ $value | humanizePercentage }} still do.",
        condition=_fewer,
        lasts="10m",
        fires=History("three of four are gone", {_WORKERS: "4x20 1x40"}, "40m", {}, "25%"),
        silent=(
            History("one of four is gone", {_WORKERS: "4x20 3x40"}, "40m"),
            History("all restart", {_WORKERS: "4x20 1x3 4x40"}, "40m"),
        ),
    ),
    Alert(
        name="SharedStateLost",
        about="Redis or another backend has been out of reach for 2 minutes",
        severity="ticket",
        summary="{{ $labels.backend }} cannot be reached",
        description="{{ $value }} workers have had no shared state from {{ $labels.backend }} for 2 minutes; local state decides.",
        condition=_lost,
        lasts="2m",
        fires=History(
            "Redis is gone",
            {'somaresil_shared_state_lost{backend="redis://state:6379"}': "0x5 2x10"},
            "12m",
            {"backend": "redis://state:6379"},
            "2",
        ),
        silent=(History("it is back at once", {'somaresil_shared_state_lost{backend="redis://state:6379"}': "0x5 2 0x10"}, "12m"),),
    ),
    Alert(
        name="DefectsFound",
        about="something raised where nothing may raise, within the last 15 minutes",
        severity="ticket",
        summary="Something of ours or a hook raised: {{ $labels.place }}",
        description="{{ $labels.place }} raised within the last 15 minutes. No call failed for it; what it does instead is in the log.",
        condition=_defects,
        fires=History(
            "a classifier raises for the first time",
            {_DEFECTS % "classify of guard llm": "_x10 1x20"},
            "15m",
            {"place": "classify of guard llm"},
        ),
        silent=(
            History("it was an hour ago", {_DEFECTS % "classify of guard llm": "_x10 1x90"}, "70m"),
            History("another alert has it", {_DEFECTS % "journal": "_x10 1x20"}, "15m"),
        ),
    ),
    Alert(
        name="RecordsFail",
        about="a journal, snapshot or audit log failed within the last 15 minutes",
        severity="ticket",
        summary="Records are not written or read: {{ $labels.place }}",
        description="{{ $labels.place }} failed within the last 15 minutes: what has been counted might not outlive a restart.",
        condition=_records,
        fires=History("the disk is full", {_DEFECTS % "journal": "0x10 4x20"}, "15m", {"place": "journal"}),
        silent=(History("it was something else", {_DEFECTS % "classify of guard llm": "_x10 1x20"}, "15m"),),
    ),
    Alert(
        name="CardinalityOverflow",
        about="a metric has had more label sets than its limit for 15 minutes",
        severity="ticket",
        summary="{{ $labels.metric }} has more label sets than its limit",
        description="What did not fit is added up under _other: {{ $value }} series of {{ $labels.metric }}.",
        condition=_overflows,
        lasts="15m",
        fires=History(
            "guards are made in a loop",
            {'somaresil_calls_total{guard="_other",outcome="good",injected="false"}': "0+1x40"},
            "30m",
            {"metric": "somaresil_calls_total"},
            "1",
        ),
        silent=(
            History(
                "groups of an objective share a budget",
                {'somaresil_sli_group_events_total{slo="up",group="_other",outcome="good"}': "0+1x40"},
                "30m",
            ),
            History("all have names", {'somaresil_calls_total{guard="a",outcome="good",injected="false"}': "0+1x40"}, "30m"),
        ),
    ),
)
