"""What log lines are told about where they were written: trace, request, guarded call, experiment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import InjectedFault
from somaresil.eventtext import harmless
from somaresil.logcontext import current_call, current_request

if TYPE_CHECKING:
    from somaresil.logcontext import RequestAround

__all__ = ["NOTHING", "experiment_of", "fields", "header_name", "trace_ids"]

LONGEST_ID: Final = 128
"""Characters of a request id: whoever sends a request chooses it."""
_CAUSES: Final = 8
NOTHING: Final[dict[str, str | int]] = {
    "trace_id": "",
    "span_id": "",
    "somaresil_guard": "",
    "somaresil_attempt": 0,
    "somaresil_experiment": "",
    "http_request_method": "",
    "http_route": "",
    "request_id": "",
}
"""The fields, with what they are where nothing is known: texts and numbers, for exporters take nothing else."""


def trace_ids() -> tuple[str, str]:
    """Ids of the current span of OpenTelemetry in hexadecimal, whether it is sampled or not; empty texts: there is none.

    OpenTelemetry is not imported for it: where nobody else has done so, nobody has begun a span.
    """
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return "", ""
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return "", ""
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def fields(request_id: bytes | None, error: BaseException | None = None) -> dict[str, str | int]:
    """What is known here and now; ``request_id`` is the header that a request has its id in, ``error`` what the line is about."""
    found = dict(NOTHING)
    found["trace_id"], found["span_id"] = trace_ids()
    call = current_call()
    if call is not None:
        found["somaresil_guard"], found["somaresil_attempt"], found["somaresil_experiment"] = call.guard, call.attempt, call.experiment
    request = current_request()
    if request is not None:
        found["http_request_method"], found["http_route"] = harmless(request.method, 20), harmless(request.route)
        if request_id is not None:
            found["request_id"] = _id_of(request, request_id)
        found["somaresil_experiment"] = found["somaresil_experiment"] or request.experiment
    if error is not None and not found["somaresil_experiment"]:
        found["somaresil_experiment"] = experiment_of(error)
    return found


def experiment_of(error: BaseException) -> str:
    """The experiment that has raised this error, or one that led to it; an empty text: none."""
    cause: BaseException | None = error
    for _ in range(_CAUSES):
        if cause is None:
            break
        if isinstance(cause, InjectedFault):
            return harmless(cause.experiment)
        cause = cause.__cause__ or cause.__context__
    return ""


def header_name(given: object) -> bytes | None:
    """A name of a header as ASGI has it; None for what is none."""
    if not isinstance(given, str) or not given or not given.replace("-", "").replace("_", "").isalnum() or not given.isascii():
        return None
    return given.lower().encode()


def _id_of(request: RequestAround, name: bytes) -> str:
    for header, value in request.headers:
        if header == name:
            return harmless(value.decode("latin-1"), LONGEST_ID)
    return ""
