"""The label of a route: its template, read from what the framework left behind, never from the path that a client wrote."""

from __future__ import annotations

import uuid

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from somaresil import Outcome, ResilienceMiddleware
from somaresil.asgi import route_template
from tests.unit.asgi.kit import Stand

pytestmark = pytest.mark.asyncio


async def answer(request):
    return PlainTextResponse("answer")


async def talk(websocket):
    await websocket.accept()
    await websocket.close()


async def plain(scope, receive, send):
    await PlainTextResponse("plain")(scope, receive, send)


class Called:
    """An ASGI application that is an object."""

    async def __call__(self, scope, receive, send):
        await plain(scope, receive, send)


def starlette_app(folder):
    inner = [Route("/i/{id}", answer), Mount("/u/{n:int}", routes=[Route("/i/{id}", answer)])]
    return Starlette(
        routes=[
            Route("/a/{x}", answer),
            Route("/n/{n:int}", answer),
            Mount("/t/{tenant}", routes=inner),
            Mount("/f/{ratio:float}", routes=inner),
            Mount("/g/{id:uuid}", routes=[Route("/x", answer)]),
            Mount("/p/{rest:path}/end", routes=[Route("/x", answer)]),
            Mount("/static", StaticFiles(directory=folder)),
            Mount("/plain", plain),
            WebSocketRoute("/ws/{id}", talk),
            Host("{name}.example.org", app=Router([Route("/h/{q}", answer)])),
        ]
    )


def fastapi_app():
    sub = FastAPI()
    deep = APIRouter(prefix="/deep")
    leaf = APIRouter()
    mid = APIRouter(prefix="/n")
    app = FastAPI()

    @sub.get("/s/{k}")
    async def direct(k: str):
        return k

    @deep.get("/d/{k}")
    async def included(k: str):
        return k

    @leaf.get("/z/{id}")
    async def nested(id: int):  # noqa: A002
        return id

    @leaf.websocket("/ws/{id}")
    async def socket(websocket: WebSocket, id: str):  # noqa: A002
        await talk(websocket)

    @app.get("/top/{id}")
    async def top(id: str):  # noqa: A002
        return id

    sub.include_router(deep)
    mid.include_router(leaf, prefix="/m")
    mid.mount("/sub", sub)
    mid.add_route("/starlette/{q}", answer)
    app.include_router(mid, prefix="/v1")
    app.add_route("/function/{x}", answer)
    app.mount("/t/{tenant}", sub)
    app.mount("/plain", plain)
    app.mount("/called", Called())
    return app


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/a/1", "/a/{x}"),
        ("/n/5", "/n/{n:int}"),
        ("/t/acme/i/2", "/t/{tenant}/i/{id}"),
        ("/t/acme/i/acme", "/t/{tenant}/i/{id}"),
        ("/t/t/i/t", "/t/{tenant}/i/{id}"),
        ("/t/acme/u/7/i/2", "/t/{tenant}/u/{n}/i/{id}"),
        ("/t/acme/u/007/i/2", "/t/{tenant}/u/{n}/i/{id}"),
        ("/t/7/u/7/i/7", "/t/{tenant}/u/{n}/i/{id}"),
        ("/f/1.50/i/2", "/f/{ratio}/i/{id}"),
        (f"/g/{uuid.UUID(int=171)}/x".upper().replace("/G/", "/g/").replace("/X", "/x"), "/g/{id}/x"),
        ("/p/a/b/c/end/x", "/p/{rest}/end/x"),
        ("/p/one/end/x", "/p/{rest}/end/x"),
        ("/static/nothing.css", "/static/*"),
        ("/plain/anything", "/plain/*"),
        ("/t/acme/nothing", "/t/{tenant}/*"),
        ("/nothing", "__unmatched__"),
        ("/a/1/", "__unmatched__"),
    ],
)
async def test_routes_of_starlette(tmp_path, path, label):
    """Routes, mounts with parameters of every converter, mounts in mounts, files, and what no route took."""
    stand = Stand(starlette_app(tmp_path))
    await stand.ask(path)
    assert [route for _, route, _ in stand.labels()] == [label]


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/top/1", "/top/{id}"),
        ("/v1/n/m/z/2", "/v1/n/m/z/{id}"),
        ("/v1/starlette/3", "/v1/starlette/{q}"),
        ("/v1/sub/s/4", "/v1/sub/s/{k}"),
        ("/v1/sub/deep/d/5", "/v1/sub/deep/d/{k}"),
        ("/v1/sub/nothing", "/v1/sub/*"),
        ("/t/acme/s/6", "/t/{tenant}/s/{k}"),
        ("/t/6/s/6", "/t/{tenant}/s/{k}"),
        ("/t/acme/deep/d/7", "/t/{tenant}/deep/d/{k}"),
        ("/t/acme/nothing", "/t/{tenant}/*"),
        ("/plain/anything", "/plain/*"),
        ("/called/anything", "/called/*"),
        ("/v1/n/nothing", "__unmatched__"),
        ("/nothing", "__unmatched__"),
        ("/function/5", f"endpoint:{__name__}.answer"),
    ],
)
async def test_routes_of_fastapi(path, label):
    """Prefixes of ``include_router`` at every depth, mounts with parameters, and what is mounted in a router that is included.

    Of a plain Starlette route FastAPI leaves only the function behind.
    """
    stand = Stand(fastapi_app())
    await stand.ask(path)
    assert [route for _, route, _ in stand.labels()] == [label]


@pytest.mark.parametrize("path", ["/top/1", "/v1/n/m/z/2"])
async def test_a_method_that_is_not_allowed_has_the_route_of_those_that_are(path):
    """405 is an answer of that route."""
    stand = Stand(fastapi_app())
    await stand.ask(path, method="DELETE")
    ((method, route, status),) = stand.labels()
    assert (method, status) == ("DELETE", 405)
    assert route.endswith("{id}")


