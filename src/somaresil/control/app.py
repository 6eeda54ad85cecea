"""The control app itself: pure ASGI, no framework.

The order in which a request is looked at is the order in which nothing is given away: who it is, where it goes, what it wants, where it
comes from, what it says. Whoever is not known gets the same answer to everything. What changes something is a POST that no page of another
site can make a browser send: it needs a JSON content type or a header of ours, both of which make browsers ask first, and they are never
answered; and an ``Origin`` of this site or of a list.
"""

from __future__ import annotations

import math
import os
import re
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.config import AVAILABLE
from somaresil.chaos.plan import VERSION, ChaosPlan
from somaresil.chaos.vetting import MEET
from somaresil.config import Checker, did_you_mean
from somaresil.control.document import document
from somaresil.errors import ConfigurationError, Problem
from somaresil.mounted.request import Doorkeeper, Request, check_authenticator, live
from somaresil.mounted.routing import Roots, resource
from somaresil.mounted.sender import Senders
from somaresil.mounted.views import capabilities_of, experiment, lever, status
from somaresil.mounted.wire import Answer, Refused, problem, reason_of
from somaresil.slo.journal import deployment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    from somaresil.chaos.plan import ErrorMakers
    from somaresil.chaos.run import ExperimentRun
    from somaresil.mounted.auth import Authenticator
    from somaresil.resilience import Resilience
    from somaresil.slo.records import Deployment

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["HEADER", "ControlApp", "chaos_control"]

HEADER: Final = "x-somaresil-control"
"""A request header, with any value, that stands for a JSON content type where there is no body."""
_MOST_STARTERS: Final = 256
_MOST_DEPLOYMENTS, _IN_SECONDS = 60, 60.0
"""More markers than that in so many seconds come from a loop, and no report could be read any more."""
_MARKER: Final = ("version", "at", "commit", "ok")
_OF_THE_PROCESS: Final = frozenset({"opt_in", "environment", "experiments", "lever", "switch", "SOMARESIL_CHAOS"})
"""Problems that are not about what was sent: the same request may be accepted later."""

_ROUTES: Final[tuple[tuple[re.Pattern[str], str, str], ...]] = (
    (re.compile(r"/experiments"), "GET", "list_experiments"),
    (re.compile(r"/experiments"), "POST", "start_experiments"),
    (re.compile(r"/experiments/([^/]{1,200})"), "GET", "show_experiment"),
    (re.compile(r"/experiments/([^/]{1,200})/stop"), "POST", "stop_experiment"),
    (re.compile(r"/check"), "POST", "check_plan"),
    (re.compile(r"/deployments"), "POST", "mark_deployment"),
    (re.compile(r"/stop"), "POST", "stop_all"),
    (re.compile(r"/engage"), "POST", "engage"),
    (re.compile(r"/disengage"), "POST", "disengage"),
    (re.compile(r"/status"), "GET", "show_status"),
    (re.compile(r"/figures"), "GET", "show_figures"),
    (re.compile(r"/capabilities"), "GET", "show_capabilities"),
    (re.compile(r"/openapi\.json"), "GET", "show_document"),
)


