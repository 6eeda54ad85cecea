"""What clients send: headers, cookies, paths, queries, bodies; and the apps that are mounted, as a whole."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, Final

from somaresil import ChaosCeilings, ManualClock, Resilience
from somaresil.admission import Admission
from somaresil.canary.fleet import FleetJudge
from somaresil.canary.sources import EvidenceInbox
from somaresil.canary_app.keys import CanaryCookie, reader_of
from somaresil.chaos.plan import ChaosPlan, FaultWindow
from somaresil.config import Checker
from somaresil.control import chaos_control
from somaresil.dashboard import query
from somaresil.deadline import HEADERS, LONGEST, time_of
from somaresil.integrations._logfields import header_name
from somaresil.integrations._logvalues import Cleaner, Room
from somaresil.mounted.auth import BearerToken, is_principal
from somaresil.mounted.request import Request, is_json
from somaresil.mounted.wire import Refused, parse
from somaresil.retryafter import asked_wait, seconds_of
from somaresil.templates import route_template
from somaresil.verdict import verdict_app
from somaresil.verdict.promql import BadQuery, evaluate, is_now
from tests.fuzz.harness import expect, target, text_of, value_of

_TOKEN: Final = "fuzz-0123456789-abcdefghijklmnop"
_LOOP: Final = asyncio.new_event_loop()


@target("deadline:time_of", raises=(ValueError,), weight=8)
def deadline(data: bytes) -> None:
    """The time that a request is given."""
    for name in HEADERS:
        try:
            found = time_of(name, data.decode("latin-1"))
        except ValueError:
            continue
        expect(0.0 <= found <= LONGEST, "a time that is bounded")


@target("retryafter:seconds_of", "retryafter:asked_wait", weight=8)
def retry_after(data: bytes) -> None:
    """What a server asks for, in a header or in an attribute."""
    text = data.decode("latin-1")
    for ask in (
        lambda: seconds_of(text, lambda: 1.7e9),
        lambda: asked_wait(SimpleNamespace(headers={"Retry-After": text}), lambda: 1.7e9),
        lambda: asked_wait(SimpleNamespace(headers={"retry-after-ms": text}), lambda: 1.7e9),
        lambda: asked_wait(SimpleNamespace(retry_after=_number(text)), lambda: 1.7e9),
    ):
        try:
            found = ask()
        except ValueError:
            continue
        expect(found is None or found >= 0.0, "seconds")


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


_PROCESS: Final = Resilience("fuzz", clock=ManualClock(), seed=7, environment="test")
_PRIORITIES: Final = Admission(_PROCESS, None, "x-priority", Checker())


@target("admission:Admission._caller", weight=8)
def priority(data: bytes) -> None:
    """How much a request matters; what nobody knows is normal."""
    _PRIORITIES._who(_scope(headers=[(b"x-priority", data)]))


@target("mounted.auth:BearerToken.__call__", "mounted.auth:is_principal", weight=8)
def bearer(data: bytes) -> None:
    """Nobody gets in without a token."""
    for auth in (BearerToken({"a": _TOKEN}), BearerToken({"a": _TOKEN}, basic=True)):
        for headers in ([(b"authorization", data)], [(b"authorization", b"Bearer " + data)], [(b"authorization", b"Basic " + data)]):
            found = auth(_scope(headers=headers))
            expect(found is None or (found == "a" and _TOKEN.encode() in data) or b"Basic" in headers[0][1], "somebody with a token")
    name = text_of(data)
    expect(not is_principal(name) or name.isprintable(), "a name that can be shown")


_KEYS: Final = tuple(reader_of(key, Checker()) for key in ("header:x-user", "cookie:user", CanaryCookie()))


@target("canary_app.keys:_cookie_of", "canary_app.keys:_header_of", weight=8)
def keys(data: bytes) -> None:
    """Whose a request is; a cookie of ours has one form."""
    scope = _scope(headers=[(b"x-user", data), (b"cookie", data)])
    found = [None if read is None else read(scope) for read in _KEYS]
    expect(all(each is None or isinstance(each, str) for each in found), "a text, or nothing")
    expect(found[2] is None or str(found[2]).isalnum(), "a cookie of ours")


@target("mounted.wire:parse", "mounted.request:is_json", raises=(Refused,), weight=6)
def body(data: bytes) -> None:
    """The body of a request: what is taken can be written as JSON and is read back."""
    is_json(data.decode("latin-1"))
    try:
        found = parse(data)
    except Refused as refused:
        expect(400 <= refused.answer.status < 500, "the fault of who asks")
        raise
    expect(parse(json.dumps(found, allow_nan=False).encode()) == found, "read back")


@target("dashboard.query:parameters", "dashboard.query:whole", "dashboard.query:identity", raises=(Refused,), weight=8)
def parameters(data: bytes) -> None:
    """What stands behind the question mark."""
    query.identity(data.decode("latin-1"), strict=False)
    request = Request(_scope(query_string=data), _nothing, "a")
    found = query.parameters(request, ("after", "most", "kind"))
    number = query.whole(found, "most", 1, 400)
    expect(number is None or 1 <= number <= 400, "a number in its bounds")
    query.identity(found.get("after"))


@target("integrations._logfields:header_name", "templates:route_template", weight=8)
def names(data: bytes) -> None:
    """Names of headers, and routes of frameworks."""
    text = text_of(data)
    found = header_name(text)
    expect(found is None or (found.isascii() and b"\n" not in found), "a name of a header")
    route_template(_scope(path=text, route=SimpleNamespace(path=text), endpoint=None), "/root")


@target("integrations._logvalues:Cleaner.plain")
def logged(data: bytes) -> None:
    """Whatever somebody logs becomes JSON of bounded size."""
    found = Cleaner().plain(value_of(data), Room(2_000))
    expect(len(json.dumps(found, allow_nan=False)) < 40_000, "a line that is bounded")


@target("verdict.promql:evaluate", "verdict.promql:is_now", raises=(BadQuery,), weight=8)
def promql(data: bytes) -> None:
    """A query, and a time."""
    text = text_of(data)
    try:
        is_now(text, 1.7e9)
    except BadQuery:
        evaluate(text, (), _PROCESS)


# -- whole apps: a first line with method and path, the headers, an empty line, the body --------------------------------------------------


def _scope(**more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": "GET",
        "path": "/",
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        **more,
    }


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def _asked(app: Any, data: bytes) -> None:
    head, _, content = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, place = first.decode("latin-1").partition(" ")
    path, _, after = place.partition("?")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    headers += [(b"authorization", f"Bearer {_TOKEN}".encode())]
    scope = _scope(method=method, path=path, query_string=after.encode("latin-1"), headers=headers)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"} if sent else {"type": "http.request", "body": content, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    if path.endswith("/stream"):
        return
    _LOOP.run_until_complete(app(scope, receive, send))
    starts = [message for message in sent if message["type"] == "http.response.start"]
    expect(len(starts) == 1, "one answer")
    expect(200 <= starts[0]["status"] < 500, f"an answer that is no failure of ours: {starts[0]['status']}")
    for name, value in starts[0]["headers"]:
        expect(not {10, 13} & {*name, *value}, "headers of one line each")


def _process() -> Resilience:
    # Real time: a body has a time limit, and an app that waited for a manual clock would wait for ever.
    made = Resilience("fuzz", seed=7, environment="test")
    made.chaos.opt_in(ChaosCeilings())
    made.guard("llm.invoke", breaker=True)
    return made


_AUTH: Final = BearerToken({"fuzz": _TOKEN})
_MADE: Final[dict[str, Any]] = {}


def _app(name: str) -> Any:
    # Made when it is needed: two of the three targets do without.
    if name not in _MADE:
        if name == "control":
            _MADE[name] = chaos_control(_process(), auth=_AUTH)
        elif name == "verdicts":
            process = _process()
            judge = FleetJudge(process, name="gateway", bad="api", sources=[EvidenceInbox(process)])
            _MADE[name] = verdict_app({"gateway": judge}, resilience=process, auth=_AUTH)
        else:
            plans = {"slow": ChaosPlan([FaultWindow("llm.*", "latency", 0, 30, delay=0.8, rate=0.2)])}
            _MADE[name] = _process().dashboard(auth=_AUTH, operators=_AUTH, plans=plans)
    return _MADE[name]


@target("control.app:ControlApp.__call__", "mounted.routing:resource", weight=2)
def control(data: bytes) -> None:
    """A request to the control app."""
    _asked(_app("control"), data)


@target("verdict.app:VerdictApp.__call__", weight=2)
def verdicts(data: bytes) -> None:
    """A request to the verdict app."""
    _asked(_app("verdicts"), data)


@target("dashboard.app:DashboardApp.__call__", weight=2)
def dashboard(data: bytes) -> None:
    """A request to the dashboard."""
    _asked(_app("dashboard"), data)
