"""What documents of OpenSLO v1 look like, by kind. Facts from its specification; where that is silent, what its Go SDK accepts."""

from __future__ import annotations

import re
from typing import Final

from somaresil.interchange.shapes import ANYTHING, FLAG, Listing, Number, OneOf, Shape, Table, Text

__all__ = ["API", "BUDGETING", "KINDS", "LONGEST_NAME", "LONGEST_TEXT", "seconds_of"]

API: Final = "openslo/v1"
LONGEST_NAME: Final = 63
LONGEST_TEXT: Final = 1_050
BUDGETING: Final = {"Occurrences": "occurrences", "Timeslices": "timeslices", "RatioTimeslices": "ratio_timeslices"}
_UNITS: Final = {
    "m": 60.0,
    "h": 3_600.0,
    "d": 86_400.0,
    "w": 604_800.0,
    "M": 30 * 86_400.0,
    "Q": 90 * 86_400.0,
    "Y": 365 * 86_400.0,
}
"""A month has 30 days, as in the Go SDK: the specification leaves it open."""
_DURATION: Final = re.compile(r"([0-9]{1,9})([mhdwMQY])")


def seconds_of(text: str) -> float:
    """How long a duration is; 0 for one that is none."""
    found = _DURATION.fullmatch(text)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


_LENGTH: Final = Text(pattern=r"0*[1-9][0-9]{0,8}[mhdwMQY]", allowed="a whole number above 0 and one of m, h, d, w, M, Q, Y")
_WAIT: Final = Text(pattern=r"[0-9]{1,9}[mhdwMQY]", allowed="a whole number and one of m, h, d, w, M, Q, Y")
_NAME: Final = Text(longest=255)
_DESCRIPTION: Final = Text(longest=LONGEST_TEXT, empty=True)
_METADATA: Final = Table(
    {
        "name": _NAME,
        "displayName": Text(longest=LONGEST_TEXT, empty=True),
        "labels": Table(rest=ANYTHING),
        "annotations": Table(rest=Text(longest=100_000, empty=True)),
    },
    ("name",),
)
_METRIC: Final = Table(
    {"metricSource": Table({"metricSourceRef": _NAME, "type": _NAME, "spec": ANYTHING}, ("spec",))},
    ("metricSource",),
)
_RATIO: Final = Table(
    {"counter": FLAG, "good": _METRIC, "bad": _METRIC, "total": _METRIC, "raw": _METRIC, "rawType": Text(choices=("success", "failure"))}
)
_SLI: Final = Table({"description": _DESCRIPTION, "thresholdMetric": _METRIC, "ratioMetric": _RATIO})
_INLINE_SLI: Final = Table(
    {"apiVersion": Text(choices=(API,)), "kind": Text(choices=("SLI",)), "metadata": _METADATA, "spec": _SLI}, ("metadata", "spec")
)
_CONDITION: Final = Table(
    {
        "description": _DESCRIPTION,
        "severity": Text(),
        "condition": Table(
            {
                "kind": Text(choices=("burnrate",)),
                "op": Text(choices=("gt", "gte", "lt", "lte")),
                "threshold": Number(0.0, open_below=True),
                "lookbackWindow": _LENGTH,
                "alertAfter": _WAIT,
            },
            ("threshold", "lookbackWindow"),
        ),
    },
    ("severity", "condition"),
)
_TARGET: Final = Table({"description": _DESCRIPTION, "target": Text()}, ("target",))
_POLICY: Final = Table(
    {
        "description": _DESCRIPTION,
        "alertWhenNoData": FLAG,
        "alertWhenResolved": FLAG,
        "alertWhenBreaching": FLAG,
        "conditions": Listing(
            Table(
                {
                    "conditionRef": _NAME,
                    "apiVersion": Text(choices=(API,)),
                    "kind": Text(choices=("AlertCondition",)),
                    "metadata": _METADATA,
                    "spec": _CONDITION,
                }
            ),
            1,
            1,
        ),
        "notificationTargets": Listing(
            Table(
                {
                    "targetRef": _NAME,
                    "apiVersion": Text(choices=(API,)),
                    "kind": Text(choices=("AlertNotificationTarget",)),
                    "metadata": _METADATA,
                    "spec": _TARGET,
                }
            )
        ),
    },
    ("conditions",),
)
_OBJECTIVE: Final = Table(
    {
        "displayName": Text(longest=LONGEST_TEXT, empty=True),
        "op": Text(choices=("lte", "gte", "lt", "gt")),
        "value": Number(),
        "target": Number(0.0, 1.0, open_above=True),
        "targetPercent": Number(0.0, 100.0, open_above=True),
        "timeSliceTarget": Number(0.0, 1.0, open_below=True),
        "timeSliceWindow": OneOf(Number(0.0, 1e6, open_below=True), _LENGTH),
        "indicator": _INLINE_SLI,
        "indicatorRef": _NAME,
        "compositeWeight": Number(0.0, 1e6, open_below=True),
    }
)
_WINDOW: Final = Table(
    {
        "duration": _LENGTH,
        "isRolling": FLAG,
        "calendar": Table({"startTime": Text(stamp=True), "timeZone": Text(longest=120)}, ("startTime", "timeZone")),
    },
    ("duration",),
)
_SLO: Final = Table(
    {
        "description": _DESCRIPTION,
        "service": Text(),
        "indicator": _INLINE_SLI,
        "indicatorRef": _NAME,
        "timeWindow": Listing(_WINDOW, 1, 1),
        "budgetingMethod": Text(choices=tuple(BUDGETING)),
        "objectives": Listing(_OBJECTIVE, 1, 100),
        "alertPolicies": Listing(
            Table(
                {
                    "alertPolicyRef": _NAME,
                    "apiVersion": Text(choices=(API,)),
                    "kind": Text(choices=("AlertPolicy",)),
                    "metadata": _METADATA,
                    "spec": _POLICY,
                }
            ),
            0,
            12,
        ),
    },
    ("service", "budgetingMethod", "objectives"),
)


def _of(kind: str, spec: Shape) -> Table:
    fields: dict[str, Shape] = {"apiVersion": Text(choices=(API,)), "kind": Text(choices=(kind,)), "metadata": _METADATA, "spec": spec}
    return Table(fields, ("apiVersion", "kind", "metadata", "spec"))


KINDS: Final = {
    "DataSource": _of(
        "DataSource",
        Table({"description": _DESCRIPTION, "type": _NAME, "connectionDetails": ANYTHING}, ("type",)),
    ),
    "Service": _of("Service", Table({"description": _DESCRIPTION})),
    "SLI": _of("SLI", _SLI),
    "SLO": _of("SLO", _SLO),
    "AlertPolicy": _of("AlertPolicy", _POLICY),
    "AlertCondition": _of("AlertCondition", _CONDITION),
    "AlertNotificationTarget": _of("AlertNotificationTarget", _TARGET),
}
