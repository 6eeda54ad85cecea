"""What is added to a module with an app: so little that it can be read, and it runs."""

from __future__ import annotations

import difflib

import pytest
from starlette.testclient import TestClient

from somaresil.adopt.edit import AdoptionError, AlreadyThere, adopted, service_name

FASTAPI = '''"""Gateway."""

from fastapi import FastAPI

app = FastAPI()


@app.middleware("http")
async def version(request, call_next):
    answer = await call_next(request)
    answer.headers["x-version"] = "1"
    return answer


@app.get("/items/{item}")
async def item(item: str):
    return {"item": item}


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app)
'''
STARLETTE = """from datetime import timedelta

from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

AGE = timedelta(seconds=1)


async def events(request):
    async def body():
        yield "data: one\\n\\n"

    return StreamingResponse(body(), media_type="text/event-stream")


def create_app():
    application = Starlette(routes=[Route("/events", events)])
    application.state.age = AGE
    return application
"""
DJANGO = """import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

application = get_asgi_application()
"""


def added(before, **options):
    after = adopted(before, service="gateway", **options)
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    assert not [line for line in lines if line.startswith("- ")], "no line is taken away"
    return after, [line[2:] for line in lines if line.startswith("+ ")]


def test_a_fastapi_app_runs_as_before_and_its_requests_count():
    after, lines = added(FASTAPI)
    assert len(lines) < 15
    scope = {"__name__": "service"}
    exec(compile(after, "service", "exec"), scope)
    with TestClient(scope["app"]) as client:
        answer = client.get("/items/7")
    assert (answer.json(), answer.headers["x-version"]) == ({"item": "7"}, "1")
    assert scope["resilience"].snapshot().routes["/items/{item}"].total("good") == 1
    assert after.index("add_middleware") < after.index("__main__"), "before it is run, and after every other middleware"


def test_a_factory_adds_it_before_it_returns_the_app_and_streams_count():
    after, lines = added(STARLETTE)
    assert len(lines) < 15
    assert sum("timedelta" in line for line in lines) == 1, "what is imported already is used"
    scope = {"__name__": "service"}
    exec(compile(after, "service", "exec"), scope)
    with TestClient(scope["create_app"]()) as client:
        assert client.get("/events").text == "data: one\n\n"
    assert scope["resilience"].snapshot().routes["/events"].total("good") == 1


def test_django_s_application_is_wrapped_and_a_router_around_it_too():
    after, lines = added(DJANGO)
    assert lines[-1] == 'application = ResilienceMiddleware(application, resilience, slo="api_availability")'
    assert len(lines) < 15
    routed = DJANGO + 'application = ProtocolTypeRouter({"http": application})\n'
    after, _ = added(routed)
    assert after.index("ProtocolTypeRouter") < after.index("ResilienceMiddleware(application")


def test_what_is_imported_later_does_not_move_the_middleware_before_what_it_needs():
    after, _ = added(DJANGO + "from project import urls\n")
    assert after.index("resilience = ") < after.index("ResilienceMiddleware(application") < after.index("from project")


def test_line_ends_stay_as_they_are_and_a_missing_last_one_is_made():
    after = adopted("from fastapi import FastAPI\r\napp = FastAPI()", service="gateway")
    assert after.count("\n") == after.count("\r\n")
    assert after.endswith("\r\n")


def test_it_is_done_once():
    with pytest.raises(AlreadyThere):
        adopted(adopted(FASTAPI, service="gateway"), service="gateway")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def (", "no Python"),
        ("x = 1\n", "no FastAPI"),
        ("from fastapi import FastAPI\na = FastAPI()\nb = FastAPI()\n", "several apps: --app a or --app b"),
        ("from fastapi import FastAPI\nresilience = 1\napp = FastAPI()\n", "`resilience` is taken"),
        ("from fastapi import FastAPI\ntimedelta = 1\napp = FastAPI()\n", "`timedelta` is taken"),
        ("from fastapi import FastAPI\ndef f(x):\n    app = FastAPI()\n    if x:\n        return app\n    return None\n", "one return"),
        ("from fastapi import FastAPI\ndef f(x):\n    app = FastAPI()\n    return 1\n    return app\n", "one return"),
    ],
)
def test_what_is_not_clear_is_refused_with_words(text, why):
    with pytest.raises(AdoptionError) as refused:
        adopted(text, service="gateway")
    assert why in str(refused.value)


def test_one_of_several_apps_is_chosen_by_name():
    text = "from fastapi import FastAPI\na = FastAPI()\nb = FastAPI()\n"
    assert "b.add_middleware" in adopted(text, service="gateway", app="b")
    with pytest.raises(AdoptionError, match="no app is called 'c'"):
        adopted(text, service="gateway", app="c")
    with pytest.raises(AdoptionError, match="other characters"):
        adopted(text, service='x")', app="b")


def test_the_name_of_a_folder_becomes_one_that_a_service_may_have():
    assert service_name("my gateway!") == "my-gateway"
    assert service_name("...") == "service"
