"""Figures as a person reads them, with their unit."""

from __future__ import annotations

from typing import Final

__all__ = ["figure", "percent"]

_SCALES: Final = {
    "seconds": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "bytes": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    "requests_per_second": ((1.0, "/s"),),
    "count": ((1.0, ""),),
}


def figure(value: float | None, unit: str) -> str:
    """``0.0123`` seconds are ``12.3 ms``."""
    if value is None:
        return "-"
    if unit == "ratio":
        return f"{value * 100.0:.3g} %"
    scales = _SCALES.get(unit, ((1.0, unit),))
    factor, name = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])
    return f"{value / factor:.4g} {name}".strip()


def percent(ratio: float | None) -> str:
    """``1.05`` is ``+5.0 %``."""
    return "-" if ratio is None else f"{(ratio - 1.0) * 100.0:+.1f} %"
