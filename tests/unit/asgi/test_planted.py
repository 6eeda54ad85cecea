"""A defect of ours never reaches a request: each internal step is made to fail, and the client notices nothing."""

from __future__ import annotations

import inspect
import itertools
import logging

import pytest

from somaresil import Outcome, asgi, exchange, routes, templates
from somaresil.chaos.placing import Placement
from somaresil.chaos.run import ExperimentRun
from somaresil.events import DefectFound
from somaresil.listeners import Listeners
from somaresil.recorder import Recorder
from somaresil.slo.series import Series
from tests.unit.asgi.kit import START, Stand, body, says

GUARDS = {
    *("__call__", "_arrived", "_faulted", "_in_time", "_limited", "_limit", "_rest_of", "_too_much", "_refuse"),
    *("send", "end", "report"),
}
"""What stands between our steps and the request: these consist of nothing but calls of the others and what catches their failures."""


def steps():
    """Every function of the middleware and of what it calls, so that a new one is planted too."""
    for owner in (asgi.ResilienceMiddleware, exchange.Exchange, exchange.Request, exchange.Conversation):
        for name, value in vars(owner).items():
            abstract = owner is exchange.Exchange and name in {"heard", "said", "judged"}
            if (
                inspect.isfunction(value)
                and name not in GUARDS
                and not abstract
                and name != "too_much"  # of a limit: see test_admission
                and (owner, name) != (asgi.ResilienceMiddleware, "__init__")
            ):
                yield owner, name
    for module in (asgi, exchange):
        for name, value in vars(module).items():
            # Said by the name that it is called by there; a constructor that is called as a function is no step of its own.
            if inspect.isfunction(value) and value.__module__ in {module.__name__, templates.__name__} and name != "begin":
                yield module, name
    for name, value in vars(templates).items():
        if inspect.isfunction(value) and value.__module__ == templates.__name__ and not hasattr(asgi, name):
            yield templates, name
    yield asgi, "Asyncio"
    yield exchange, "Asyncio"
    yield from ((exchange.Struck, name) for name in ("__init__", "touch", "delivered", "broken_off"))
    yield from ((routes.Routes, name) for name in ("cell", "_make"))
    yield from ((routes.RouteCell, name) for name in ("__init__", "add", "_sum_up", "_drained"))
    yield from ((Recorder, name) for name in ("__init__", "add", "settle", "tally"))
    yield from ((Series, name) for name in ("roll", "_events", "_roll"))
    yield from ((ExperimentRun, name) for name in ("strike", "claim", "_hit", "hold"))
    yield Placement, "strike_request"
    yield Listeners, "emit"


STEPS = list(steps())


