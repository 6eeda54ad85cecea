"""`somaresil init` on three apps as people have them: they answer as before, on a real server, and every request counts."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import httpx
import pytest

from tests.integration.servers import HOST, accepts, free_port

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

FASTAPI = """from fastapi import FastAPI, HTTPException

app = FastAPI()


@app.get("/items/{item}")
async def item(item: int):
    if item == 0:
        raise HTTPException(503)
    return {"item": item}
"""
STARLETTE = """import asyncio

from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

more = asyncio.Event()


async def stream(request):
    async def words():
        yield "data: one\\n\\n"
        await more.wait()
        yield "data: two\\n\\n"

    return StreamingResponse(words(), media_type="text/event-stream")


async def go_on(request):
    more.set()
    return JSONResponse({"item": int(request.path_params["item"])})


app = Starlette(routes=[Route("/stream", stream), Route("/items/{item}", go_on)])
"""
DJANGO = """import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

application = get_asgi_application()
"""
SETTINGS = """SECRET_KEY = "only-for-this-test"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "shop.urls"
"""
URLS = """from django.http import JsonResponse
from django.urls import path

urlpatterns = [path("items/<int:item>", lambda request, item: JsonResponse({"item": item}))]
"""
PROBE = """import json

from {module} import {name} as served
try:
    from {module} import resilience
except ImportError:
    resilience = None


async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/__counts":
        routes = {{}} if resilience is None else {{name: counts.total() for name, counts in resilience.snapshot().routes.items()}}
        left = None if resilience is None else resilience.slos.error_budget("api_availability").remaining_share
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": json.dumps([routes, left]).encode()}})
    else:
        await served(scope, receive, send)
"""
APPS = {
    "fastapi": ({"main.py": FASTAPI}, "main.py", "main", "app"),
    "starlette": ({"main.py": STARLETTE}, "main.py", "main", "app"),
    "django": ({"shop/asgi.py": DJANGO, "shop/settings.py": SETTINGS, "shop/urls.py": URLS}, "shop/asgi.py", "shop.asgi", "application"),
}


class Sample:
    """One of the apps, in a folder of its own."""

    def __init__(self, name, folder):
        files, self.file, module, app = APPS[name]
        self.folder = folder
        for path, text in files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        (folder / "probe.py").write_text(PROBE.format(module=module, name=app), encoding="utf-8")

    def text(self):
        """The file that makes the app."""
        return (self.folder / self.file).read_text(encoding="utf-8")

    def command(self, *arguments):
        """The command of somaresil, as JSON."""
        command = [sys.executable, "-m", "somaresil", *arguments, "--json"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    def served(self, ask):
        """What ``ask`` finds while the app is served by uvicorn."""
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "probe:app", "--host", HOST, "--port", str(port), "--log-level", "warning"]
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60.0
            while not accepts(port):
                assert process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            with httpx.Client(base_url=f"http://{HOST}:{port}", trust_env=False, timeout=30.0) as http:
                return ask(http)
        finally:
            process.terminate()
            process.wait(20)


def asked(http):
    """What clients see."""
    return [(answer.status_code, answer.json()) for answer in (http.get(f"/items/{item}") for item in (1, 2))]


@pytest.mark.parametrize("name", sorted(APPS))
def test_an_app_answers_as_before_and_is_guarded(name, tmp_path):
    """Shown, added once, fewer than fifteen lines; then every request counts for the objective."""
    if name == "django":
        pytest.importorskip("django", reason="django is not installed")
    sample = Sample(name, tmp_path)
    before = sample.text()
    old = sample.served(asked)
    assert old == [(200, {"item": 1}), (200, {"item": 2})]
    assert sample.command("init", sample.file, "--dry-run")[0] == 1
    assert sample.text() == before
    code, said = sample.command("init", sample.file, "--yes")
    assert (code, said["result"]) == (0, "added")
    changed = [line for line in said["diff"] if line[:1] in "+-" and line[:3] not in {"+++", "---"}]
    assert 0 < len(changed) < 15
    assert not any(line.startswith("-") for line in changed)
    after = sample.text()
    assert sample.command("init", sample.file, "--yes")[1]["result"] == "already there"
    assert sample.text() == after

    def look(http):
        seen = asked(http)
        return seen, http.get("/__counts").json()

    new, (routes, left) = sample.served(look)
    assert new == old
    assert sum(routes.values()) == 2
    assert left == 1.0


def test_a_stream_still_streams(tmp_path):
    """The first event is there before the last one is made."""
    sample = Sample("starlette", tmp_path)
    assert sample.command("init", sample.file, "--yes")[0] == 0

    def stream(http):
        with http.stream("GET", "/stream") as answer:
            events = answer.iter_lines()
            first = next(events)
            http.get("/items/1")
            return first, [line for line in events if line]

    assert sample.served(stream) == ("data: one", ["data: two"])


def test_an_error_counts_against_the_objective(tmp_path):
    sample = Sample("fastapi", tmp_path)
    assert sample.command("init", sample.file, "--yes")[0] == 0
    routes, left = sample.served(lambda http: (http.get("/items/0"), http.get("/__counts").json())[1])
    assert sum(routes.values()) == 1
    assert left < 1.0


@pytest.mark.parametrize("name", sorted(APPS))
def test_the_doctor_finds_nothing_wrong_with_an_app_that_was_adopted(name, tmp_path):
    """Neither middleware nor objectives are missed."""
    sample = Sample(name, tmp_path)
    (tmp_path / "probe.py").unlink()
    assert sample.command("init", sample.file, "--yes")[0] == 0
    code, said = sample.command("doctor", ".")
    assert (code, [each for each in said["findings"] if each["level"] != "note"]) == (0, [])


def test_the_doctor_finds_what_was_left_out(tmp_path):
    """A call without a guard, one without an end, a middleware that another one is put around, a name that is made at run time."""
    sample = Sample("fastapi", tmp_path)
    assert sample.command("init", sample.file, "--yes")[0] == 0
    (tmp_path / sample.file).write_text(
        sample.text()
        + """
import httpx
from starlette.middleware.gzip import GZipMiddleware

app.add_middleware(GZipMiddleware)


@app.get("/far/{name}")
async def far(name: str):
    resilience.guard(f"far.{name}", timeout=1.0)
    return (await httpx.AsyncClient(timeout=None).get(f"https://example.org/{name}")).json()
""",
        encoding="utf-8",
    )
    code, said = sample.command("doctor", sample.file)
    assert code == 1
    found = {each["code"] for each in said["findings"]}
    assert len(found) >= 3, said
