"""The dashboard itself: pure ASGI, no framework.

Who it is comes first, and whoever is not known gets the same answer to everything, the page's own files included. Then where it goes, what
it wants, where it comes from, and what it says. What changes something is a POST of somebody who may do more than look, from this site,
with a token that only a page of ours can have; the kill switch needs no token, for whoever pulls it in a hurry has pulled it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from weakref import WeakKeyDictionary

from somaresil.config import LONGEST_NAME, Checker, did_you_mean
from somaresil.dashboard.assets import PAGE, Assets, takes_gzip
from somaresil.dashboard.commands import BREAKER_ACTS, CANARY_ACTS, Commands, about, approved
from somaresil.dashboard.document import document
from somaresil.dashboard.exchange import check_folder
from somaresil.dashboard.peers import check_peers
from somaresil.dashboard.people import CONTROLS, UNSAFE_OPEN, DashboardOptions, Open, check_controls, check_people
from somaresil.dashboard.plain import STYLE, missing_page, plain_page
from somaresil.dashboard.query import identity, parameters, whole
from somaresil.dashboard.sources import Sources
from somaresil.dashboard.stream import Hub, Pace
from somaresil.dashboard.tokens import SHORTEST_SECRET, Tokens
from somaresil.errors import Problem
from somaresil.mounted.request import Doorkeeper, Request, live
from somaresil.mounted.routing import Roots, Route, resource
from somaresil.mounted.sender import Senders
from somaresil.mounted.wire import SAFE, Answer, Refused, problem, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from somaresil.chaos.plan import ChaosPlan, ErrorMakers
    from somaresil.mounted.auth import Authenticator
    from somaresil.mounted.request import Receive, Scope, Send, Visitor
    from somaresil.resilience import Resilience

__all__ = ["CONTROLS", "CSRF_HEADER", "KEY_HEADER", "UNSAFE_OPEN", "DashboardApp", "DashboardOptions", "Open"]

CSRF_HEADER: Final = "x-somaresil-csrf"
"""The request header with the token that ``api/session`` has told."""
KEY_HEADER: Final = "idempotency-key"
"""The request header that says which requests are one: whatever has the same value is done once."""

_KEY: Final = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_MOST_VIEWERS: Final = 10_000
_MOST_EVENTS: Final = 1_000
_REFRESH: Final = (5, 3_600)
_HTML: Final = b"text/html; charset=utf-8"
_FRESH: Final = (b"cache-control", b"no-store")
_NAME: Final = rf"(.{{1,{LONGEST_NAME}}})"
_ROUTES: Final[tuple[Route, ...]] = (
    (re.compile(r"/?"), "GET", "show_page"),
    (re.compile(r"/plain"), "GET", "show_plain"),
    (re.compile(r"/plain\.css"), "GET", "show_style"),
    (re.compile(r"/static/(.{1,200})"), "GET", "show_asset"),
    (re.compile(r"/api/picture"), "GET", "show_picture"),
    (re.compile(rf"/api/guards/{_NAME}"), "GET", "show_guard"),
    (re.compile(rf"/api/objectives/{_NAME}"), "GET", "show_objective"),
    (re.compile(rf"/api/canaries/{_NAME}"), "GET", "show_canary"),
    (re.compile(r"/api/experiments"), "GET", "show_experiments"),
    (re.compile(r"/api/events"), "GET", "show_events"),
    (re.compile(r"/api/session"), "GET", "show_session"),
    (re.compile(r"/api/stream"), "GET", "show_stream"),
    (re.compile(r"/api/openapi\.json"), "GET", "show_document"),
    (re.compile(r"/api/stop"), "POST", "stop_all"),
    (re.compile(r"/api/engage"), "POST", "engage"),
    (re.compile(r"/api/disengage"), "POST", "disengage"),
    (re.compile(r"/api/experiments"), "POST", "start"),
    (re.compile(rf"/api/experiments/{_NAME}/stop"), "POST", "end"),
    (re.compile(rf"/api/breakers/{_NAME}/({'|'.join(BREAKER_ACTS)})"), "POST", "breaker"),
    (re.compile(rf"/api/canaries/{_NAME}/({'|'.join(CANARY_ACTS)})"), "POST", "canary"),
)
_STREAM: Final = (
    (b"content-type", b"text/event-stream"),
    # No proxy may hold it back or make something else of it; nginx is told in its own words.
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"vary", b"accept-encoding"),
    *(pair for pair in SAFE if pair[0] != b"cache-control"),
)


class DashboardApp:
    """The page, its files, its JSON and its stream. Mount it in yours; it watches until :meth:`stop`.

    ``auth`` says who may look: a function of the ASGI scope that gives a name or None, also a coroutine function;
    :class:`~somaresil.mounted.auth.BearerToken` is ours. ``operators`` says in the same way who may do something (None: whoever may look),
    ``controls`` what they may (:data:`CONTROLS`; none: everybody only looks). There is no app without ``auth``; :data:`UNSAFE_OPEN` in its
    place lets everybody look, and then nobody may do anything but ``operators``.

    ``at`` is where it is mounted: experiments on requests leave what is below it alone, and an app that is called for paths below it,
    without being told a ``root_path``, takes it away. ``plans`` are experiments that may be started, by name, with ``errors`` as in
    :meth:`~somaresil.chaos.engine.ChaosEngine.arm_plan`; requests name one and change nothing of it. ``origins`` are those of other sites
    whose pages may use it, and of this one where a proxy changes it. ``challenge="basic"`` has browsers ask for a password where the page
    itself is asked for by somebody who is not known; the token is that password.

    ``workers`` is a folder in which all workers of the service on this machine find each other; ``peers`` are addresses of dashboards of
    other machines, asked with ``peer_token``. ``secret`` is what tokens against forged requests are made of (None: one that the workers
    share in their folder). ``most_viewers`` may hold a stream in this process; who comes later is asked to come back. ``pace`` says how
    often what is done; there is no need to change it.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    def __init__(
        self,
        resilience: Resilience,
        *,
        auth: Authenticator | Open,
        operators: Authenticator | None = None,
        at: str = "/_soma",
        controls: Sequence[str] = CONTROLS,
        plans: Mapping[str, ChaosPlan] | None = None,
        errors: ErrorMakers | None = None,
        origins: Iterable[str] = (),
        challenge: str | None = None,
        workers: str | Path | None = None,
        peers: Sequence[str] = (),
        peer_token: str | None = None,
        secret: str | None = None,
        most_viewers: int = 256,
        pace: Pace | None = None,
    ) -> None:
        """Check everything, and begin to watch."""
        check = Checker("dashboard")
        check_people(check, auth, operators, challenge)
        check_controls(check, controls)
        self._plans = approved(plans, check)
        if errors is not None and not hasattr(errors, "keys"):
            check.problem("errors", errors, "names of errors and what they mean, or None")
        if secret is not None and not (isinstance(secret, str) and len(secret) >= SHORTEST_SECRET):
            check.problem(
                "secret", "what was given", f"a text of at least {SHORTEST_SECRET} characters, or None", "secrets.token_urlsafe(32)"
            )
        if workers is not None:
            check_folder(check, "workers", workers)
        check_peers(check, peers, peer_token)
        check.count("most_viewers", most_viewers, maximum=_MOST_VIEWERS)
        self._roots = Roots(at, resilience.chaos, check)
        self._senders = Senders(origins, check)
        check.finish()
        self._resilience = resilience
        self._clock = resilience.clock
        self._at = at.rstrip("/")
        self._challenge = challenge is not None
        is_open = isinstance(auth, Open)
        known = None if isinstance(auth, Open) else auth
        self._may = tuple(each for each in CONTROLS if each in controls)
        self._door = Doorkeeper(
            known, "dashboard", resilience.clock, resilience.listeners, operators=operators if operators is not None or is_open else known
        )
        folder = None if workers is None else Path(workers)
        self._tokens = Tokens(resilience.service, resilience.clock, secret=secret, folder=folder)
        self._assets = Assets()
        self._listed = [
            {"name": name, "about": about(plan), "windows": len(plan.windows), "duration": plan.duration}
            for name, plan in self._plans.items()
        ]
        self._commands = Commands(resilience, self._plans, errors)
        self._sources = Sources(resilience, workers=workers, peers=peers, token=peer_token, perform=self._commands.perform)
        self._pace = Pace() if pace is None else pace
        self._most_viewers = most_viewers
        self._hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()
        self._stopped = False
        self._roots.protect(at)
        self._sources.start()

    @property
    def denied(self) -> int:
        """How many requests came from nobody who is known."""
        return self._door.denied

    @property
    def viewers(self) -> int:
        """How many hold a stream in this process."""
        return sum(len(hub) for hub in self._hubs.values())

    @property
    def stalled(self) -> int:
        """How many were sent away because they took nothing for too long."""
        return sum(hub.stalled for hub in self._hubs.values())

    def stop(self) -> None:
        """Watch no more, and send away whoever looks. From any thread; again does nothing."""
        self._stopped = True
        for loop, hub in tuple(self._hubs.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(hub.close)
        self._sources.stop()

    def __repr__(self) -> str:
        """Whose it is, and for whom."""
        return f"<DashboardApp of {self._resilience.service!r}, {'operators may ' + ', '.join(self._may) if self._may else 'read only'}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            answer = await self._answer(scope, receive, send)
            if answer is not None:
                for message in answer.messages(head=scope["method"] == "HEAD"):
                    await send(message)
        elif scope["type"] == "websocket":
            # There is none here, for anybody.
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "lifespan":
            await live(receive, send, self.stop)

    # -- who -----------------------------------------------------------------------------------------------------------------------------

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> Answer | None:
        request = self._request(scope, receive)
        try:
            visitor = await self._door.visitor(scope)
            if visitor is None:
                return self._unknown(request)
            request.actor = visitor.name
            return await self._known(request, visitor, send)
        except Refused as refused:
            return self._in_its_form(request, refused.answer)
        except Exception as defect:  # noqa: BLE001 - never into the server: what it would say to that is not ours
            self._resilience.listeners.defect("dashboard", defect, self._clock.time(), "the request was answered with 500")
            return self._in_its_form(request, problem(500, "a defect of the dashboard; it was reported, and nothing is known"))

    def _request(self, scope: Scope, receive: Receive) -> Request:
        request = Request(scope, receive, "")
        if self._at and (request.path == self._at or request.path.startswith(f"{self._at}/")):
            # Whoever looks at the path and calls us has taken nothing away.
            request.root, request.path = f"{request.root}{self._at}", request.path.removeprefix(self._at)
        return request

    def _unknown(self, request: Request) -> Answer:
        if self._challenge and request.path in {"", "/"} and request.method in {"GET", "HEAD"}:
            return Answer(401, "Unauthorized", headers=[(b"www-authenticate", b'Basic realm="somaresil", charset="UTF-8"')])
        return Answer(404, "Not Found")

    @staticmethod
    def _in_its_form(request: Request, answer: Answer) -> Answer:
        """A browser that opens an address is shown a page."""
        if answer.status != 404 or not _wants_html(request):  # noqa: PLR2004 - HTTP
            return answer
        page = missing_page(answer.detail, max(0, request.path.count("/") - 1))
        return Answer(404, page, headers=[_FRESH], media=_HTML, safe=PAGE, detail=answer.detail)

    # -- what ----------------------------------------------------------------------------------------------------------------------------

    async def _known(self, request: Request, visitor: Visitor, send: Send) -> Answer | None:
        self._roots.protect(request.root)
        method, name, parts = resource(_ROUTES, request)
        if method == "POST":
            self._senders.check(request)
            answer: Answer = await getattr(self, name)(request, visitor, *parts)
        elif name == "show_stream":
            return await self.show_stream(request, send)
        elif name == "show_session":
            answer = await self.show_session(request, visitor)
        else:
            answer = await getattr(self, name)(request, *parts)
        return answer

    # -- the page ------------------------------------------------------------------------------------------------------------------------

    async def show_page(self, request: Request) -> Answer:
        """``GET /``."""
        if not request.path:
            # What the page names stands beside it, and beside a path without a slash at its end stands something else.
            last = str(request.scope["path"]).rpartition("/")[2]
            return Answer(307, headers=[(b"location", f"./{quote(last, safe='')}/".encode())])
        return self._assets.answer("index.html", request) or await self.show_plain(request)

    async def show_asset(self, request: Request, name: str) -> Answer:
        """``GET /static/{name}``."""
        answer = self._assets.answer(name, request)
        if answer is None:
            raise Refused(problem(404, "there is no such file"))
        return answer

    async def show_plain(self, request: Request) -> Answer:
        """``GET /plain``."""
        asked = parameters(request, ("refresh",))
        refresh = whole(asked, "refresh", *_REFRESH)
        return Answer(200, plain_page(await self._picture(), refresh=refresh), headers=[_FRESH], media=_HTML, safe=PAGE)

    async def show_style(self, _: Request) -> Answer:
        """``GET /plain.css``."""
        return Answer(200, STYLE, headers=[(b"cache-control", b"private, max-age=3600")], media=b"text/css; charset=utf-8", safe=PAGE)

    # -- what is seen --------------------------------------------------------------------------------------------------------------------

    async def _picture(self) -> dict[str, Any]:
        return {**await self._sources.picture(), "plans": self._listed}

    async def show_picture(self, request: Request) -> Answer:
        """``GET /api/picture``; with ``own=1`` what peers ask for: counts of this process and its siblings that can be added to theirs."""
        asked = parameters(request, ("own",))
        return Answer(200, await self._sources.own() if whole(asked, "own", 0, 1) else await self._picture())

    async def show_guard(self, _: Request, name: str) -> Answer:
        """``GET /api/guards/{name}``."""
        return _found(await self._sources.guard(name), "there is no such guard")

    async def show_objective(self, _: Request, name: str) -> Answer:
        """``GET /api/objectives/{name}``."""
        return _found(await self._sources.objective(name), "there is no such objective")

    async def show_canary(self, _: Request, name: str) -> Answer:
        """``GET /api/canaries/{name}``."""
        listed = (await self._sources.picture()).get("canaries") or ()
        return _found(next((each for each in listed if each.get("name") == name), None), "there is no such canary")

    async def show_experiments(self, _: Request) -> Answer:
        """``GET /api/experiments``."""
        picture = await self._picture()
        return Answer(200, {name: picture.get(name) for name in ("experiments", "chaos", "plans")})

    async def show_events(self, request: Request) -> Answer:
        """``GET /api/events?after=&kind=&about=&most=``."""
        asked = parameters(request, ("after", "kind", "about", "most"))
        most = whole(asked, "most", 1, _MOST_EVENTS)
        told = await self._sources.events(
            identity(asked.get("after")) or 0,
            kind=asked.get("kind") or None,
            about=asked.get("about") or None,
            most=200 if most is None else most,
        )
        return Answer(200, told)

    async def show_session(self, _: Request, visitor: Visitor) -> Answer:
        """``GET /api/session``: who it is, what he may, and the token that he needs for that."""
        may = self._may if visitor.operator else ()
        csrf = None
        if may:
            try:
                csrf = self._tokens.give(visitor.name)
            except (OSError, ValueError) as broken:
                self._resilience.listeners.defect("dashboard tokens", broken, self._clock.time(), "only the kill switch can be used")
                may = ("stop",)
        return Answer(200, {"actor": visitor.name, "csrf": csrf, "may": list(may)})

    async def show_document(self, request: Request) -> Answer:
        """``GET /api/openapi.json``."""
        return Answer(200, document(request.root))

    async def show_stream(self, request: Request, send: Send) -> Answer | None:
        """``GET /api/stream``. None: it was answered."""
        after = identity(request.header("last-event-id"), strict=False)
        if request.method == "HEAD":
            return Answer(200, headers=[(b"content-type", b"text/event-stream")])
        if self._stopped:
            return problem(503, "the dashboard was stopped", headers=[(b"retry-after", b"5")])
        if self.viewers >= self._most_viewers:
            return problem(503, f"{self._most_viewers} look already", headers=[(b"retry-after", b"5")])
        loop = asyncio.get_running_loop()
        hub = self._hubs.get(loop)
        if hub is None:
            hub = self._hubs[loop] = Hub(self._sources, self._picture, self._clock, self._resilience.listeners, self._pace)
        packs = takes_gzip(request)
        headers = [*_STREAM, (b"content-encoding", b"gzip")] if packs else [*_STREAM]

        async def known() -> bool:
            return await self._door.visitor(request.scope) is not None

        await hub.serve(request.receive, send, headers=headers, packs=packs, after=after, known=known)
        return None

    # -- what is done --------------------------------------------------------------------------------------------------------------------

    async def stop_all(self, request: Request, visitor: Visitor) -> Answer:
        """``POST /api/stop``: the kill switch. It has stopped everything here before anything is read or anybody else is told."""
        self._check_may(visitor, "stop")
        request.check_type(CSRF_HEADER)
        # Whatever the request says: a stop that was pulled before ends nothing that was started since.
        command = {"do": "stop", "key": secrets.token_hex(8)}
        here = self._commands.perform(command, visitor.name)
        try:
            return await self._do({**command, "thrown": here["done"]}, visitor)
        except Exception as defect:  # noqa: BLE001 - it was pulled, and that is what is answered
            self._resilience.listeners.defect(
                "dashboard command", defect, self._clock.time(), "only this process and its switches were told"
            )
            own = {"name": self._resilience.instance, "done": here["done"], "problem": here["problem"]}
            others = {"name": "other processes", "done": False, "problem": "nobody knows; they obey the switch of their host"}
            return Answer(200, {"done": False, "sources": [own, others]})

    async def engage(self, request: Request, visitor: Visitor) -> Answer:
        """``POST /api/engage``: end everything, and let nothing start."""
        data = await self._read(request, visitor, "engage")
        return await self._do({"do": "engage", "reason": reason_of(data, "nothing was done") or ""}, visitor)

    async def disengage(self, request: Request, visitor: Visitor) -> Answer:
        """``POST /api/disengage``: let experiments start again."""
        data = await self._read(request, visitor, "engage")
        return await self._do({"do": "disengage", "reason": reason_of(data, "nothing was done") or "", "key": self._key(request)}, visitor)

    async def start(self, request: Request, visitor: Visitor) -> Answer:
        """``POST /api/experiments``: start an approved plan, by its name."""
        data = await self._read(request, visitor, "experiment")
        if not isinstance(data, dict) or {*data} != {"plan"} or not isinstance(data["plan"], str):
            raise Refused(problem(422, "nothing was started", [Problem("plan", data, "the name of an approved plan, and nothing else")]))
        name = data["plan"]
        if name not in self._plans:
            hint = did_you_mean(name, self._plans) or ("none is approved" if not self._plans else "")
            raise Refused(problem(404, "no such plan is approved", [Problem("plan", name, "the name of an approved plan", hint)]))
        return await self._do({"do": "start", "plan": name, "key": self._key(request)}, visitor)

    async def end(self, request: Request, visitor: Visitor, identity: str) -> Answer:
        """``POST /api/experiments/{id}/stop``."""
        await self._read(request, visitor, "experiment")
        return await self._do({"do": "end", "experiment": identity}, visitor)

    async def breaker(self, request: Request, visitor: Visitor, name: str, act: str) -> Answer:
        """``POST /api/breakers/{name}/{trip,reset,force_open,disable}``."""
        await self._read(request, visitor, "breaker")
        return await self._do({"do": "breaker", "guard": name, "act": act, "key": self._key(request)}, visitor)

    async def canary(self, request: Request, visitor: Visitor, name: str, act: str) -> Answer:
        """``POST /api/canaries/{name}/{promote,rollback,pause,resume}``."""
        reason = reason_of(await self._read(request, visitor, "canary"), "nothing was done") or ""
        return await self._do({"do": "canary", "canary": name, "act": act, "reason": reason, "key": self._key(request)}, visitor)

    # -- inside --------------------------------------------------------------------------------------------------------------------------

    def _check_may(self, visitor: Visitor, what: str) -> None:
        if not visitor.operator or what not in self._may:
            raise Refused(problem(403, f"{visitor.name} may look, and not do that"))

    async def _read(self, request: Request, visitor: Visitor, what: str) -> Any:
        """The body, after everything that speaks against the request."""
        self._check_may(visitor, what)
        request.check_type(CSRF_HEADER)
        if not self._tokens.knows(request.header(CSRF_HEADER), visitor.name):
            raise Refused(problem(403, f"the header {CSRF_HEADER} has no token that is good: GET api/session tells one"))
        return await request.told(self._clock, CSRF_HEADER)

    @staticmethod
    def _key(request: Request) -> str:
        given = request.header(KEY_HEADER)
        if given is None:
            return secrets.token_hex(8)
        if not _KEY.fullmatch(given):
            raise Refused(problem(400, f"the header {KEY_HEADER}: 1 to 100 characters of A-Z a-z 0-9 . _ : -"))
        return given

    async def _do(self, command: dict[str, Any], visitor: Visitor) -> Answer:
        """Have every worker do it, and say which of them have."""
        told = await self._sources.command(command, visitor.name)
        for hub in self._hubs.values():
            hub.hurry()
        sources = told.get("sources") or []
        if told.get("done") or any(each.get("done") for each in sources):
            return Answer(200, told)
        why = next((str(each["problem"]) for each in sources if each.get("problem")), "nobody was reached")
        said = {"type": "about:blank", "title": "Conflict", "status": 409, "detail": why, **told}
        return Answer(409, said, kind="problem+json", detail=why)


def _found(data: Any, missing: str) -> Answer:
    if data is None:
        raise Refused(problem(404, missing))
    return Answer(200, data)


def _wants_html(request: Request) -> bool:
    return "text/html" in (request.header("accept") or "").lower()
