"""The page against the real demo: four worker processes under load, faults that strike, a breaker that opens, a worker that dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.browser.pictures import HOSTILE
from tests.browser.stub import SEEN
from tests.browser.test_page import findings, patient_expect

PICTURES = Path(__file__).parents[2] / "docs" / "images"
WORKERS = 4
GUARD = "llm.stream"
CUT = "ERR_INCOMPLETE_CHUNKED_ENCODING"
"""What a browser says of a stream whose process was killed."""
VIEWS = {
    "overview": ("#/overview", "Overview"),
    "slos": ("#/slos", "Objectives"),
    "slo": ("#/slos/api_availability", "api_availability"),
    "guard": (f"#/guards/{GUARD}", GUARD),
    "chaos": ("#/chaos", "Chaos"),
    "canary": ("#/canary", "Canary"),
    "events": ("#/events", "Events"),
}


class Demo:
    """The running demo, and how to ask it without a browser."""

    def __init__(self, process, place):
        self.process = process
        self.page = place["url"]
        self.processes = place["processes"]
        self.credentials = {"username": place["actor"], "password": place["token"]}
        self._http = httpx.Client(headers={"authorization": f"Bearer {place['token']}"}, timeout=10)

    def ask(self, path):
        return self._http.get(f"{self.page}api/{path}").raise_for_status().json()

    def until(self, condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come true"
            time.sleep(0.1)

    def close(self):
        self._http.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def demo(browser):
    """Start it once. What is read of its output is one line; the rest is said only if it fails."""
    command = [sys.executable, "-m", "somaresil", "demo", "live", "--workers", str(WORKERS), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if not line:
        pytest.fail(f"the demo did not start: {process.communicate(timeout=30)[1][-2000:]}")
    running = Demo(process, json.loads(line))
    try:
        running.until(lambda: (running.ask("picture")["guards"] or [{}])[0].get("rate"))
        yield running
    finally:
        running.close()


@pytest.fixture
def expect():
    return patient_expect()


def shoot(page, name):
    """Keep a picture for the docs, if that is asked for."""
    if os.environ.get("SOMARESIL_SCREENSHOTS"):
        PICTURES.mkdir(exist_ok=True)
        page.mouse.move(0, 0)
        page.wait_for_timeout(300)
        page.screenshot(path=PICTURES / f"dashboard-{name}.png")


def history(page):
    """Have something to show on pictures for the docs."""
    if os.environ.get("SOMARESIL_SCREENSHOTS"):
        page.wait_for_timeout(90_000)


def enter(page, expect, where, title, demo):
    page.goto(demo.page + where)
    expect(page.locator("h1")).to_have_text(title)
    expect(page.locator(".link")).to_contain_text("live")
    expect(page.locator("main")).not_to_contain_text("Asking …")


@pytest.mark.slow
def test_every_view_of_four_workers_under_load_is_there_for_everybody(demo, visit, expect):
    """All workers are one service, nothing is on the console, and axe finds nothing serious in either theme."""
    page = visit(demo.page, http_credentials=demo.credentials)
    expect(page.locator(".sources")).to_contain_text(f"{WORKERS} sources, and all answer.")
    expect(page.locator("tbody tr", has_text=GUARD).first).to_contain_text(re.compile(r"\d/s"))
    for where, title in VIEWS.values():
        enter(page, expect, where, title, demo)
        assert not re.search(r"NaN|undefined|\[object|Infinity|\bnull\b", page.locator("body").inner_text()), where
    readable = visit(demo.page, http_credentials=demo.credentials, bypass_csp=True)
    for where, title in VIEWS.values():
        enter(readable, expect, where, title, demo)
        assert findings(readable) == [], where
        readable.keyboard.press("t")
        assert findings(readable, runOnly=["color-contrast"]) == [], where


@pytest.mark.slow
def test_the_plain_table_is_there_without_scripts(demo, visit, expect):
    page = visit(demo.page, http_credentials=demo.credentials, java_script_enabled=False)
    expect(page.locator("body")).to_contain_text(GUARD)
    assert page.url.endswith("/plain")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_experiment_is_started_seen_and_killed_and_a_worker_that_dies_is_missed(demo, visit, expect):
    """A breaker that opens is on the screen within a second of its event; one key and Enter end what runs in every worker."""
    page = visit(demo.page + "#/chaos", http_credentials=demo.credentials, expected=[CUT])
    history(page)
    start(page, expect)
    see_it_open(page, demo, expect)
    look_closer(page, demo, expect)
    pictured(demo, visit, expect)
    kill(page, demo, expect)
    keep_it_stopped(page, expect)
    pause_the_release(page, demo, expect)
    miss_a_worker(page, demo, expect)


def start(page, expect):
    page.get_by_role("button", name="Start model fails").click()
    page.keyboard.press("Enter")
    expect(page.locator(".notice")).to_contain_text(f"done in {WORKERS} processes")


def see_it_open(page, demo, expect):
    page.get_by_role("link", name="Overview").click()
    page.evaluate(SEEN, GUARD)
    expect(page.locator("body")).to_have_attribute("data-opened", re.compile(r"\d"), timeout=30_000)
    opened = float(page.locator("body").get_attribute("data-opened"))
    changes = demo.ask("events?kind=BreakerChanged&most=200")["events"]
    first = min(change["at"] for change in changes if change["about"] == GUARD and change["facts"].get("after") == "open")
    assert -0.1 < opened - first < 1
    expect(page.locator("[data-said]")).to_have_text(re.compile(rf"{GUARD} is |experiment"))
    expect(page.locator(".banner.chaos")).to_contain_text(f"error on {GUARD}")
    shoot(page, "overview-light")


def look_closer(page, demo, expect):
    page.goto(demo.page + f"#/guards/{GUARD}")
    expect(page.get_by_role("region", name="Changes of state").locator("tbody tr").first).to_contain_text("open")
    shoot(page, "guard-light")
    page.goto(demo.page + "#/chaos")
    row = page.get_by_role("region", name="Running and scheduled").locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text(re.compile(r"[1-4]?\d s"))
    shoot(page, "chaos-light")


def kill(page, demo, expect):
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.locator(".notice")).to_contain_text(f"Stop all chaos: done in {WORKERS} processes.")
    expect(page.get_by_role("region", name="Running and scheduled")).to_contain_text("No experiment runs")
    expect(page.get_by_role("region", name="Ended lately").locator("tbody tr").first).to_contain_text("error")
    assert [one["state"] for one in demo.ask("experiments")["experiments"] if one["state"] == "running"] == []


def keep_it_stopped(page, expect):
    """What is typed as the reason is text wherever it is shown."""
    page.keyboard.press("k")
    page.get_by_label("If it is to stay stopped: why?").fill(HOSTILE)
    page.get_by_role("button", name="Stop and keep it stopped").click()
    expect(page.locator(".switch")).to_contain_text(HOSTILE)
    expect(page.get_by_role("button", name="Start model fails")).to_be_disabled()
    assert page.locator("img").count() == 0
    page.get_by_role("button", name="Release").click()
    page.keyboard.press("Enter")
    expect(page.locator(".switch")).to_contain_text("released")


def pause_the_release(page, demo, expect):
    page.goto(demo.page + "#/canary")
    page.get_by_role("button", name="Pause").click()
    page.keyboard.press("Enter")
    expect(page.locator(".notice")).to_contain_text("Pause llm.stream: done")
    expect(page.locator("article")).to_contain_text("paused")
    expect(page.get_by_role("button", name="Resume")).to_be_visible()


def miss_a_worker(page, demo, expect):
    """Killed without a word: the page names it."""
    dead = next(number for name, number in demo.processes.items() if name.startswith("gateway-"))
    page.goto(demo.page + "#/overview")
    os.kill(dead, signal.SIGKILL)
    expect(page.locator(".sources li", has_text=f"process {dead}")).to_contain_text("missing", timeout=20_000)
    expect(page.locator(".banner.warn")).to_contain_text("1 source missing")


def pictured(demo, visit, expect):
    """Pictures for the docs of other views, in the dark and on a narrow screen."""
    if not os.environ.get("SOMARESIL_SCREENSHOTS"):
        return
    for view, scheme, width, height, name in (
        ("overview", "dark", 1280, 900, "overview-dark"),
        ("slos", "dark", 1280, 900, "slos-dark"),
        ("canary", "light", 1280, 700, "canary-light"),
        ("events", "light", 1100, 560, "events-light"),
        ("overview", "light", 320, 900, "overview-narrow"),
    ):
        page = visit(demo.page, width=width, height=height, scheme=scheme, http_credentials=demo.credentials, expected=[CUT])
        enter(page, expect, *VIEWS[view], demo)
        page.wait_for_timeout(1500)
        shoot(page, name)
