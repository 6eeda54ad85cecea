"""The verdict app described as OpenAPI 3.1, for whoever builds a client of his own; engines need none of it."""

from __future__ import annotations

from typing import Any, Final

from somaresil._version import __version__
from somaresil.model.rollout import Verdict
from somaresil.mounted.openapi import PROBLEMS, SAYS, answers, as_json, object_of, ref
from somaresil.verdict.flagger import HOOKS

__all__ = ["document"]

_TEXT: Final[dict[str, Any]] = {"type": "string"}
_TEXT_OR_NULL: Final[dict[str, Any]] = {"type": ["string", "null"]}
_NUMBER: Final[dict[str, Any]] = {"type": "number"}
_NUMBER_OR_NULL: Final[dict[str, Any]] = {"type": ["number", "null"]}
_COUNT: Final[dict[str, Any]] = {"type": "integer", "minimum": 0}
_VERDICT: Final[dict[str, Any]] = {"type": "string", "enum": [verdict.value for verdict in Verdict]}
_COUNTS: Final = dict.fromkeys(("candidate_good", "candidate_bad", "control_good", "control_bad"), _COUNT)
_NAME: Final = {"name": "canary", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 120}}
_HOOK: Final = {"name": "hook", "in": "path", "required": True, "schema": {"type": "string", "enum": list(HOOKS)}}
_PLAIN: Final = {"text/plain": {"schema": _TEXT}}

_SCHEMAS: Final[dict[str, Any]] = {
    "Canary": object_of(
        canary=_TEXT,
        version=_TEXT_OR_NULL,
        checksum=_TEXT_OR_NULL,
        phase=_TEXT_OR_NULL,
        weight=_NUMBER_OR_NULL,
        paused={"type": "boolean"},
        leads={"type": "boolean", "description": "Whether this process is the one that decides"},
        baked={**_NUMBER_OR_NULL, "description": "Seconds of the bake that have passed"},
        events={"type": ["integer", "null"]},
        verdict=_VERDICT,
        reason=_TEXT,
        evidence=object_of(worse=_NUMBER_OR_NULL, not_much_worse=_NUMBER_OR_NULL, too_bad=_NUMBER_OR_NULL, **_COUNTS),
        missing={"type": "array", "items": _TEXT, "description": "Pods whose evidence is not there, and why"},
        at={**_NUMBER_OR_NULL, "description": "Seconds since the epoch"},
    ),
    "Argo": object_of(
        data=object_of(
            verdict=_VERDICT,
            reason=_TEXT,
            canary=_TEXT,
            checksum=_TEXT,
            worse=_NUMBER,
            not_much_worse=_NUMBER,
            too_bad=_NUMBER,
            **_COUNTS,
            events=_COUNT,
            missing=_COUNT,
            age={**_NUMBER, "description": "Seconds; -1: there is no evidence yet"},
        )
    ),
    "Flagger": {
        "type": "object",
        "required": ["name", "namespace", "checksum"],
        "properties": {"name": _TEXT, "namespace": _TEXT, "phase": _TEXT, "checksum": _TEXT, "metadata": {"type": "object"}},
    },
    "Vector": {
        "type": "object",
        "required": ["status", "data"],
        "properties": {"status": {"const": "success"}, "data": {"type": "object"}},
    },
    "BadData": object_of(status={"const": "error"}, errorType={"enum": ["bad_data", "internal"]}, error=_TEXT),
    "Build": object_of(status={"const": "success"}, data=object_of(version=_TEXT, application=_TEXT)),
    "Taken": object_of(taken=_TEXT, marks=_COUNT),
    "Reason": {"type": "object", "properties": {"reason": {"type": "string", "maxLength": 200}}, "additionalProperties": False},
    **PROBLEMS,
}
_QUERY: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["query"],
    "properties": {"query": _TEXT, "time": {**_TEXT, "description": "Only now: there is no past here"}},
}


def _stranger(responses: dict[str, Any]) -> dict[str, Any]:
    return {**responses, "401": {"description": "Nobody who is known", "content": _PLAIN}}


