"""A dashboard that says what it is told to say, on a loopback port."""

from __future__ import annotations

import copy
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "a-token-for-the-tests-of-top-0123456789"
NAME = "SOMARESIL_DASHBOARD_TOKEN"

GUARD = {
    "name": "llm.invoke",
    "pipeline": ["retry", "breaker", "timeout"],
    "worst_case": 31.5,
    "state": "open",
    "states": {"closed": 3, "open": 1},
    "held_by": ["breaker"],
    "window": 60.0,
    "rate": 12.5,
    "counts": {"good": 700, "bad": 20, "rejected": 5, "abandoned": 1, "ignored": 0, "injected": 10},
    "totals": {"good": 7000, "bad": 20, "rejected": 5, "abandoned": 1, "ignored": 0, "injected": 10},
    "error_share": 0.034,
    "injected_share": 0.013,
    "p50": 0.12,
    "p95": 0.8,
    "p99": None,
    "keys": {"open": 2},
    "throttled": None,
    "budget_scale": None,
    "series": {"calls": [12, 9, 0, 4], "bad": [0, 1, 0, 0], "rejected": [0, 0, 0, 5], "injected": [0] * 4, "p95": [0.1, None, 0.3, 0.8]},
}
QUIET = {**GUARD, "name": "memory.write", "state": "closed", "states": {"closed": 4}, "held_by": [], "error_share": 0.0, "keys": {}}
QUIET |= {"counts": dict.fromkeys(GUARD["counts"], 0), "injected_share": 0.0, "p50": None, "p95": None, "rate": 0.0}

PICTURE = {
    "version": 1,
    "service": "gateway",
    "environment": "demo",
    "at": 1764281900.4,
    "step": 5.0,
    "columns": [1764281885.0, 1764281890.0, 1764281895.0, 1764281900.0],
    "sources": [
        {"name": "gateway-1", "kind": "self", "state": "live", "at": 1764281900.2, "why": "", "process": 1, "address": ""},
        {"name": "gateway-2", "kind": "worker", "state": "stale", "at": 1764281895.4, "why": "", "process": 2, "address": ""},
        {"name": "gateway-3", "kind": "worker", "state": "missing", "at": None, "why": "no answer", "process": 3, "address": ""},
    ],
    "guards": [QUIET, GUARD],
    "routes": [{**{key: value for key, value in QUIET.items() if key not in {"pipeline", "state"}}, "name": "/v1/session/message"}],
    "objectives": [
        {
            "name": "api_availability",
            "target": 0.999,
            "period": 2592000.0,
            "kind": "availability",
            "policy": "fast_burn_alert",
            "good": 100,
            "bad": 1,
            "compliance": 0.99,
            "budget_left": 0.42,
            "burn": {"300": 1.2, "1800": 0.4, "3600": 0.3, "7200": None, "21600": 0.2, "86400": 0.1, "259200": 0.1},
            "exhausted_in": 86400.0,
            "alerts": [],
            "blocks": False,
            "budget_series": {"at": [1.0, 2.0], "left": [0.84, 0.42]},
        }
    ],
    "incidents": [
        {
            "id": "i1",
            "subject": "llm.invoke",
            "kind": "guard",
            "began": 1764281880.4,
            "ended": None,
            "recovered": None,
            "injected": True,
            "experiment": "latency-1",
            "detected_after": 0.1,
            "mitigated_after": None,
        }
    ],
    "experiments": [
        {
            "id": "latency-1",
            "kind": "latency",
            "target": "llm.*",
            "rate": 0.2,
            "duration": 60.0,
            "state": "running",
            "starts_at": 1764281880.0,
            "remaining": 41.2,
            "end_reason": None,
            "injected": 10,
            "absorbed": 8,
            "struck": {"llm.invoke": 10},
            "by": "alice",
            "sources": ["gateway-1"],
        }
    ],
    "chaos": {"allowed": True, "problems": [], "engaged": None, "environment": "demo"},
    "plans": [{"name": "slow model", "about": "800 ms on a fifth of the calls", "windows": 1}],
    "canaries": [
        {
            "name": "llm",
            "version": "2",
            "phase": "ramp_10",
            "weight": 0.1,
            "outcome": None,
            "reason": "",
            "paused": False,
            "began": 1.0,
            "evidence": [{"slo": "api", "against": "worse", "e_value": 3.0, "threshold": 100.0, "bad": 2, "events": 40}],
            "evidence_series": {"at": [1.0, 2.0, 3.0], "log10": {"worse": [0.0, 0.2, 0.5]}},
        }
    ],
    "pools": [{"name": "models", "endpoints": [{"name": "a", "state": "in", "weight": 1.0}]}],
    "limit": {"limit": 100, "active": 3, "waiting": 0},
}
DETAIL = {
    **GUARD,
    "options": {},
    "stages": [{"name": "retry", "says": "3 attempts", "worst_case": 31.5}, {"name": "breaker", "says": "half of 10", "worst_case": 10.0}],
    "timeline": [{"at": 1764281880.4, "source": "gateway-1", "before": "closed", "after": "open", "cause": "7 of 10 were bad"}],
    "tally": None,
    "rejections": {"circuit_open": 5},
    "heat": {"bounds": [0.1, 1.0, 10.0], "columns": [1.0, 2.0, 3.0], "cells": [[900, 4, 0, 1], [0, 0, 0, 0], [30, 0, 0, 0]]},
    "recent": [],
}


