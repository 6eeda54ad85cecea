"""The OpenAPI document of the dashboard: what its JSON is asked for and what is answered."""

from __future__ import annotations

from typing import Any, Final

from somaresil.config import LONGEST_NAME
from somaresil.dashboard.commands import BREAKER_ACTS, CANARY_ACTS
from somaresil.mounted.openapi import PROBLEMS, SAYS, answers, as_json, object_of, ref
from somaresil.mounted.wire import LONGEST_REASON

__all__ = ["document"]

_WORDS: Final = {
    **SAYS,
    400: "A query, a header or a body that is not understood",
    403: "It may not be done by whoever asks, comes from a page of another site, or has no token that is good",
    409: "Nobody has done it: the detail says why, and each source of its own",
    503: "As many look already as may",
}
_TEXT: Final[dict[str, Any]] = {"type": "string"}
_NULLABLE: Final[dict[str, Any]] = {"type": ["string", "null"]}
_NAMED: Final[dict[str, Any]] = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}
_DOING: Final = (400, 403, 408, 409, 413, 415, 422)


def _parameter(name: str, where: str, schema: dict[str, Any], *, required: bool, says: str) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "schema": schema, "description": says}


_TOKEN: Final = _parameter("x-somaresil-csrf", "header", _TEXT, required=True, says="What api/session has told")
_ONCE: Final = _parameter(
    "idempotency-key",
    "header",
    {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,100}$"},
    required=False,
    says="Requests of one person with the same key are one: what it came to is answered again",
)
_HEADERS: Final = [_TOKEN, _ONCE]
_NAME: Final = _parameter("name", "path", _NAMED, required=True, says="As it is registered")


def _act(acts: tuple[str, ...]) -> dict[str, Any]:
    return _parameter("act", "path", {"type": "string", "enum": list(acts)}, required=True, says="What to do")


def _get(identity: str, summary: str, schema: dict[str, Any], *bad: int, **more: Any) -> dict[str, Any]:
    return {"get": {"operationId": identity, "summary": summary, "responses": answers(200, summary, schema, *bad, words=_WORDS), **more}}


def _post(identity: str, summary: str, body: str = "", **more: Any) -> dict[str, Any]:
    """``body``: the name of its form; empty: there need be none."""
    wanted = {"required": bool(body), "content": as_json(ref(body) if body else {"type": "object", "additionalProperties": False})}
    done = answers(200, "It was done by at least one process", ref("Done"), *_DOING, words=_WORDS)
    done["409"]["content"] = as_json(ref("NotDone"), "application/problem+json")
    return {"post": {"operationId": identity, "summary": summary, "requestBody": wanted, "responses": done, "parameters": _HEADERS, **more}}


def document(root: str) -> dict[str, Any]:
    """What the app understands and what it answers, below ``root``."""
    source = {
        "type": "object",
        "required": ["name", "done", "problem"],
        "properties": {"name": _TEXT, "done": {"type": "boolean"}, "problem": _NULLABLE},
    }
    done = {"done": {"type": "boolean", "description": "Whether every process has done it"}, "sources": {"type": "array", "items": source}}
    queries = [
        _parameter("after", "query", _TEXT, required=False, says="Only what came after this id"),
        _parameter("kind", "query", _TEXT, required=False, says="Only events of this kind"),
        _parameter("about", "query", _TEXT, required=False, says="Only what is about this"),
        _parameter("most", "query", {"type": "integer", "minimum": 1, "maximum": 1_000}, required=False, says="So many at most"),
    ]
    stream = {
        "operationId": "showStream",
        "summary": "Pictures and events as they come",
        "responses": answers(200, "A stream of server-sent events", _TEXT, 503, words=_WORDS, kind="text/event-stream"),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "somaresil dashboard",
            "version": "1",
            "description": "What a service and all its workers do. What changes something is a POST with a JSON content type and a token.",
        },
        "servers": [{"url": root or "/"}],
        "security": [{"bearer": []}],
        "paths": {
            "/api/picture": _get("showPicture", "Everything at one moment", ref("Picture")),
            "/api/guards/{name}": _get("showGuard", "One guard", ref("Thing"), parameters=[_NAME]),
            "/api/objectives/{name}": _get("showObjective", "One objective", ref("Thing"), parameters=[_NAME]),
            "/api/canaries/{name}": _get("showCanary", "One canary", ref("Thing"), parameters=[_NAME]),
            "/api/experiments": {
                **_get("showExperiments", "Experiments, what is allowed, and the plans that may be started", {"type": "object"}),
                **_post("startPlan", "Start an approved plan in every worker", "Start"),
            },
            "/api/events": _get("showEvents", "What has happened, newest last", ref("Events"), 400, parameters=queries),
            "/api/session": _get("showSession", "Who asks, and what he may", ref("Session")),
            "/api/stream": {"get": stream},
            "/api/stop": _post("stopAll", "The kill switch. It needs no token, and its body is not read"),
            "/api/engage": _post("engage", "The safety lever: end everything, and let nothing start", "Reason"),
            "/api/disengage": _post("disengage", "Let experiments start again", "Reason"),
            "/api/experiments/{name}/stop": _post("stopExperiment", "End one experiment", parameters=[_NAME, *_HEADERS]),
            "/api/breakers/{name}/{act}": _post("moveBreaker", "Move a breaker", parameters=[_NAME, _act(BREAKER_ACTS), *_HEADERS]),
            "/api/canaries/{name}/{act}": _post("moveCanary", "Move a canary", "Reason", parameters=[_NAME, _act(CANARY_ACTS), *_HEADERS]),
            "/api/openapi.json": _get("showDocument", "This document", {"type": "object"}),
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                **PROBLEMS,
                "Picture": {"type": "object", "required": ["version", "service", "at", "sources", "guards", "plans"]},
                "Thing": {"type": "object", "required": ["name"]},
                "Events": {
                    "type": "object",
                    "required": ["events", "next", "lost"],
                    "properties": {"events": {"type": "array"}, "lost": {"type": "integer", "minimum": 0}},
                },
                "Session": object_of(actor=_TEXT, csrf=_NULLABLE, may={"type": "array", "items": _TEXT}),
                "Start": object_of(plan=_NAMED),
                "Reason": {
                    "type": "object",
                    "properties": {"reason": {"type": "string", "maxLength": LONGEST_REASON}},
                    "additionalProperties": False,
                },
                "Done": {"type": "object", "required": ["done", "sources"], "properties": done},
                "NotDone": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT, **done},
                },
            },
        },
    }
