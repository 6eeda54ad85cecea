"""What is answered to whoever looks: the page, its files, its JSON, and what is not there."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys

import pytest

from somaresil import Resilience
from somaresil.dashboard.assets import Assets
from somaresil.mounted.request import Request
from tests.unit.dashboard_app.kit import ALICE, ROOT, Stand

HTML = {"accept": "text/html,application/xhtml+xml"}


def asked(**headers):
    listed = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": listed}, None, "alice")


def body_and_headers(answer):
    start, body = answer.messages()
    return body["body"], dict(start["headers"]), start["status"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "views").mkdir()
    (tmp_path / "app.js").write_text("export const a = 1;\n" * 100)
    (tmp_path / "views" / "one.js").write_text("one")
    (tmp_path / "program.exe").write_text("no")
    (tmp_path / "index.html").write_text("<!doctype html>")
    return tmp_path


def test_files_are_known_by_name_and_no_path_leads_elsewhere(folder):
    assets = Assets(folder)
    assert assets.names == ("app.js", "index.html", "views/one.js")
    names = ("../app.js", "views/../app.js", "/app.js", "./app.js", "views", "views/", "program.exe", "..", "", "app.js\0", "APP.JS")
    assert [assets.answer(name, asked()) for name in names] == [None] * len(names)


def test_a_file_comes_compressed_to_whoever_takes_that_and_both_have_tags_of_their_own(folder):
    assets = Assets(folder)
    plain, headers, _ = body_and_headers(assets.answer("app.js", asked()))
    packed, packed_headers, _ = body_and_headers(assets.answer("app.js", asked(accept_encoding="br, gzip;q=0.8")))
    assert gzip.decompress(packed) == plain == (folder / "app.js").read_bytes()
    assert len(packed) < len(plain) / 10
    assert (packed_headers[b"content-encoding"], headers.get(b"content-encoding")) == (b"gzip", None)
    assert packed_headers[b"etag"] != headers[b"etag"]
    assert headers[b"vary"] == packed_headers[b"vary"] == b"accept-encoding"
    for refused in ("gzip;q=0", "gzip; q=0.0", "identity", "gzipx"):
        assert b"content-encoding" not in body_and_headers(assets.answer("app.js", asked(accept_encoding=refused)))[1]


def test_a_file_that_has_not_changed_is_not_sent_again(folder):
    assets = Assets(folder)
    tag = body_and_headers(assets.answer("app.js", asked()))[1][b"etag"].decode()
    for given in (tag, f'W/{tag}, "other"', "*"):
        body, headers, status = body_and_headers(assets.answer("app.js", asked(if_none_match=given)))
        assert (status, body, headers[b"etag"].decode(), b"content-length" in headers) == (304, b"", tag, False)
    (folder / "app.js").write_text("another")
    assert body_and_headers(Assets(folder).answer("app.js", asked(if_none_match=tag)))[2] == 200


def test_nobody_may_ask_for_a_part(folder):
    body, headers, status = body_and_headers(Assets(folder).answer("app.js", asked(range="bytes=0-1,2-3,4-5")))
    assert (status, len(body)) == (200, (folder / "app.js").stat().st_size)
    assert b"accept-ranges" not in headers


@pytest.mark.asyncio
async def test_the_page_may_do_little(stand):
    for path in ("/plain", "/plain.css"):
        headers = (await stand.get(path)).headers
        policy = headers["content-security-policy"]
        assert "'unsafe" not in policy
        for rule in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"):
            assert rule in policy
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.asyncio
async def test_without_a_slash_at_its_end_the_page_is_moved_to_where_its_files_are_found(stand):
    answer = await stand.get("")
    assert (answer.status_code, answer.headers["location"]) == (307, "./_soma/")


@pytest.mark.asyncio
@pytest.mark.parametrize("root_path", [ROOT, "", "/api", "/elsewhere"])
async def test_it_does_not_matter_whether_somebody_says_where_it_is_mounted(stand, root_path):
    """A framework says it, whoever looks at the path himself does not, and one behind a proxy says something else."""
    assert (await stand.get("/api/picture", root_path=root_path)).status_code == 200


@pytest.mark.asyncio
async def test_names_with_strange_characters_are_names(stand):
    stand.resilience.guard("tools/{name}:run-1", breaker=True)
    assert (await stand.get("/api/guards/tools%2F%7Bname%7D:run-1")).json()["name"] == "tools/{name}:run-1"
    assert (await stand.post("/api/breakers/tools%2F%7Bname%7D:run-1/trip", {})).status_code == 200
    assert stand.resilience.breaker("tools/{name}:run-1").state.value == "open"


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/nothing", "/api/guards/nobody", "/api/objectives/none", "/api/canaries/none", "/static/no.js"])
async def test_what_is_not_there_is_said_to_programs_and_to_people(stand, path):
    for_programs, for_people = await stand.get(path, headers={"accept": "application/json"}), await stand.get(path, headers=HTML)
    assert for_programs.status_code == for_people.status_code == 404
    assert for_programs.headers["content-type"] == "application/problem+json"
    assert for_programs.json()["detail"] in for_people.text
    assert for_people.headers["content-type"].startswith("text/html")
    home = re.search(r'<a href="([^"]+)"', for_people.text)[1]
    assert home == "../" * (path.count("/") - 1) or home == "./"


@pytest.mark.asyncio
async def test_methods_that_are_not_there_are_said(stand):
    answer = await stand.ask("DELETE", "/api/picture")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (await stand.ask("OPTIONS", "/api/experiments")).headers["allow"] == "GET, HEAD, OPTIONS, POST"
    head = await stand.ask("HEAD", "/api/picture")
    assert (head.status_code, head.content, int(head.headers["content-length"]) > 0) == (200, b"", True)
    assert (await stand.ask("HEAD", "/api/stream")).headers["content-type"] == "text/event-stream"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "query", ["?most=0", "?most=-1", "?most=x", "?most=1001", "?after=%00", "?kinds=X", "?kind=a&kind=b", "?" + "a=1&" * 50]
)
async def test_a_query_that_is_not_understood_is_refused(stand, query):
    assert (await stand.get(f"/api/events{query}")).status_code == 400


@pytest.mark.asyncio
async def test_the_picture_names_the_plans_that_may_be_started(stand):
    plans = [{"name": "slow model", "about": "latency on llm.*, 20 % of the calls, 30 s", "windows": 1, "duration": 30}]
    assert (await stand.get("/api/picture")).json()["plans"] == plans
    assert (await stand.get("/api/experiments")).json()["plans"] == plans


@pytest.mark.asyncio
async def test_peers_are_told_what_can_be_added_to_theirs_and_not_anew_for_each_of_them(stand):
    told = await stand.get("/api/picture?own=1")
    assert told.headers["content-type"] == "application/json"
    assert "llm.invoke" in told.json()["guards"]
    stand.guard.call(int)
    assert (await stand.get("/api/picture?own=1")).content == told.content
    stand.clock.advance(1.1)
    assert (await stand.get("/api/picture?own=1")).content != told.content


@pytest.mark.asyncio
async def test_answers_are_kept_by_nobody(stand):
    for path in ("/api/picture", "/api/session", "/plain", "/nothing"):
        assert (await stand.get(path)).headers["cache-control"] == "no-store"


def test_who_has_no_dashboard_has_nothing_of_it():
    """No module, no thread, no listener."""
    program = (
        "import sys, threading; from somaresil import Resilience; r = Resilience('x'); r.guard('a', breaker=True).call(int); r.snapshot();"
        "assert not [m for m in sys.modules if m.startswith('somaresil.dashboard')]; assert threading.active_count() == 1;"
        "assert not r.listeners.wants(object)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_it_is_named_for_whoever_prints_it():
    stand, looking = Stand(), Resilience("tests").dashboard(auth=lambda scope: None, controls=())
    assert repr(stand.app) == "<DashboardApp of 'tests', operators may stop, engage, experiment, breaker, canary>"
    assert repr(looking) == "<DashboardApp of 'tests', read only>"
    assert ALICE not in repr(stand.app.__dict__)