def event(number, said="a circuit opened", **more):
    """An entry of the event log."""
    return {
        "id": number,
        "source": "gateway-1",
        "at": 1764281880.0 + number,
        "kind": "BreakerChanged",
        "level": "warning",
        "about": "llm.invoke",
        "text": said,
        "facts": {},
    } | more


def picture(**changes):
    """The picture, with these parts of it changed."""
    return copy.deepcopy(PICTURE) | changes


class Dashboard:
    """What it says, and what it was asked."""

    def __init__(self):
        self.picture = picture()
        self.detail = DETAIL
        self.events = [event(1), event(2, "it closed again", level="info")]
        self.may = ["stop"]
        self.streams = True
        self.refuse = None
        """A status that everything is answered with."""
        self.for_all = False
        """Whether nobody needs a token."""
        self.content_type = "application/json"
        self.asked = []
        self.stopped = {"done": True, "sources": [{"name": "gateway-1", "done": True, "problem": ""}]}
        self.csrf_wrong = 0
        """So many POSTs are told that their header is of another process."""
        self.said = threading.Condition()
        self.queue = []
        self.open = True
        self.streaming = 0

    def say(self, kind, data, identity=""):
        """Send it to whoever follows."""
        head = f"id: {identity}\n" if identity else ""
        text = data if isinstance(data, str) else json.dumps(data)
        with self.said:
            self.queue.append(f"{head}event: {kind}\ndata: {text}\n\n".encode())
            self.said.notify_all()

    def end_streams(self):
        """Break off every stream."""
        with self.said:
            self.queue.append(None)
            self.said.notify_all()


class Handler(BaseHTTPRequestHandler):
    """Answers for the dashboard of its server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing."""

    def answer(self, status, data, content_type=None):
        body = data.encode() if isinstance(data, str) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", content_type or self.server.dashboard.content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def allowed(self):
        board = self.server.dashboard
        board.asked.append((self.command, self.path, dict(self.headers)))
        if board.refuse is not None:
            self.answer(board.refuse, "Not Found", "text/plain")
        elif not board.for_all and self.headers.get("authorization") != f"Bearer {TOKEN}":
            self.answer(404, "Not Found", "text/plain")
        else:
            return True
        return False

    def do_GET(self):
        board = self.server.dashboard
        if not self.allowed():
            return
        path = self.path.partition("?")[0].removeprefix("/_soma")
        if path == "/api/picture":
            self.answer(200, board.picture)
        elif path == "/api/session":
            self.answer(200, {"actor": "alice", "csrf": "c" * 20, "may": board.may})
        elif path == "/api/events":
            self.answer(200, {"events": board.events, "next": 3, "lost": 0})
        elif path == "/api/guards/llm.invoke":
            self.answer(200, board.detail)
        elif path == "/api/stream" and board.streams:
            self.stream(board)
        else:
            self.answer(404, {"detail": "there is no such resource"}, "application/problem+json")

    def do_POST(self):
        board = self.server.dashboard
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if not self.allowed():
            return
        if board.csrf_wrong or self.headers.get("x-somaresil-csrf") != "c" * 20:
            board.csrf_wrong -= 1
            self.answer(403, {"detail": "not of this page"}, "application/problem+json")
        else:
            self.answer(200, board.stopped)

    def stream(self, board):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("connection", "close")
        self.end_headers()
        board.streaming += 1
        try:
            while board.open:
                with board.said:
                    while board.open and not board.queue:
                        board.said.wait(0.5)
                    pieces, board.queue = board.queue, []
                for piece in pieces:
                    if piece is None:
                        return
                    self.wfile.write(piece)
                    self.wfile.flush()
        except OSError:
            return
        finally:
            board.streaming -= 1
            self.close_connection = True


@contextmanager
def serving():
    """A dashboard and its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.dashboard = Dashboard()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.dashboard, f"http://127.0.0.1:{server.server_address[1]}/_soma/"
    finally:
        server.dashboard.open = False
        server.dashboard.end_streams()
        server.shutdown()
        server.server_close()
        thread.join(5)


def eventually(holds, seconds=5.0):
    """Whether it comes to hold within that time."""
    waiting = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if holds():
            return True
        waiting.wait(0.01)
    return False
