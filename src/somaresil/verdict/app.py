"""The verdict app itself: pure ASGI, no framework.

Who it is comes first: whoever is not known gets 401, and nothing else. Each engine has a form of its own for "no", and so each has one of
its own for "something is wrong here": never one that its client would take for leave to promote, nor for an order to roll back.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from somaresil.canary import kayenta
from somaresil.canary.ledger import Counts, Finding
from somaresil.canary.opinion import Opinion
from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.model.rollout import Verdict
from somaresil.mounted.request import Doorkeeper, Request, check_authenticator, live
from somaresil.mounted.wire import Answer, Refused, body_of, problem
from somaresil.verdict.flagger import HOOKS, WHILE_WAITING, Hooks
from somaresil.verdict.promql import BadQuery, evaluate, is_now, vector
from somaresil.verdict.subjects import Subject, is_subject, number

if TYPE_CHECKING:
    from somaresil.mounted.auth import Authenticator
    from somaresil.mounted.request import Receive, Scope, Send
    from somaresil.resilience import Resilience
    from somaresil.verdict.subjects import Controller

__all__ = ["VerdictApp", "verdict_app"]

LONGEST_REASON: Final = 200
_LONGEST_CHECKSUM: Final = 120
"""Judges keep no more of one: two that differ behind that would be one."""
_MOST_CANARIES: Final = 256
_MOST_JUDGED: Final = 4
"""Bodies for Kayenta's judge that are read and judged at once: 8 MiB each, and a thread."""
_NAME: Final = r"([^/]{1,120}(?:/[^/]{1,120})?)"
_ROUTES: Final[tuple[tuple[re.Pattern[str], str, str], ...]] = (
    (re.compile(rf"/flagger/(?:{_NAME}/)?([a-z-]{{1,40}})"), "POST", "flagger"),
    (re.compile(r"/argo/verdict"), "GET", "argo"),
    (re.compile(r"/prom/api/v1/query"), "GET", "query"),
    (re.compile(r"/prom/api/v1/query"), "POST", "query"),
    (re.compile(r"/prom/api/v1/status/buildinfo"), "GET", "build"),
    (re.compile(r"/judge"), "POST", "judge"),
    (re.compile(r"/evidence"), "POST", "evidence"),
    (re.compile(rf"/evidence/{_NAME}"), "POST", "evidence"),
    (re.compile(r"/openapi\.json"), "GET", "show_document"),
    (re.compile(r"/canaries"), "GET", "canaries"),
    (re.compile(rf"/canaries/{_NAME}"), "GET", "canary"),
    (re.compile(rf"/canaries/{_NAME}/(promote|rollback|pause|resume)"), "POST", "act"),
)


