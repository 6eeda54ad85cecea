"""The terminal view on a real terminal, at a real dashboard of four processes under load."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import httpx
import pytest

from tests.integration.test_demo_live import live

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(180)]

_ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")


class Terminal:
    """A terminal with ``top`` on it: what is typed, and everything that was drawn."""

    def __init__(self, place, *arguments, columns=100, lines=30, **environment):
        self.master, slave = pty.openpty()
        self.resize(columns, lines)
        known = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "LINES"}}
        known |= {"TERM": "xterm-256color", "SOMARESIL_DASHBOARD_TOKEN": place["token"], **environment}
        command = [sys.executable, "-m", "somaresil", "top", place["url"], *arguments]
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=known, start_new_session=True)
        self.slave = slave
        self.drawn = b""

    def resize(self, columns, lines):
        """Make the window another size."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys):
        """Type; what was drawn before is forgotten."""
        self.drawn = b""
        os.write(self.master, keys)

    def shows(self, *texts, seconds=30.0):
        """Whether all of it is drawn within that time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.1)[0]:
                self.drawn += os.read(self.master, 65_536)
            text = _ESCAPE.sub(b"", self.drawn).decode("utf-8", "replace")
            if all(each in text for each in texts):
                return True
        raise AssertionError(f"{texts} not in:\n{_ESCAPE.sub(b'', self.drawn).decode('utf-8', 'replace')[-3000:]}")

    def end(self, seconds=30.0):
        """The exit code, with the terminal as it was before."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.1)[0]:
                self.drawn += os.read(self.master, 65_536)
        code = self.process.poll()
        assert termios.tcgetattr(self.slave) == self.before
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self.master)
        os.close(self.slave)


def await_load(place, seconds=60.0):
    """Come back when every process is in the picture and requests are: what is drawn once must not be drawn too soon."""
    known = {"authorization": f"Bearer {place['token']}"}
    with httpx.Client(base_url=place["url"], headers=known, trust_env=False, timeout=20.0) as http:
        deadline = time.monotonic() + seconds
        while True:
            picture = http.get("api/picture").json()
            if picture["routes"] and len(picture["sources"]) == 4:
                return
            assert time.monotonic() < deadline, picture
            time.sleep(0.1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The live demo."""
    with live("--seed", "3", folder=tmp_path_factory.mktemp("live")) as (process, where):
        await_load(where)
        yield where
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.fixture
def terminal(place):
    """Makes terminals and ends them."""
    opened = []

    def open_(*arguments, **options):
        opened.append(Terminal(place, *arguments, **options))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


def test_the_whole_way_round(place, terminal):
    """All views by their keys, a circuit that opens by an experiment, the kill switch after a question, and the terminal as it was."""
    top = terminal(lines=45)
    assert top.shows("gateway", "4 sources", "worker.call", "memory.write", "closed", "q quit", "s kill switch")
    assert b"\x1b[?1049h" in top.drawn
    top.press(b"2")
    assert top.shows("api_availability", "budget left")
    top.press(b"4")
    assert top.shows("experiments are allowed here", "memory is cut off")
    known = {"authorization": f"Bearer {place['token']}"}
    with httpx.Client(base_url=place["url"], headers=known, trust_env=False, timeout=20.0) as http:
        csrf = {"x-somaresil-csrf": http.get("api/session").json()["csrf"]}
        started = http.post("api/experiments", json={"plan": "memory is cut off"}, headers=csrf)
        assert started.json()["done"], started.text
        top.press(b"1")
        assert top.shows("1 experiment runs", "open")
        top.press(b"\x1b[B\r")
        assert top.shows("memory.write", "pipeline", "worst case", "open > ")
        top.press(b"6")
        assert top.shows("breaker of memory.write went from")
        top.press(b"s")
        assert top.shows("stop every experiment of this service?")
        top.press(b"n")
        assert any(each["state"] == "running" for each in http.get("api/picture").json()["experiments"])
        top.press(b"4sy")
        assert top.shows("done in 4 processes", "ended")
        assert not any(each["state"] == "running" for each in http.get("api/picture").json()["experiments"])
    top.press(b"/slow")
    assert top.shows("filter: slow")
    top.press(b"\x1b")
    top.press(b"q")
    assert top.end() == 0
    assert b"\x1b[?1049l" in top.drawn
    assert b"\x1b[?25h" in top.drawn


def test_a_narrow_terminal_without_colours(terminal):
    """Sixty columns, NO_COLOR, and a window that changes its size: no line is longer than the terminal is wide."""
    top = terminal(columns=60, lines=24, NO_COLOR="1")
    assert top.shows("worker.call", "closed", "? help")
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", top.drawn)
    top.drawn = b""
    top.resize(40, 12)
    assert top.shows("worker.call")
    top.press(b"q")
    assert top.end() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_leaves_the_terminal_as_it_was(terminal, number, code):
    """However it is ended from outside."""
    top = terminal()
    assert top.shows("worker.call")
    top.process.send_signal(number)
    assert top.end() == code
    assert b"\x1b[?1049l" in top.drawn


def test_a_process_that_is_gone_is_said_to_be(tmp_path):
    """Who looks sees within seconds that one of two does not answer any more, and a script is told."""
    with live("--workers", "2", "--no-load", folder=tmp_path) as (process, place):
        top = Terminal(place)
        try:
            assert top.shows("2 sources")
            top.drawn = b""
            os.kill(place["processes"]["gateway-2"], signal.SIGKILL)
            assert top.shows("1 of 2 sources", str(place["processes"]["gateway-2"]))
            command = [sys.executable, "-m", "somaresil", "top", place["url"], "--fail-on", "missing"]
            known = os.environ | {"SOMARESIL_DASHBOARD_TOKEN": place["token"]}
            done = subprocess.run(command, capture_output=True, text=True, env=known, timeout=60, check=False)
            assert done.returncode == 1
            assert str(place["processes"]["gateway-2"]) in done.stderr
            top.press(b"q")
            assert top.end() == 0
        finally:
            top.close()
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def test_a_dumb_terminal_is_shown_it_once(terminal):
    """Plain text, without a single escape, and an end."""
    top = terminal(TERM="dumb")
    assert top.shows("worker.call", "route")
    assert top.end() == 0
    assert b"\x1b" not in top.drawn


def test_a_terminal_in_another_encoding_is_drawn_too(terminal):
    """With what it can show."""
    top = terminal(PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert top.shows("worker.call", "q quit")
    assert top.drawn.isascii()
    top.press(b"q")
    assert top.end() == 0