async def test_websockets_have_routes_too(tmp_path):
    """Of Starlette and of FastAPI, also from a router that is included."""
    stand = Stand(starlette_app(tmp_path))
    await stand.ask("/ws/1", kind="websocket")
    assert stand.labels() == [("WEBSOCKET", "/ws/{id}", 0)]
    stand = Stand(fastapi_app())
    await stand.ask("/v1/n/m/ws/1", kind="websocket")
    assert stand.labels() == [("WEBSOCKET", "/v1/n/m/ws/{id}", 0)]


async def test_hosts_are_no_part_of_the_label(tmp_path):
    """A client writes the host as it likes."""
    stand = Stand(starlette_app(tmp_path))
    await stand.ask("/h/1", headers=[(b"host", b"abc.example.org")])
    await stand.ask("/nothing", headers=[(b"host", b"abc.example.org")])
    assert {route for _, route, _ in stand.labels()} == {"/h/{q}", "__unmatched__"}


@pytest.mark.parametrize("mounted", [False, True])
async def test_a_root_path_of_the_server_is_no_part_of_the_label(mounted):
    """It is a matter of deployment; a mount is not."""
    app = Starlette(routes=[Mount("/outer/{x}", app=fastapi_app())]) if mounted else fastapi_app()
    stand = Stand(app)
    await stand.ask(f"/api{'/outer/1' if mounted else ''}/v1/n/m/z/2", root_path="/api")
    assert [route for _, route, _ in stand.labels()] == [("/outer/{x}" if mounted else "") + "/v1/n/m/z/{id}"]


async def test_unknown_paths_make_no_labels(tmp_path):
    """However many a client tries, on routes, on mounts and beside them."""
    stand = Stand(starlette_app(tmp_path))
    for number in range(300):
        for path in (f"/no/{number}", f"/a/{number}", f"/t/x{number}/i/1", f"/t/x{number}/no", f"/t/x/u/{'0' * (number % 40)}7/i/1"):
            await stand.ask(path)
    assert len(stand.labels()) == 5


async def test_a_value_that_cannot_be_put_back_makes_no_label():
    """A converter of the user's own has made something of it; the raw text would be a label without end."""
    labels = {
        route_template({"root_path": f"/t/{word}", "path_params": {"tenant": object()}, "route": Route("/x", answer)}, "")
        for word in ("acme", "globex")
    }
    assert labels == {"/{mount}/x"}


@pytest.mark.parametrize(
    ("scope", "label"),
    [
        ({}, "__unmatched__"),
        ({"route": object()}, "__unmatched__"),
        ({"route": None, "fastapi": None, "path_params": None}, "__unmatched__"),
        ({"fastapi": {"effective_route_context": None}}, "__unmatched__"),
        ({"fastapi": "something else"}, "__unmatched__"),
        ({"endpoint": answer}, f"endpoint:{__name__}.answer"),
        ({"endpoint": Called}, f"endpoint:{__name__}.Called"),
        ({"endpoint": Called()}, "__unmatched__"),
        ({"root_path": "/t", "endpoint": Called()}, "/t/*"),
        ({"root_path": "/t/x", "path_params": {"n": 7, "x": "x"}, "route": Route("/r", answer)}, "/{mount}/r"),
    ],
)
async def test_other_frameworks_leave_less_behind(scope, label):
    """A function as the endpoint (older versions of Starlette), or nothing."""
    assert route_template(scope) == label


async def test_the_middleware_goes_into_fastapi_as_any_other():
    """By ``add_middleware``; the app is built with its first request."""
    stand = Stand(None)
    app = fastapi_app()
    app.add_middleware(ResilienceMiddleware, resilience=stand.resilience, slo=["up", "fast"])

    @app.get("/fails")
    async def fails():
        raise LookupError

    stand.app = app
    await stand.ask("/v1/n/m/z/2")
    assert stand.sent[0]["status"] == 200
    await stand.ask("/v1/n/m/z/no-number")
    with pytest.raises(LookupError):
        await stand.ask("/fails")
    assert sorted(stand.labels()) == [("GET", "/fails", 500), ("GET", "/v1/n/m/z/{id}", 200), ("GET", "/v1/n/m/z/{id}", 422)]
    assert stand.ends() == {Outcome.GOOD: 2, Outcome.BAD: 1}
    assert stand.resilience.slos.counts("up", 3600.0) == (2, 1)


async def test_outside_of_an_app_the_answer_to_an_error_is_seen():
    """The outermost place: the framework's 500 passes by, and the exception after it changes nothing."""
    app = FastAPI()

    @app.get("/fails")
    async def fails():
        raise LookupError

    stand = Stand(app)
    with pytest.raises(LookupError):
        await stand.ask("/fails")
    assert stand.sent[0]["status"] == 500
    assert stand.labels() == [("GET", "/fails", 500)]
    assert stand.ends() == {Outcome.BAD: 1}


async def test_background_tasks_of_the_framework_are_no_part_of_the_request():
    """Starlette runs them after the last chunk, in the same call."""
    stand = Stand(None)

    async def later():
        stand.clock.advance(500.0)

    async def endpoint(request):
        from starlette.background import BackgroundTask

        return PlainTextResponse("answer", background=BackgroundTask(later))

    stand.app.app = Starlette(routes=[Route("/x", endpoint)])
    await stand.ask("/x")
    (view,) = stand.resilience.routes.views().values()
    assert view.seconds == 0.0
    assert stand.clock.monotonic() == 1_000_500.0
