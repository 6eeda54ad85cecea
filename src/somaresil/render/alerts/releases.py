"""Canaries: those that were rolled back, and those that do not move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.render.alerts.model import Alert, History

if TYPE_CHECKING:
    from somaresil.render.series import Series

__all__ = ["RELEASES"]

_WEIGHT: Final = 'somaresil_canary_weight_ratio{canary="gateway"}'
_BACK: Final = 'somaresil_canary_moves_total{canary="gateway",step="rollback"}'


def _rolled_back(series: Series) -> str:
    return series.appeared("somaresil_canary_moves_total", "canary", "15m", 'step="rollback"')


def _stuck(series: Series) -> str:
    weight = f"max by (canary) ({series('somaresil_canary_weight_ratio')})"
    moved = f"max by (canary) (changes({series('somaresil_canary_weight_ratio')}[6h]))"
    then = f"max by (canary) ({series('somaresil_canary_weight_ratio')} offset 6h)"
    return f"({weight} > 0 < 1)\nand {moved} == 0\nand {weight} == {then}"


RELEASES: Final = (
    Alert(
        name="CanaryRolledBack",
        about="a canary was rolled back within the last 15 minutes",
        severity="ticket",
        summary="The canary {{ $labels.canary }} was rolled back",
        description="The candidate of {{ $labels.canary }} was proven to be worse, or somebody took it back, within the last 15 minutes.",
        condition=_rolled_back,
        board="canary",
        fires=History("it is the first of this process", {_BACK: "_x10 1x20"}, "15m", {"canary": "gateway"}),
        silent=(
            History("it was an hour ago", {_BACK: "_x10 1x90"}, "70m"),
            History("it was promoted", {'somaresil_canary_moves_total{canary="gateway",step="promote"}': "_x10 1x20"}, "15m"),
        ),
    ),
    Alert(
        name="CanaryStuck",
        about="a canary has had the same part of the traffic for 6 hours",
        severity="ticket",
        summary="The canary {{ $labels.canary }} does not move",
        description="The candidate of {{ $labels.canary }} has had {{ $value | humanizePercentage }} of the traffic for 6 hours.",
        condition=_stuck,
        board="canary",
        fires=History("it stays at a tenth", {_WEIGHT: "0 0.1x40"}, "390m", {"canary": "gateway"}, "10%", "10m"),
        silent=(
            History("it moves every hour", {_WEIGHT: "0 0.1x20 0.5x20"}, "390m", step="10m"),
            History("it has all of the traffic", {_WEIGHT: "1x40"}, "390m", step="10m"),
            History("there is none", {_WEIGHT: "0x40"}, "390m", step="10m"),
        ),
    ),
)
