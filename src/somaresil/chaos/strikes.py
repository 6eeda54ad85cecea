"""What a struck call gets, by the kind of the experiment."""

from __future__ import annotations

import inspect
import json
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.chaos.answers import AnswerFault, LostReply, StaleAnswer, StreamFault
from somaresil.chaos.bodies import BodyFault
from somaresil.chaos.streams import SHAPINGS
from somaresil.chaos.vocabulary import FAULTS, Realm
from somaresil.errors import InjectedAnswer, InjectedFault

if TYPE_CHECKING:
    from somaresil.chaos.run import ExperimentRun
    from somaresil.typing import Aftermath, Call, Instead

__all__ = ["Decision", "Hit", "Reply", "hit_of"]

_TOO_MANY: Final = 429
_BAD_REQUEST: Final = 400
_TOO_LONG: Final = {
    "error": {
        "message": "This model's maximum context length was exceeded (fault injected by a chaos experiment).",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
}
"""As OpenAI says it; Anthropic has the same ``invalid_request_error`` with a message."""


class Decision(NamedTuple):
    """That a call is struck, and by which number of which sequence: whatever else is drawn for it hangs on these."""

    key: str
    number: int


class Reply(NamedTuple):
    """An answer over HTTP in place of the real one."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes | None = None
    """None: a line that says who did it."""
    content_type: bytes = b"text/plain; charset=utf-8"


class Hit(NamedTuple):
    """What a struck call gets."""

    delay: float = 0.0
    error: BaseException | None = None
    reply: Reply | None = None
    """What a struck request is answered."""
    after: Aftermath | None = None
    instead: Instead | None = None
    body: BodyFault | None = None
    """What is done to the body of the response."""

    @property
    def status(self) -> int | None:
        """Status of the reply."""
        return None if self.reply is None else self.reply.status


def hit_of(run: ExperimentRun, component: str, decision: Decision) -> Hit:
    """What a call that was decided to be struck gets."""
    config = run.config
    kind = config.experiment.value
    if kind in SHAPINGS:
        if config.on_http:
            return Hit(body=BodyFault(run, component, decision))
        fault = StreamFault if Realm.STREAM in FAULTS[kind].realms else AnswerFault
        return Hit(after=fault(run, component, decision))
    delay = run.delay(decision)
    if kind == "lost_reply":
        return Hit(after=LostReply(run, component, delay))
    if kind == "stale_result":
        return Hit(after=StaleAnswer(run, component, run.kept))
    if kind == "fake_result":
        return Hit(instead=_Fake(config.result))
    if kind == "error":
        return Hit(delay, reply=Reply(config.status)) if config.on_http else Hit(delay, config.make_error(component, run.id))
    if kind in _REPLIES:
        reply, error = _REPLIES[kind](run, component)
        return Hit(delay, reply=reply) if config.on_http else Hit(delay, instead=_Answered(reply, error))
    return Hit(delay)


class _Fake:
    """Answers with a value, or what a function makes of the arguments, in the way of the call."""

    __slots__ = ("_result",)

    def __init__(self, result: Any) -> None:
        self._result = result

    async def __call__(self, call: Call) -> Any:
        result = self._result
        return await call.invoke(result if callable(result) and not inspect.isclass(result) else lambda *_, **__: result)


class _Answered:
    """Answers as the server of a client would; where the guard is of no HTTP client, raises."""

    __slots__ = ("_error", "_reply")

    def __init__(self, reply: Reply, error: BaseException) -> None:
        self._reply = reply
        self._error = error

    async def __call__(self, call: Call) -> Any:
        answer = getattr(getattr(call, "exchange", None), "answered", None)
        if answer is None:
            raise self._error
        reply = self._reply
        headers = [(name.decode(), value.decode()) for name, value in (*reply.headers, (b"content-type", reply.content_type))]
        return await answer(reply.status, headers, reply.body or b"")


def _status(run: ExperimentRun, component: str) -> tuple[Reply, BaseException]:
    status = run.config.status
    return Reply(status), InjectedAnswer(component, run.id, status)


def _rate_limit(run: ExperimentRun, component: str) -> tuple[Reply, BaseException]:
    seconds = float(run.config.retry_after)  # type: ignore[arg-type]
    # Whole seconds, as RFC 9110 has them; the milliseconds beside it are what some model providers send and clients read first.
    headers = ((b"retry-after", str(math.ceil(seconds)).encode()), (b"retry-after-ms", str(round(seconds * 1_000.0)).encode()))
    error = InjectedAnswer(component, run.id, _TOO_MANY, code="rate_limit_exceeded", retry_after=seconds)
    return Reply(_TOO_MANY, headers), _own(run, component, error, retry_after=seconds)


def _context_length(run: ExperimentRun, component: str) -> tuple[Reply, BaseException]:
    error = InjectedAnswer(component, run.id, _BAD_REQUEST, code="context_length_exceeded")
    return Reply(_BAD_REQUEST, (), json.dumps(_TOO_LONG).encode(), b"application/json"), _own(run, component, error)


def _own(run: ExperimentRun, component: str, usual: InjectedFault, **attributes: Any) -> BaseException:
    """The error that the experiment was told to raise, with these attributes; without one the usual."""
    if run.config.error is None:
        return usual
    error = run.config.make_error(component, run.id)
    for name, value in attributes.items():
        try:
            setattr(error, name, value)
        except Exception:  # noqa: BLE001 - a frozen exception says what it says
            break
    return error


_REPLIES: Final = {"http_status": _status, "rate_limit": _rate_limit, "context_length": _context_length}