def verdict_app(
    canaries: Mapping[str, Controller | Any],
    *,
    resilience: Resilience,
    auth: Authenticator,
    while_waiting: str = "gated",
    free_steps: int = 1,
) -> VerdictApp:
    """An ASGI application that gives verdicts on ``canaries``. Mount it in yours.

    ``canaries``: judges (:class:`~somaresil.canary.fleet.FleetJudge`) or controllers, by the name that the engine has for them; where
    several namespaces have one of the same name, by ``namespace/name``. ``auth`` says who sent a request: see
    :func:`~somaresil.control.app.chaos_control`. There is no app without one.

    ``while_waiting`` is what Flagger's hook ``rollout`` is told while nobody can know yet: ``go``, ``hold`` (a failed check each time: with
    Flagger's usual threshold of 1 that rolls back at the first interval), or ``gated``: ``go`` once a gate of the same checksum has asked
    here (``confirm-traffic-increase``, ``confirm-promotion``), for that holds the traffic then, and ``hold`` otherwise. ``free_steps``: how
    often ``confirm-traffic-increase`` is let through without any event of the candidate; it has none before the first step.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    return VerdictApp(canaries, resilience=resilience, auth=auth, while_waiting=while_waiting, free_steps=free_steps)


class VerdictApp:
    """See :func:`verdict_app`."""

    def __init__(
        self,
        canaries: Mapping[str, Controller | Any],
        *,
        resilience: Resilience,
        auth: Authenticator,
        while_waiting: str = "gated",
        free_steps: int = 1,
    ) -> None:
        """Check everything."""
        check = Checker("verdict_app")
        given = canaries if isinstance(canaries, Mapping) else {}
        if not 0 < len(given) <= _MOST_CANARIES:
            check.problem("canaries", canaries, f"1 to {_MOST_CANARIES} judges or controllers by name")
        for name, value in given.items():
            check.name(f"canaries[{name!r}]", name)
            if not is_subject(value):
                check.problem(f"canaries[{name!r}]", value, "a judge with opinion(), or a CanaryController")
        hint = "whoever can reach an open verdict app can promote: BearerToken(secret), or a function of the scope"
        check_authenticator(check, "auth", auth, hint)
        check.one_of("while_waiting", while_waiting, WHILE_WAITING)
        check.count("free_steps", free_steps, minimum=0, maximum=100)
        check.finish()
        self._subjects = {name: Subject(name, value) for name, value in given.items()}
        self._resilience = resilience
        self._clock = resilience.clock
        self._door = Doorkeeper(auth, "verdict app", resilience.clock, resilience.listeners)
        self._hooks = Hooks(while_waiting, free_steps, resilience.clock)
        self._judging = 0

    def __repr__(self) -> str:
        """Which canaries it knows."""
        return f"<VerdictApp of {', '.join(self._subjects)}>"

    @property
    def denied(self) -> int:
        """How many requests came from nobody who is known."""
        return self._door.denied

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

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        actor = await self._door.who(scope)
        if actor is None:
            return Answer(401, "who is this?", headers=[(b"www-authenticate", b"Bearer")])
        request = Request(scope, receive, actor)
        found = [(route, match) for route in _ROUTES if (match := route[0].fullmatch(request.path))]
        if not found:
            return problem(404, "there is no such resource")
        methods = {route[1] for route, _ in found}
        wanted = "GET" if request.method == "HEAD" else request.method
        chosen = next(((route, match) for route, match in found if route[1] == wanted), None)
        if chosen is None:
            allowed = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
            return problem(405, f"{allowed} here", headers=[(b"allow", allowed.encode())])
        (_, _, name), match = chosen
        try:
            answer: Answer = await getattr(self, name)(request, *match.groups())
        except Refused as refused:
            return self._in_its_form(name, refused.answer)
        except Exception as defect:  # noqa: BLE001 - never into the server: what it would say to that is not ours
            self._resilience.listeners.defect("verdict app", defect, self._clock.time(), "nothing is known, and nothing was decided")
            return self._in_its_form(name, problem(500, "a defect of the verdict app; it was reported, and nothing is known"))
        return answer

    @staticmethod
    def _in_its_form(name: str, answer: Answer) -> Answer:
        """What was refused, or is broken, as the engine that asks can use it: see :mod:`somaresil.verdict.flagger` and the others."""
        said = answer.detail
        if name == "flagger":
            # The reason of a 5xx would be lost, and it would be asked again.
            return Answer(answer.status if answer.status < 500 else 409, said)  # noqa: PLR2004 - HTTP
        if name == "argo":
            return Answer(200, _for_argo("", "", _unknown(said), 0.0))
        if name == "query":
            return _bad_data(said, 400 if answer.status < 500 else 500)  # noqa: PLR2004 - HTTP
        return answer

    # -- engines --------------------------------------------------------------------------------------------------------------------------

    async def flagger(self, request: Request, named: str | None, hook: str) -> Answer:
        """``POST /flagger/[{canary}/]{hook}``."""
        if hook not in HOOKS:
            raise Refused(problem(404, f"there is no such hook: {hook}; {did_you_mean(hook, HOOKS) or ', '.join(HOOKS)}"))
        data = await request.json(self._clock)
        if not isinstance(data, dict):
            raise Refused(problem(422, "the body is no object with name, namespace, phase and checksum"))
        name, namespace, checksum = (data.get(field, "") for field in ("name", "namespace", "checksum"))
        if not all(isinstance(text, str) for text in (name, namespace, checksum)):
            raise Refused(problem(422, "name, namespace and checksum are texts"))
        names = (named,) if named else (f"{namespace}/{name}", name)
        subject = next((self._subjects[each] for each in names if each in self._subjects), None)
        if subject is None:
            raise Refused(problem(409, f"no canary is called {' or '.join(map(repr, names))[:LONGEST_REASON]} here"))
        if not checksum and hook not in {"event", "post-rollout"}:
            raise Refused(problem(422, "without a checksum nobody knows which version this is about"))
        _check_checksum(checksum)
        status, reason = self._hooks.answer(hook, subject, checksum)
        return Answer(status, _line(reason))

    async def argo(self, request: Request) -> Answer:
        """``GET /argo/verdict?canary=...&checksum=...``: always 200, for every other status is an error and not a verdict."""
        asked = _parameters(request.scope.get("query_string", b""))
        name, checksum = asked.get("canary", ""), asked.get("checksum", "")
        if not name and len(self._subjects) == 1:
            name = next(iter(self._subjects))
        subject = self._subjects.get(name)
        _check_checksum(checksum)
        if subject is None:
            name = name[:LONGEST_REASON]
            return Answer(200, _for_argo(name, checksum, _unknown(f"no canary is called {name[:100]!r} here"), self._clock.time()))
        opinion = subject.opinion(checksum, asks_only=True)
        return Answer(200, _for_argo(name, checksum or subject.current, opinion, self._clock.time()))

    async def query(self, request: Request) -> Answer:
        """``GET`` or ``POST /prom/api/v1/query``."""
        asked = _parameters(request.scope.get("query_string", b""))
        if request.method == "POST":
            kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
            if kind != "application/x-www-form-urlencoded" or request.header("content-encoding") not in {None, "identity"}:
                raise Refused(problem(415, "content-type: application/x-www-form-urlencoded"))
            asked |= _parameters(await body_of(request.scope["headers"], request.receive, self._clock))
        now = self._clock.time()
        try:
            if "query" not in asked:
                raise BadQuery("query is missing")  # noqa: TRY301 - one place that answers
            if asked.get("time") and not is_now(asked["time"], now):
                raise BadQuery("there is no past and no future here, only now")  # noqa: TRY301 - as above
            return Answer(200, vector(evaluate(asked["query"], self._subjects.values(), self._resilience), now))
        except BadQuery as bad:
            return _bad_data(str(bad), 400)

    async def build(self, _: Request) -> Answer:
        """``GET /prom/api/v1/status/buildinfo``: what clients look at to know whom they talk to."""
        from somaresil._version import __version__

        return Answer(200, {"status": "success", "data": {"version": __version__, "application": "somaresil"}})

    async def judge(self, request: Request) -> Answer:
        """``POST /judge``: Kayenta's remote judge."""
        kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/json" or request.header("content-encoding") not in {None, "identity"}:
            raise Refused(problem(415, "content-type: application/json, and a body as it is, without an encoding"))
        if self._judging >= _MOST_JUDGED:
            raise Refused(problem(503, f"{_MOST_JUDGED} are judged already", headers=[(b"retry-after", b"1")]))
        self._judging += 1
        try:
            raw = await body_of(request.scope["headers"], request.receive, self._clock, kayenta.MOST_BYTES)
            return Answer(200, await asyncio.to_thread(lambda: kayenta.answer(kayenta.parse(raw))))
        except ConfigurationError as wrong:
            raise Refused(problem(400, "nothing was judged", wrong.problems)) from None
        finally:
            self._judging -= 1

    # -- pods -----------------------------------------------------------------------------------------------------------------------------

    async def evidence(self, request: Request, named: str | None = None) -> Answer:
        """``POST /evidence[/{canary}]``: what a pod has seen."""
        data = await request.json(self._clock)
        subject = self._one(named)
        if not subject.inboxes:
            raise Refused(problem(409, "nothing is pushed to this canary: it has no EvidenceInbox among its sources"))
        try:
            telling = subject.inboxes[0].take(data)
        except ConfigurationError as wrong:
            raise Refused(problem(422, "nothing was taken", wrong.problems)) from None
        return Answer(200, {"taken": telling.instance, "marks": len(telling.marks)})

    def _one(self, named: str | None) -> Subject:
        if named is None and len(self._subjects) == 1:
            return next(iter(self._subjects.values()))
        subject = None if named is None else self._subjects.get(named)
        if subject is None:
            raise Refused(problem(404, "there is no such canary, or several and none is named"))
        return subject

    async def show_document(self, request: Request) -> Answer:
        """``GET /openapi.json``."""
        from somaresil.verdict.document import document  # engines ask for none

        return Answer(200, document(request.root))

    # -- people ---------------------------------------------------------------------------------------------------------------------------

    async def canaries(self, _: Request) -> Answer:
        """``GET /canaries``."""
        return Answer(200, {"canaries": [subject.document() for subject in self._subjects.values()]})

    async def canary(self, _: Request, name: str) -> Answer:
        """``GET /canaries/{name}``."""
        return Answer(200, self._one(name).document())

    async def act(self, request: Request, name: str, what: str) -> Answer:
        """``POST /canaries/{name}/promote`` and so on, with ``{"reason": ...}``."""
        data = await request.json(self._clock)
        subject = self._one(name)
        check = Checker()
        if not isinstance(data, dict):
            check.problem("", data, 'an object with "reason"')
        else:
            for field in data:
                if field != "reason":
                    check.problem(field, data[field], "reason", did_you_mean(field, ("reason",)))
            reason = data.get("reason", "")
            if not isinstance(reason, str) or len(reason) > LONGEST_REASON or not reason.isprintable():
                check.problem("reason", reason, f"at most {LONGEST_REASON} printable characters")
        if check.problems:
            raise Refused(problem(422, "nothing was done", check.problems))
        if not subject.moved:
            raise Refused(problem(409, "this judge takes nobody's word: it has no promote() and roll_back()"))
        await subject.act(what, f"{request.actor}: {data['reason']}" if data.get("reason") else f"{request.actor} asked for it")
        return Answer(200, subject.document())


