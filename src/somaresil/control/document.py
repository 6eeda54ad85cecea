"""The control app described as OpenAPI 3.1. Written by hand; what a window of a plan may say is read from its fields."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.config import BLAST_RADII
from somaresil.chaos.plan import LONGEST, MOST_WINDOWS, VERSION, FaultWindow
from somaresil.config import LONGEST_NAME
from somaresil.mounted.openapi import PROBLEMS, answers, as_json, object_of, ref
from somaresil.mounted.wire import LONGEST_REASON

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["document"]

_NUMBER: Final[dict[str, Any]] = {"type": "number"}
_TEXT: Final[dict[str, Any]] = {"type": "string"}
_TEXT_OR_NULL: Final[dict[str, Any]] = {"type": ["string", "null"]}
_EVERYWHERE: Final[dict[str, Any]] = {"type": "boolean", "description": "Whether the other processes of the service were told as well"}
_COUNT: Final[dict[str, Any]] = {"type": "integer", "minimum": 0}

_KNOWN: Final[dict[str, dict[str, Any]]] = {
    "target": {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST_NAME,
        "description": "A guard, a pattern over guards, or http:/path/*",
    },
    "start": {"type": "number", "minimum": 0, "maximum": LONGEST, "default": 0, "description": "Seconds from now"},
    "duration": {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST, "description": "Seconds"},
    "rate": {"type": "number", "minimum": 0, "maximum": 1, "description": "Share of the calls that are struck"},
    "delay": {"type": "number", "minimum": 0, "description": "Seconds"},
    "error": {"type": ["string", "null"], "description": "Name of an error that the service allows"},
    "status": {"type": "integer", "minimum": 400, "maximum": 599},
    "after_items": {"type": "integer", "minimum": 0, "maximum": 1_000_000},
    "calls": {"type": ["array", "null"], "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 1_000},
    "path": {"type": ["string", "null"], "minLength": 1, "maxLength": 1_000},
    "blast_radius": {"type": "string", "enum": list(BLAST_RADII), "description": "How much of a fleet that is told the same takes part"},
    "candidates": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME}},
}
"""What the fields of a window are. One that is not here is described by its annotation."""
_ANNOTATED: Final[dict[str, Any]] = {"float": "number", "int": "integer", "str": "string", "bool": "boolean", "None": "null"}


def _window(kinds: Sequence[str]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for field in dataclasses.fields(FaultWindow):
        properties[field.name] = (
            {"type": "string", "enum": list(kinds)} if field.name == "kind" else _KNOWN.get(field.name) or _guess(field)
        )
    return {
        "type": "object",
        "required": ["target", "kind", "duration"],
        "properties": properties,
        "additionalProperties": False,
        "description": "A window of a fault plan. What does not go together is refused with 422.",
    }


def _guess(field: dataclasses.Field[Any]) -> dict[str, Any]:
    types = [_ANNOTATED.get(part.strip()) for part in str(field.type).split("|")]
    return {"type": types} if all(types) else {}


def _schemas(kinds: Sequence[str]) -> dict[str, Any]:
    listed = {"type": "array", "items": ref("Experiment")}
    return {
        "FaultWindow": _window(kinds),
        "ChaosPlan": {
            "type": "object",
            "required": ["somaresil_plan", "windows"],
            "properties": {
                "somaresil_plan": {"type": "integer", "const": VERSION},
                "seed": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
                "scenario": {"type": ["string", "null"]},
                "windows": {"type": "array", "minItems": 1, "maxItems": MOST_WINDOWS, "items": ref("PlannedWindow")},
            },
            "additionalProperties": False,
        },
        "PlannedWindow": {**_window(kinds), "required": ["target", "kind", "start", "duration"]},
        "Experiment": object_of(
            id=_TEXT,
            kind=_TEXT,
            target=_TEXT,
            rate=_NUMBER,
            duration={**_NUMBER, "description": "Seconds of its lease"},
            options={"type": "object"},
            state={"type": "string", "enum": ["scheduled", "running", "ended"]},
            starts_at={**_NUMBER, "description": "Seconds since the epoch"},
            remaining={**_NUMBER, "minimum": 0, "description": "Seconds until it ends by itself"},
            end_reason=_TEXT_OR_NULL,
            injected=_COUNT,
            struck={"type": "object", "additionalProperties": _COUNT},
            delaying=_COUNT,
            selected={"type": "boolean", "description": "Whether this process lies inside the blast radius"},
            by={**_TEXT_OR_NULL, "description": "Who started it here"},
        ),
        "Experiments": object_of(running=_COUNT, experiments=listed),
        "Started": {
            "type": "object",
            "required": ["ids", "seed", "experiments"],
            "properties": {"id": _TEXT, "ids": {"type": "array", "items": _TEXT}, "seed": _COUNT, "experiments": listed},
            "additionalProperties": False,
        },
        "Stopped": object_of(stopped={"type": "array", "items": _TEXT}, everywhere=_EVERYWHERE, reason=_TEXT_OR_NULL),
        "Lever": object_of(
            engaged={**_TEXT_OR_NULL, "description": "Who has engaged it, and why"}, everywhere=_EVERYWHERE, reason=_TEXT_OR_NULL
        ),
        "Reason": {
            "type": "object",
            "properties": {"reason": {"type": "string", "maxLength": LONGEST_REASON}},
            "additionalProperties": False,
        },
        "Marker": {
            "type": "object",
            "required": ["version"],
            "properties": {
                "version": {"type": "string", "minLength": 1, "maxLength": 200, "description": "Printable"},
                "at": {
                    "type": ["number", "null"],
                    "minimum": 0,
                    "description": "Seconds since the epoch, at most an hour from now; null: now",
                },
                "commit": {"type": ["string", "null"], "minLength": 1, "maxLength": 200},
                "ok": {"type": ["boolean", "null"], "description": "false: it is known to have failed"},
            },
            "additionalProperties": False,
        },
        "Deployment": object_of(version=_TEXT, at=_NUMBER, commit=_TEXT_OR_NULL, ok={"type": ["boolean", "null"]}),
        "Status": object_of(
            service=_TEXT,
            instance=_TEXT,
            zone=_TEXT_OR_NULL,
            region=_TEXT_OR_NULL,
            environment=_TEXT_OR_NULL,
            process=_COUNT,
            allowed={"type": "boolean", "description": "Whether an experiment may be started"},
            problems={"type": "array", "items": ref("Flaw")},
            ceilings={"type": ["object", "null"]},
            protected_paths={"type": "array", "items": _TEXT},
            running=_COUNT,
            engaged={**_TEXT_OR_NULL, "description": "Who has engaged the safety lever, and why; null: it is released"},
            switches={"type": "array", "items": _TEXT, "description": "The kill switches that this process obeys"},
            targets={"type": "array", "items": _TEXT, "description": "Names of guards, at most 200"},
            breakers={"type": "object", "additionalProperties": _TEXT, "description": "States by guard"},
            objectives={
                "type": "object",
                "additionalProperties": object_of(burn_rate={"type": ["number", "null"]}, budget_left={"type": ["number", "null"]}),
                "description": "Burn rate of the last hour and the share of the budget that is left; null: no event was seen",
            },
            failed_authentications=_COUNT,
        ),
        **PROBLEMS,
    }


_STOPPING: Final = (400, 403, 408, 413, 415, 422)
_WHY: Final = {"required": False, "content": as_json(ref("Reason"))}
_IDENTITY: Final = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 200}}


def document(root: str, kinds: Sequence[str]) -> dict[str, Any]:
    """What the app understands and what it answers, below ``root``; ``kinds``: the faults that a window may name."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "somaresil chaos control",
            "version": str(VERSION),
            "description": "Experiments of one process; stops and the lever reach all of its service on its host. "
            "What changes something is a POST with a JSON content type.",
        },
        "servers": [{"url": root or "/"}],
        "security": [{"bearer": []}],
        "paths": {
            "/experiments": {
                "get": {
                    "operationId": "listExperiments",
                    "summary": "Experiments that run, that will, and that have ended, the newest first",
                    "responses": answers(200, "Experiments", ref("Experiments")),
                },
                "post": {
                    "operationId": "startExperiments",
                    "summary": "Start a window of a fault plan, or a plan",
                    "requestBody": {"required": True, "content": as_json({"anyOf": [ref("FaultWindow"), ref("ChaosPlan")]})},
                    "responses": answers(201, "Armed; each ends by itself", ref("Started"), 400, 403, 408, 409, 413, 415, 422),
                },
            },
            "/experiments/{id}": {
                "parameters": [_IDENTITY],
                "get": {
                    "operationId": "showExperiment",
                    "summary": "One experiment",
                    "responses": answers(200, "The experiment", ref("Experiment")),
                },
            },
            "/experiments/{id}/stop": {
                "parameters": [_IDENTITY],
                "post": {
                    "operationId": "stopExperiment",
                    "summary": "End an experiment; one that has ended stays as it is",
                    "requestBody": _WHY,
                    "responses": answers(200, "It has ended", ref("Experiment"), *_STOPPING),
                },
            },
            "/check": {
                "post": {
                    "operationId": "checkPlan",
                    "summary": "Whether a fault plan would be armed now; nothing is armed",
                    "requestBody": {"required": True, "content": as_json(ref("ChaosPlan"))},
                    "responses": answers(200, "It would be", object_of(accepted={"const": True}), 400, 403, 408, 409, 413, 415, 422),
                },
            },
            "/deployments": {
                "post": {
                    "operationId": "markDeployment",
                    "summary": "Note that a version was put in service, for listeners, the journal and the monthly report",
                    "requestBody": {"required": True, "content": as_json(ref("Marker"))},
                    "responses": answers(201, "Noted", ref("Deployment"), 400, 403, 408, 413, 415, 422, 429),
                },
            },
            "/stop": {
                "post": {
                    "operationId": "stopAll",
                    "summary": "The kill switch. It has stopped everything before the body is read, which decides nothing",
                    "requestBody": _WHY,
                    "responses": answers(200, "Everything has ended", ref("Stopped"), 403, 415),
                },
            },
            "/engage": {
                "post": {
                    "operationId": "engage",
                    "summary": "The safety lever: end everything, and let nothing start. It is engaged before the body is read",
                    "requestBody": _WHY,
                    "responses": answers(200, "It is engaged", ref("Lever"), 403, 415),
                },
            },
            "/disengage": {
                "post": {
                    "operationId": "disengage",
                    "summary": "Let experiments start again; what was stopped stays stopped",
                    "requestBody": _WHY,
                    "responses": answers(200, "It is released", ref("Lever"), *_STOPPING),
                },
            },
            "/status": {
                "get": {
                    "operationId": "showStatus",
                    "summary": "Where this is, and what may be done here",
                    "responses": answers(200, "The status", ref("Status")),
                },
            },
            "/figures": {
                "get": {
                    "operationId": "showFigures",
                    "summary": "What was counted so far, for game days in other processes",
                    "responses": answers(200, "The figures", object_of(process=_COUNT, figures={"type": "object"})),
                },
            },
            "/capabilities": {
                "get": {
                    "operationId": "showCapabilities",
                    "summary": "Which faults are possible in this process",
                    "responses": answers(200, "What is possible", object_of(capabilities={})),
                },
            },
            "/openapi.json": {
                "get": {
                    "operationId": "showDocument",
                    "summary": "This document",
                    "responses": answers(200, "The document", {"type": "object"}),
                },
            },
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(kinds),
        },
    }
