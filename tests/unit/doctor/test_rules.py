"""What the doctor finds in a service, and what it leaves alone."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.doctor.command import examine, read_project
from somaresil.doctor.findings import CODES
from somaresil.doctor.source import Source


@pytest.fixture
def found(tmp_path):
    def look(text="", **files):
        (tmp_path / "service.py").write_text(textwrap.dedent(text), encoding="utf-8")
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(textwrap.dedent(content), encoding="utf-8")
        return [f"{each.code}:{each.line}" for each in examine(read_project([str(tmp_path)]))]

    return look


def test_a_call_of_a_client_without_a_guard_is_found_however_it_is_named(found):
    assert found("""
        import httpx, requests as r
        from httpx import AsyncClient as Client
        from openai import AsyncOpenAI

        model = AsyncOpenAI()

        async def one(client: httpx.AsyncClient):
            await client.get("https://a")
            async with Client() as other:
                await other.post("https://b")
            await model.chat.completions.create()
            httpx.Client().get("https://c")

        class Service:
            def __init__(self):
                self.http = httpx.Client()

            def two(self):
                self.http.get("https://d")
                r.get("https://e", timeout=1)
        """) == ["SR101:9", "SR101:11", "SR101:12", "SR101:13", "SR101:20", "SR101:21"]


def test_calls_behind_a_guard_are_left_alone_whichever_way_they_go_through_it(found):
    assert not found("""
        import httpx
        from somaresil import Resilience

        resilience = Resilience("service")
        resilience.slos.add()
        weather = resilience.guard("weather")
        http = httpx.Client()

        @resilience.guard("a", breaker=True)
        def decorated():
            return http.get("https://a")

        @weather
        def by_name():
            return helper()

        def helper():
            return http.get("https://b")

        def block():
            with resilience.guard("c"):
                return http.get("https://c")

        def wrapped():
            return http.get("https://d")

        guarded = resilience.guard("d")(wrapped)
        resilience.call("e", http.get, "https://e")

        @weather.keyed(lambda tenant: tenant)
        def keyed(tenant):
            return http.get("https://f")
        """)


def test_a_helper_that_is_also_called_without_a_guard_is_found(found):
    assert found("""
        import httpx
        from somaresil import Resilience
        resilience = Resilience("service")
        resilience.slos.add()

        @resilience.guard("a")
        def guarded():
            return helper()

        def open():
            return helper()

        def helper():
            return httpx.get("https://a")
        """) == ["SR101:15"]


def test_a_client_that_a_hook_guards_needs_no_decorator(found):
    assert not found(
        """
        import httpx
        httpx.get("https://a")
        """,
        clients__py="from somaresil.integrations.httpx import guard_client\n",
    )


def test_calls_that_may_never_end_are_found_and_a_guard_with_a_timeout_ends_them(found):
    text = """
        import asyncio, socket, requests, urllib.request, httpx, aiohttp, redis
        from somaresil import Resilience
        resilience = Resilience("service")
        resilience.slos.add()

        @resilience.guard("a", timeout=5)
        async def cut():
            socket.create_connection(("a", 1))

        @resilience.guard("b", timeout=5)
        def not_cut():
            requests.get("https://a")
            requests.get("https://a", timeout=3)
            urllib.request.urlopen("https://a", None, 3)
            socket.create_connection(("a", 1), 3)
            httpx.get("https://a")
            httpx.get("https://a", timeout=None)
            requests.get("https://a", **options)
            httpx.Client(timeout=None)
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_read=3))
            redis.Redis()
        """
    assert found(text) == ["SR201:13", "SR202:18", "SR202:20", "SR202:21", "SR201:23"]


def test_names_of_guards_that_are_made_at_run_time_are_found(found):
    assert found("""
        from somaresil import Resilience
        resilience = Resilience("service")
        resilience.slos.add()
        for model in ("a", "b"):
            resilience.guard(f"llm.{model}")

        def call(tenant):
            return resilience.guard(f"llm.{tenant}"), resilience.guard("llm." + tenant), resilience.guard("llm")
        """) == ["SR102:9", "SR102:9"]


def test_breakers_that_cannot_work_are_found(found):
    assert found("""
        import pybreaker
        breaker = pybreaker.CircuitBreaker()

        @breaker
        async def nothing_opens(): ...

        @breaker
        def works(): ...

        async def handler():
            return pybreaker.CircuitBreaker().call(works)
        """) == ["SR103:5", "SR104:12"]


def test_an_app_without_the_middleware_and_one_that_is_not_outermost_are_found(found):
    assert found("from fastapi import FastAPI\napp = FastAPI()\n") == ["SR301:2"]
    assert found("""
        from fastapi import FastAPI
        from starlette.middleware.base import BaseHTTPMiddleware
        from starlette.middleware.gzip import GZipMiddleware
        from somaresil import ResilienceMiddleware

        class Own(BaseHTTPMiddleware): ...

        app = FastAPI()
        app.add_middleware(ResilienceMiddleware, resilience=resilience, slo="api")
        app.add_middleware(GZipMiddleware)
        """) == ["SR303:7", "SR302:10"]
    assert not found("""
        from fastapi import FastAPI
        from somaresil import ResilienceMiddleware
        app = FastAPI()
        app = ResilienceMiddleware(app, resilience, slo="api")
        """)
    assert found("""
        from fastapi import FastAPI
        from somaresil import ResilienceMiddleware
        app = ResilienceMiddleware(FastAPI(), resilience)
        """) == ["SR402:4"]


def test_guards_without_any_objective_are_told_once(found):
    text = """
        from somaresil import Resilience
        resilience = Resilience("service")
        a, b = resilience.guard("a"), resilience.guard("b")
        """
    assert found(text) == ["SR401:4"]
    assert not found(text, objectives__py="from somaresil.slofile import read_slos\nread_slos('x')\n")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("Procfile", "web: gunicorn app:app -w 4 -k uvicorn_worker.UvicornWorker\n", 1),
        ("Dockerfile", 'FROM python\nCMD ["uvicorn", "app:app", "--workers", "2"]\n', 2),
        ("gunicorn_conf__py", "bind = 'x'\nworkers = 4\n", 2),
        ("compose__yaml", "services:\n  a:\n    environment:\n      WEB_CONCURRENCY: 3\n", 4),
    ],
)
def test_several_workers_that_share_nothing_are_found(found, name, content, line):
    uses = "from somaresil.integrations.prometheus import install\n"
    assert found(uses, **{name: content}) == [f"SR501:{line}", f"SR502:{line}"]
    assert not found("", **{name: content})


def test_one_worker_and_workers_that_share_are_left_alone(found):
    uses = "from somaresil.integrations.prometheus import install\n"
    assert not found(uses, Procfile="web: gunicorn app:app -w 1\n")
    shares = "web: PROMETHEUS_MULTIPROC_DIR=/run/m SOMARESIL_SLO_SNAPSHOT=/run/s gunicorn app:app --workers=4\n"
    assert not found(uses, Procfile=shares)


def test_a_comment_silences_one_code_on_its_line(found):
    assert found("""
        import requests
        requests.get("https://a")  # somaresil: ignore[SR101] - a script
        requests.get("https://b")  # somaresil: ignore[SR101, SR201]
        """) == ["SR201:3"]


@given(st.text(max_size=60))
def test_whatever_a_file_holds_it_is_read_or_refused(text):
    try:
        source = Source(None, text)
    except (SyntaxError, ValueError):
        return
    assert source.calls is not None


def test_every_code_has_a_level_that_is_one():
    assert {code.level for code in CODES.values()} == {"error", "warning", "info"}