def _parameters(text: bytes) -> dict[str, str]:
    """Of a query or a form; the first of each name. Raises :class:`Refused` for what nobody means."""
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError:
        raise Refused(problem(400, "no parameters that anybody can read")) from None
    return dict(reversed(pairs))


def _check_checksum(checksum: str) -> None:
    """Raise :class:`Refused` for one that no engine makes."""
    if len(checksum) > _LONGEST_CHECKSUM:
        raise Refused(problem(422, f"a checksum of {len(checksum)} characters: expected at most {_LONGEST_CHECKSUM}"))


def _line(reason: str) -> str:
    return "".join(character if character.isprintable() else " " for character in reason)


def _unknown(reason: str) -> Opinion:
    return Opinion(Verdict.WAIT, reason, Finding(Verdict.WAIT, reason, 1.0, 1.0, 1.0, Counts()))


def _for_argo(name: str, checksum: str, opinion: Opinion, now: float) -> dict[str, Any]:
    """A body that a condition can read: no number is null, and there is no NaN, which would turn all of it into text."""
    finding = opinion.finding
    counts = finding.counts
    return {
        "data": {
            "verdict": opinion.verdict.value,
            "reason": _line(opinion.reason),
            "canary": name,
            "checksum": checksum,
            "worse": _finite(finding.worse),
            "not_much_worse": _finite(finding.not_much_worse),
            "too_bad": _finite(finding.too_bad),
            "candidate_good": counts.candidate_good,
            "candidate_bad": counts.candidate_bad,
            "control_good": counts.control_good,
            "control_bad": counts.control_bad,
            "events": counts.candidate,
            "missing": len(opinion.missing),
            "age": -1.0 if opinion.at is None else max(0.0, _finite(now - opinion.at)),
        }
    }


def _finite(value: float) -> float:
    found = number(value)
    return -1.0 if found is None else float(found)


def _bad_data(said: str, status: int) -> Answer:
    kind = "bad_data" if status < 500 else "internal"  # noqa: PLR2004 - HTTP
    return Answer(status, {"status": "error", "errorType": kind, "error": said})