def _hook() -> dict[str, Any]:
    found: dict[str, Any] = {
        "200": {"description": "Yes, and why", "content": _PLAIN},
        "409": {"description": "No, and why; also when it is not known, or something is wrong here", "content": _PLAIN},
    }
    for status in (400, 403, 404, 405, 408, 413, 415, 422):
        content = {**_PLAIN, **as_json(ref("Problem"), "application/problem+json")}
        found[str(status)] = {"description": SAYS[status], "content": content}
    return {
        "post": {
            "summary": "A hook of Flagger",
            "requestBody": {"required": True, "content": as_json(ref("Flagger"))},
            "responses": _stranger(found),
        }
    }


def _prometheus() -> dict[str, Any]:
    responses = _stranger(answers(200, "One sample a series, or none when nothing is known", ref("Vector")))
    responses |= {"400": {"description": "Nothing that is answered here", "content": as_json(ref("BadData"))}}
    responses |= {"500": {"description": "A defect: no data", "content": as_json(ref("BadData"))}}
    posted = {**responses, "413": responses["400"], "415": responses["400"], "408": responses["400"]}
    parameters = [{"name": name, "in": "query", "required": name == "query", "schema": _TEXT} for name in ("query", "time")]
    return {
        "get": {"operationId": "query", "summary": "As Prometheus answers", "parameters": parameters, "responses": responses},
        "post": {
            "operationId": "queryByForm",
            "summary": "The same as a form",
            "requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": _QUERY}}},
            "responses": posted,
        },
    }


def document(root: str) -> dict[str, Any]:
    """What the app understands and what it answers, below ``root``."""
    bad = (400, 403, 408, 413, 415, 422)
    evidence = {
        "summary": "What a pod has seen",
        "requestBody": {"required": True, "content": as_json({"type": "object"})},
        "responses": _stranger(answers(200, "Taken", ref("Taken"), *bad, 409)),
    }
    asked = [{"name": name, "in": "query", "schema": _TEXT} for name in ("canary", "checksum")]
    acts = {"type": "string", "enum": ["promote", "rollback", "pause", "resume"]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "somaresil verdicts",
            "version": __version__,
            "description": "What all pods have seen of a canary, in the forms that engines ask for. What is not known is never yes.",
        },
        "servers": [{"url": root or "/"}],
        "security": [{"bearer": []}],
        "paths": {
            "/flagger/{hook}": {"parameters": [_HOOK], **_hook()},
            "/flagger/{canary}/{hook}": {"parameters": [_NAME, _HOOK], **_hook()},
            "/argo/verdict": {
                "get": {
                    "operationId": "argo",
                    "summary": "A body for the conditions of Argo Rollouts; 200 also when nothing is known",
                    "parameters": asked,
                    "responses": _stranger(answers(200, "The verdict", ref("Argo"))),
                }
            },
            "/prom/api/v1/query": _prometheus(),
            "/prom/api/v1/status/buildinfo": {
                "get": {
                    "operationId": "build",
                    "summary": "What answers here",
                    "responses": _stranger(answers(200, "Name and version", ref("Build"))),
                }
            },
            "/judge": {
                "post": {
                    "operationId": "judge",
                    "summary": "Kayenta's remote judge",
                    "requestBody": {"required": True, "content": as_json({"type": "object"})},
                    "responses": _stranger(answers(200, "The judgement", {"type": "object"}, 400, 408, 413, 415, 503)),
                }
            },
            "/evidence": {"post": {**evidence, "operationId": "tell"}},
            "/evidence/{canary}": {"parameters": [_NAME], "post": {**evidence, "operationId": "tellOne"}},
            "/canaries": {
                "get": {
                    "operationId": "listCanaries",
                    "summary": "How they stand",
                    "responses": _stranger(answers(200, "All of them", object_of(canaries={"type": "array", "items": ref("Canary")}))),
                }
            },
            "/canaries/{canary}": {
                "parameters": [_NAME],
                "get": {
                    "operationId": "showCanary",
                    "summary": "How one stands",
                    "responses": _stranger(answers(200, "The canary", ref("Canary"))),
                },
            },
            "/canaries/{canary}/{action}": {
                "parameters": [_NAME, {"name": "action", "in": "path", "required": True, "schema": acts}],
                "post": {
                    "operationId": "act",
                    "summary": "Somebody's word against the machine's",
                    "requestBody": {"required": False, "content": as_json(ref("Reason"))},
                    "responses": _stranger(answers(200, "How it stands now", ref("Canary"), *bad, 409)),
                },
            },
        },
        "components": {"schemas": _SCHEMAS, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }
