"""The Chaos Toolkit drives somaresil: actions, probes, a safety control, and fault plans in its experiment format.

``pip install "somaresil[chaostoolkit]"``; ``chaos discover --no-install somaresil`` lists the activities.
"""

from __future__ import annotations

import inspect
import types
import typing
from importlib import import_module
from typing import TYPE_CHECKING, Any

from somaresil._version import __version__
from somaresil.integrations.chaostoolkit._exchange import (
    ToolkitExperiment,
    ToolkitVerdict,
    from_chaostoolkit,
    probe,
    run,
    template,
    to_chaostoolkit,
    verdict_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ToolkitExperiment",
    "ToolkitVerdict",
    "discover",
    "from_chaostoolkit",
    "probe",
    "run",
    "template",
    "to_chaostoolkit",
    "verdict_of",
]

_PORTABLE: Mapping[Any, str] = {str: "string", float: "number", int: "integer", bool: "boolean", dict: "mapping", list: "list"}


def discover(discover_system: bool = True) -> dict[str, Any]:  # noqa: ARG001, FBT001, FBT002 - as the toolkit calls it
    """What ``chaos discover`` shows: every action and probe, with its arguments."""
    from chaoslib.discovery.discover import discover_actions, discover_probes, initialize_discovery_result

    found: dict[str, Any] = dict(initialize_discovery_result("somaresil", __version__, "somaresil"))
    for look, name in ((discover_actions, f"{__name__}.actions"), (discover_probes, f"{__name__}.probes")):
        module = import_module(name)
        listed: list[Any] = list(look(name))
        for activity in listed:
            # It reads annotations as they stand, which are text here.
            signature = inspect.signature(getattr(module, activity["name"]), eval_str=True)
            for argument in activity["arguments"]:
                argument["type"] = _portable(signature.parameters[argument["name"]].annotation)
            activity["return_type"] = _portable(signature.return_annotation)
            found["activities"].append(activity)
    return found


def _portable(annotation: Any) -> str:
    if isinstance(annotation, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    return _PORTABLE.get(typing.get_origin(annotation) or annotation, "object")
