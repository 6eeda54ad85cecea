"""Pieces of OpenAPI documents that the apps of ours have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROBLEMS", "SAYS", "answers", "as_json", "object_of", "ref"]

SAYS: Final = {
    400: "What was sent is no JSON that everybody reads alike",
    403: "It comes from a page of another site",
    404: "There is no such thing. Who is not known gets this for everything, as plain text",
    405: "Not this method",
    408: "The body came too slowly",
    409: "What was sent is right, and is not allowed here or now",
    413: "More than 65536 bytes",
    415: "No JSON, or an encoded body",
    422: "What was sent is wrong; nothing was done",
    429: "Too many of them in too short a time",
    503: "Not now",
}
"""What a status says, unless an app says something else."""

_TEXT: Final[dict[str, Any]] = {"type": "string"}


def object_of(**properties: Any) -> dict[str, Any]:
    """An object that has these members, and no others."""
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


def ref(name: str) -> dict[str, Any]:
    """What the document describes under that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def as_json(schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    """A body of that form."""
    return {kind: {"schema": schema}}


def answers(good: int, says: str, schema: dict[str, Any], *bad: int, words: Mapping[int, str] = SAYS, kind: str = "") -> dict[str, Any]:
    """The answer that is hoped for, of type ``kind``, and the others: 404 and 405 always, as problems."""
    found: dict[str, Any] = {str(good): {"description": says, "content": as_json(schema, kind or "application/json")}}
    for status in (404, 405, *bad):
        content = as_json(ref("Problem"), "application/problem+json")
        if status == 404:  # noqa: PLR2004
            content |= as_json(_TEXT, "text/plain")
        found[str(status)] = {"description": words[status], "content": content}
    return dict(sorted(found.items()))


PROBLEMS: Final[dict[str, Any]] = {
    "Flaw": object_of(path=_TEXT, value=_TEXT, allowed=_TEXT, hint=_TEXT),
    "Problem": {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "problems": {"type": "array", "items": ref("Flaw")},
        },
        "additionalProperties": False,
    },
}
"""The forms that every document needs."""