async def whole_app(scope, receive, send):
    """Answers and talks, below a mount as frameworks leave it."""
    scope.update(root_path="/t/acme/7", path_params={"tenant": "acme", "n": 7.0, "id": "1"}, route=Routed(), fastapi={})
    await receive()
    if scope["type"] == "http":
        for message in ({"type": "http.response.debug", "info": {}}, START, body(b"a", more=True), body(b"b", more=True), body()):
            await send(message)
    else:
        for message in ({"type": "websocket.accept"}, {"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}):
            await send(message)


class Routed:
    """A route with a template."""

    path = "/i/{id}"


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    """Allow chaos; the log of defects is not wanted here."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    logging.getLogger("somaresil").disabled = True
    yield
    logging.getLogger("somaresil").disabled = False


def test_the_steps_are_found():
    """By name; the list grows by itself."""
    found = {name for owner, name in STEPS}
    assert {"__init__", "said", "heard", "judged", "struck", "touch", "refusal", "count", "route_template"} <= found
    assert len(STEPS) > 25


HEADERS = [(b"host", b"localhost"), (b"x-request-timeout-ms", b"60000")]

EXPERIMENTS = {"latency": {"delay_seconds": 1.0}, "stream_cut": {"after_items": 1}, "error": {"status": 502}}


@pytest.mark.asyncio
@pytest.mark.parametrize(("owner", "step"), STEPS, ids=lambda value: getattr(value, "__name__", value))
async def test_a_step_that_fails_is_not_noticed(monkeypatch, owner, step):
    """The client gets what the app said, or what a whole experiment would have given it, and no error of ours."""
    reached = []

    def planted(*args, **kwargs):
        reached.append(True)
        raise RuntimeError("planted")

    for kind, experiment in itertools.product(["http", "websocket"], [None, *EXPERIMENTS]):
        expected, stand = Stand(whole_app), Stand(whole_app)
        await expected.ask(kind=kind, headers=HEADERS)
        answers = [(None, expected.sent)]
        if experiment is not None:
            for one in (expected, stand):
                one.arm(experiment, **EXPERIMENTS[experiment])
            answers.append((*await asked(expected, kind),))
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, planted)
            for _ in range(2):
                assert await asked(stand, kind) in answers
                stand.clock.advance(3.0 * 3600.0)
        assert len(stand.told(DefectFound)) <= 3, "a place is reported once"
    assert reached, "the step was never taken"


async def asked(stand, kind):
    """What came out of the middleware, and what the client got."""
    try:
        await stand.ask(kind=kind, headers=HEADERS)
    except Exception as error:
        return type(error), stand.sent
    return None, stand.sent


@pytest.mark.asyncio
async def test_a_defect_is_reported_once():
    """With the place, and the request goes on."""
    stand = Stand(whole_app)
    stand.app._routes = None
    for _ in range(3):
        await stand.ask()
    (defect,) = stand.told(DefectFound)
    assert defect.where == "ASGI middleware, counting a request"
    assert defect.error == "AttributeError"


@pytest.mark.asyncio
async def test_a_report_that_fails_is_not_noticed_either(monkeypatch):
    """A logging filter of the user may raise; there is nobody left to tell."""
    stand = Stand(whole_app)
    stand.app._routes = None

    def fails(*args):
        raise RuntimeError("a filter")

    monkeypatch.setattr(Listeners, "defect", fails)
    await stand.ask()
    assert len(stand.sent) == 5


@pytest.mark.asyncio
async def test_a_clock_that_fails_is_not_noticed():
    """At the beginning, in the middle or at the end."""
    for fails_at in range(5):
        stand = Stand(whole_app)
        readings = itertools.count()

        def monotonic(readings=readings, fails_at=fails_at):
            if next(readings) >= fails_at:
                raise OSError("no clock")
            return 1.0

        stand.app._monotonic = monotonic
        await stand.ask()
        assert len(stand.sent) == 5


@pytest.mark.asyncio
@pytest.mark.parametrize("scope", [{}, {"type": "http"}, {"type": "websocket"}, {"type": "http", "path": "/"}, {"type": "new"}])
async def test_a_scope_that_says_nothing_is_passed_on(scope):
    """What the app makes of it is its own matter."""
    seen = []

    async def app(given, receive, send):
        seen.append(given)

    stand = Stand(app)
    stand.arm("latency", delay_seconds=1.0)
    await stand.app(scope, None, None)
    assert seen == [scope]
    assert seen[0] is scope


@pytest.mark.asyncio
async def test_messages_that_say_nothing_are_passed_on():
    """An app that speaks another protocol is heard by its server all the same."""
    messages = [{}, {"type": "http.response.start"}, {"type": "http.response.body", "body": None}, {"type": 5}]

    async def app(scope, receive, send):
        for message in messages:
            await send(message)
        assert await receive() == {}

    stand = Stand(app)

    async def receive():
        return {}

    sent = []

    async def send(message):
        sent.append(message)

    await stand.app({"type": "http", "method": "GET", "path": "/"}, receive, send)
    assert sent == messages
    assert sum(stand.ends().values()) == 1


@pytest.mark.asyncio
async def test_methods_are_labels_only_when_they_are_known():
    """RFC 9110 and PATCH; a client may send any other word, and not even the word for a conversation is its to use."""
    stand = Stand(whole_app)
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "BREW", "get", "WEBSOCKET", ""):
        await stand.ask(method=method)
    found = sorted({method for method, _, _ in stand.labels()})
    assert found == ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "_OTHER"]
    assert stand.ends() == {Outcome.GOOD: 13}


@pytest.mark.asyncio
async def test_a_status_that_is_no_number_does_no_harm():
    """An app that breaks the specification hears of it from its server, not from us."""
    stand = Stand(says({**START, "status": "200"}, body()))
    await stand.ask()
    assert len(stand.sent) == 2
    assert stand.told(DefectFound)