def chaos_control(
    resilience: Resilience,
    *,
    auth: Authenticator,
    at: str = "/_soma/chaos",
    origins: Iterable[str] = (),
    errors: ErrorMakers | None = None,
    figures: Callable[[], Awaitable[Any]] | None = None,
) -> ControlApp:
    """An ASGI application that starts, shows and ends experiments of this process, and takes deploy markers. Mount it in yours.

    ``auth`` says who sent a request: a function of the ASGI scope that gives a name or None, also a coroutine function;
    :class:`~somaresil.mounted.auth.BearerToken` is ours. There is no app without one. ``at`` is where it is mounted: experiments on
    requests leave what is below it alone. ``origins`` are those of other sites whose pages may use it, such as ``https://ops.example``.
    ``errors`` adds to the errors that a request may name, as in :meth:`~somaresil.chaos.engine.ChaosEngine.arm_plan`. ``figures`` tells
    game days in other processes what is counted: ``somaresil.gameday.figures_of(resilience)``; without it they cannot be played here.

    It allows nothing by itself: experiments need the same permission as in code, and stay below the same ceilings.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    return ControlApp(resilience, auth=auth, at=at, origins=origins, errors=errors, figures=figures)


class ControlApp:
    """See :func:`chaos_control`."""

    def __init__(
        self,
        resilience: Resilience,
        *,
        auth: Authenticator,
        at: str,
        origins: Iterable[str],
        errors: ErrorMakers | None,
        figures: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        """Check everything."""
        check = Checker("chaos_control")
        hint = "whoever can reach an open control app can stop the service: BearerToken(secret), or a function of the scope"
        check_authenticator(check, "auth", auth, hint)
        self._roots = Roots(at, resilience.chaos, check)
        self._senders = Senders(origins, check)
        if errors is not None and not hasattr(errors, "keys"):
            check.problem("errors", errors, "names of errors and what they mean, or None")
        if figures is not None and not callable(figures):
            check.problem("figures", figures, "a coroutine function, or None", "figures_of(resilience)")
        check.finish()
        self._resilience = resilience
        self._door = Doorkeeper(auth, "control app", resilience.clock, resilience.listeners)
        self._errors = errors
        self._figures = figures
        self._roots.protect(at)
        self._starters: OrderedDict[str, str] = OrderedDict()
        self._deployments: deque[float] = deque(maxlen=_MOST_DEPLOYMENTS)
        self._seeds = resilience.chance.sequence("control.seed")

    @property
    def denied(self) -> int:
        """How many requests came from nobody who is known."""
        return self._door.denied

    def __repr__(self) -> str:
        """Which process it controls."""
        return f"<ControlApp of {self._resilience.service!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            answer = await self._answer(scope, receive)
            for message in answer.messages(head=scope["method"] == "HEAD"):
                await send(message)
        elif scope["type"] == "websocket":
            # There is none here, for anybody.
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "lifespan":
            await live(receive, send)

    # -- who ----------------------------------------------------------------------------------------------------------------------------

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        try:
            actor = await self._door.who(scope)
            if actor is None:
                return Answer(404, "Not Found")
            return await self._authorized(Request(scope, receive, actor))
        except Refused as refused:
            return refused.answer
        except Exception as defect:  # noqa: BLE001 - never into the server: what it would say to that is not ours
            self._resilience.listeners.defect("control app", defect, self._resilience.clock.time(), "the request was answered with 500")
            return problem(500, "a defect of the control app; it was reported, and nothing is known about what was done")

    # -- what -----------------------------------------------------------------------------------------------------------------------------

    async def _authorized(self, request: Request) -> Answer:
        self._roots.protect(request.root)
        method, name, parts = resource(_ROUTES, request)
        if method == "POST":
            self._senders.check(request)
        answer: Answer = await getattr(self, name)(request, *parts)
        return answer

    async def _told(self, request: Request) -> Any:
        """The JSON of the body; None: there is none."""
        return await request.told(self._resilience.clock, HEADER)

    # -- the resources --------------------------------------------------------------------------------------------------------------------

    async def list_experiments(self, _: Request) -> Answer:
        """``GET /experiments``."""
        runs = self._resilience.chaos.history
        return Answer(200, {"running": len(self._resilience.chaos.runs), "experiments": [self._view(run) for run in reversed(runs)]})

    async def start_experiments(self, request: Request) -> Answer:
        """``POST /experiments``: a window of a plan, or a plan."""
        data = await request.json(self._resilience.clock)
        engine = self._resilience.chaos
        single = not (isinstance(data, dict) and ("windows" in data or "somaresil_plan" in data))
        try:
            if single:
                if not isinstance(data, dict):
                    raise Refused(problem(422, "nothing was armed", [Problem("", data, "a window or a plan, as an object")]))
                plan = ChaosPlan.from_dict({"somaresil_plan": VERSION, "seed": self._seed(), "windows": [{"start": 0, **data}]})
            else:
                plan = ChaosPlan.from_dict(data)
            if not plan.windows:
                raise Refused(problem(422, "nothing was armed", [Problem("plan.windows", [], "at least one window")]))
            plan_run = engine.arm_plan(plan, errors=self._errors, actor=request.actor)
        except ConfigurationError as wrong:
            found = [_renamed(each, single=single) for each in wrong.problems]
            conflict = all(each.path in _OF_THE_PROCESS or each.hint == MEET for each in found)
            raise Refused(problem(409 if conflict else 422, "nothing was armed", found)) from None
        runs: tuple[ExperimentRun, ...] = plan_run.runs
        for run in runs:
            self._starters[run.id] = request.actor
        while len(self._starters) > _MOST_STARTERS:
            self._starters.popitem(last=False)
        ids = [run.id for run in runs]
        told: dict[str, Any] = {"ids": ids, "seed": plan.seed, "experiments": [self._view(run) for run in runs]}
        where = [(b"location", f"{request.root}/experiments/{ids[0]}".encode())] if single else []
        return Answer(201, {"id": ids[0], **told} if single else told, headers=where)

    async def check_plan(self, request: Request) -> Answer:
        """``POST /check``: whether a plan would be armed now. It arms nothing."""
        data = await request.json(self._resilience.clock)
        try:
            self._resilience.chaos.check_plan(ChaosPlan.from_dict(data), errors=self._errors)
        except ConfigurationError as wrong:
            found = [_renamed(each, single=False) for each in wrong.problems]
            conflict = all(each.path in _OF_THE_PROCESS or each.hint == MEET for each in found)
            raise Refused(problem(409 if conflict else 422, "it would not be armed", found)) from None
        return Answer(200, {"accepted": True})

    async def mark_deployment(self, request: Request) -> Answer:
        """``POST /deployments``: a version was put in service. It needs no permission for chaos, and changes nothing but what is noted."""
        data = await request.json(self._resilience.clock)
        now = self._resilience.clock.monotonic()
        full = len(self._deployments) == _MOST_DEPLOYMENTS
        if full and (wait := self._deployments[0] + _IN_SECONDS - now) > 0:
            after = [(b"retry-after", str(math.ceil(wait)).encode())]
            raise Refused(problem(429, f"{_MOST_DEPLOYMENTS} deployments were noted within {_IN_SECONDS:g} s", headers=after))
        noted = _marker(data, self._resilience.service, self._resilience.clock.time())
        self._deployments.append(now)
        self._resilience.deployed(noted.version, at=noted.began, commit=noted.commit, ok=noted.ok)
        self._resilience.chaos.audit.note("deployed", noted.version, who=request.actor)
        return Answer(201, {"version": noted.version, "at": noted.began, "commit": noted.commit, "ok": noted.ok})

    async def show_experiment(self, _: Request, identity: str) -> Answer:
        """``GET /experiments/{id}``."""
        return Answer(200, self._view(self._run(identity)))

    async def stop_experiment(self, request: Request, identity: str) -> Answer:
        """``POST /experiments/{id}/stop``. One that has ended stays as it is."""
        reason = reason_of(await self._told(request), "nothing was stopped")
        run = self._run(identity)
        self._resilience.chaos.stop(run, actor=request.actor)
        if reason:
            self._resilience.chaos.audit.note("stop", reason, experiment=run.id, who=request.actor)
        return Answer(200, self._view(run))

    async def stop_all(self, request: Request) -> Answer:
        """``POST /stop``: the kill switch. It has stopped everything before the body is read: that says why, and decides nothing."""
        request.check_type(HEADER)
        stopped = [run.id for run in self._resilience.chaos.history if not run.over]
        told = self._resilience.chaos.stop_all(actor=request.actor)
        try:
            reason = reason_of(await self._told(request), "nothing was stopped")
        except Refused:
            reason = None
        if reason:
            self._resilience.chaos.audit.note("stop_all", reason, who=request.actor)
        return Answer(200, {"stopped": stopped, "everywhere": told, "reason": reason})

    async def engage(self, request: Request) -> Answer:
        """``POST /engage``: end everything, and let nothing start, in every process of the service on this host. Read as ``/stop`` is."""
        return await self._move(request, engaged=True)

    async def disengage(self, request: Request) -> Answer:
        """``POST /disengage``: let experiments start again."""
        return await self._move(request, engaged=False)

    async def _move(self, request: Request, *, engaged: bool) -> Answer:
        request.check_type(HEADER)
        chaos = self._resilience.chaos
        # It is engaged at once, whatever the body says.
        told = engaged and chaos.engage(actor=request.actor)
        try:
            reason = reason_of(await self._told(request), "nothing was stopped")
        except Refused:
            if not engaged:
                raise
            reason = None
        if not engaged:
            told = chaos.disengage(reason or "", actor=request.actor)
        elif reason:
            told = chaos.engage(reason, actor=request.actor)
        return Answer(200, {"engaged": lever(self._resilience), "everywhere": told, "reason": reason})

    async def show_status(self, _: Request) -> Answer:
        """``GET /status``."""
        return Answer(200, {**status(self._resilience), "failed_authentications": self.denied})

    async def show_figures(self, _: Request) -> Answer:
        """``GET /figures``."""
        if self._figures is None:
            return problem(404, "figures are not told here: chaos_control(figures=)")
        return Answer(200, {"process": os.getpid(), "figures": await self._figures()})

    async def show_capabilities(self, _: Request) -> Answer:
        """``GET /capabilities``."""
        found = capabilities_of(self._resilience)
        if found is None:
            return problem(404, "this version does not say what it can do here")
        return Answer(200, {"capabilities": found})

    async def show_document(self, request: Request) -> Answer:
        """``GET /openapi.json``."""
        return Answer(200, document(request.root, tuple(kind.value for kind in AVAILABLE)))

    # -- inside ---------------------------------------------------------------------------------------------------------------------------

    def _run(self, identity: str) -> ExperimentRun:
        for run in self._resilience.chaos.history:
            if run.id == identity:
                return run
        raise Refused(problem(404, "there is no such experiment, or it has been forgotten"))

    def _view(self, run: ExperimentRun) -> dict[str, Any]:
        return experiment(run, self._starters.get(run.id))

    def _seed(self) -> int:
        """Another one for each window: two of the same kind must not strike the same calls."""
        return int(self._seeds.next() * 2**53)


def _marker(data: Any, service: str, now: float) -> Deployment:
    """A deployment as it was sent. Raises :class:`Refused` with every problem."""
    if not isinstance(data, dict):
        raise Refused(problem(422, "nothing was noted", [Problem("", data, "an object with a version")]))
    found = [Problem(name, data[name], " | ".join(_MARKER), did_you_mean(name, _MARKER) or "") for name in data if name not in _MARKER]
    try:
        noted = deployment(service, data.get("version", ""), now=now, at=data.get("at"), commit=data.get("commit"), ok=data.get("ok"))
    except ConfigurationError as wrong:
        found += [Problem(each.path.removeprefix("deployed."), each.value, each.allowed, each.hint) for each in wrong.problems]
        raise Refused(problem(422, "nothing was noted", found)) from None
    if found:
        raise Refused(problem(422, "nothing was noted", found))
    return noted


def _renamed(found: Problem, *, single: bool) -> Problem:
    """A problem by the path that it has in what was sent."""
    path = found.path.removeprefix("chaos.")
    path = _WINDOW.sub("", path) if single else path
    return Problem(path, found.value, found.allowed, found.hint)


_WINDOW: Final = re.compile(r"plan\.windows\[0\]\.?")
