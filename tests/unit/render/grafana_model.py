"""What Grafana's own library of models makes of a board, and what it does not know in it."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import import_module

UNKNOWN_TO_THE_MODEL = {
    # Grafana reads them; the model leaves them out, as its own templates for annotations of Prometheus do not.
    "annotations.list[].builtIn",
    "annotations.list[].titleFormat",
    "annotations.list[].tagKeys",
}


@cache
def _library():
    return import_module("grafana_foundation_sdk.cog.plugins"), import_module("grafana_foundation_sdk.models.dashboard")


def loaded(board):
    """The board as the library has read and written it again."""
    plugins, models = _library()
    plugins.register_default_plugins()
    encoder = import_module("grafana_foundation_sdk.cog.encoder")
    return json.loads(encoder.JSONEncoder(sort_keys=True, indent=2).encode(models.Dashboard.from_json(board)))


def lost(ours, theirs, path=""):
    """Paths of what is in ours and not, or different, in theirs."""
    if isinstance(ours, dict):
        if not isinstance(theirs, dict):
            return [path]
        found = []
        for key, value in ours.items():
            below = f"{path}.{key}".lstrip(".")
            if key not in theirs:
                found += [] if value in ([], {}, None, False, "") else [below]
            else:
                found += lost(value, theirs[key], below)
        return found
    if isinstance(ours, list):
        if not isinstance(theirs, list) or len(ours) != len(theirs):
            return [path]
        return [each for mine, other in zip(ours, theirs, strict=True) for each in lost(mine, other, f"{path}[]")]
    return [] if ours == theirs else [f"{path}: {ours!r} became {theirs!r}"]


@cache
def units():
    """Every unit that Grafana can show."""
    module = import_module("grafana_foundation_sdk.models.units")
    return {getattr(module, name) for name in dir(module) if re.fullmatch(r"[A-Z]\w*", name) and isinstance(getattr(module, name), str)}
