"""A parser with a defect that only a document of the right form reaches: the harness has to find it."""

from __future__ import annotations

from typing import Final

from tests.fuzz.harness import Target, Unfit, value_of


def _planted(data: bytes) -> None:
    try:
        found = value_of(data)
    except Unfit:
        return
    if isinstance(found, dict) and found.get("kind") == "order" and isinstance(found.get("items"), list):
        for each in found["items"]:
            if isinstance(each, dict):
                # Somebody has forgotten that a price may be missing.
                str(each["price"])


PLANTED: Final = Target("planted", _planted, (), 1, "planted")
