"""What the tests of the verdict app share: a judge that says what it is told to, its app, and requests to it."""

from __future__ import annotations

import json
from typing import Any

import httpx

from somaresil.canary.ledger import Counts, Finding
from somaresil.canary.opinion import Opinion
from somaresil.events import DefectFound
from somaresil.model.rollout import Verdict
from somaresil.mounted.auth import BearerToken
from somaresil.verdict import verdict_app
from tests.unit.slo.kit import availability, process

TOKEN = "engine-0123456789-abcdefghijklmnop"
KNOWN = {"authorization": f"Bearer {TOKEN}"}
ROOT = "/canary"
FLAGGER = {"name": "gateway", "namespace": "soma", "phase": "Progressing", "checksum": "c1", "metadata": {"slo": "api"}}
PASS, FAIL, WAIT = Verdict.PASS, Verdict.FAIL, Verdict.WAIT


def opinion(verdict: Verdict, *, seen: int = 200, worse: float = 1.0, at: float | None = 1_700_000_000.0) -> Opinion:
    """An opinion with so many events of the candidate."""
    finding = Finding(verdict, f"because of {verdict}", worse, 0.5, 1.0, Counts(seen, 0, 1_000, 0))
    return Opinion(verdict, finding.reason, finding, at, ("gw-7: no answer",))


class Judge:
    """A judge of which the test decides what it says."""

    def __init__(self, said: Opinion | BaseException | None = None) -> None:
        self.said: Any = said or opinion(WAIT, seen=0, at=None)
        self.current = ""
        self.paused = ""
        self.begun: list[str] = []

    def begin(self, checksum: str) -> bool:
        if self.current != checksum:
            self.begun.append(checksum)
        self.current = checksum
        return True

    def peek(self, checksum: str) -> Opinion:
        return self.opinion(checksum) if checksum in self.begun or isinstance(self.said, BaseException) else opinion(WAIT, seen=0, at=None)

    def opinion(self, checksum: str) -> Opinion:
        if isinstance(self.said, BaseException):
            raise self.said
        return self.said if not callable(self.said) else self.said(checksum)


class Stand:
    """An app with one canary, mounted below ``ROOT``."""

    def __init__(self, judge: Any = None, *, name: str = "gateway", auth: Any = None, **options: Any) -> None:
        self.judge = Judge() if judge is None else judge
        self.resilience, self.clock = process(availability())
        self.defects: list[Any] = []
        self.resilience.on(self.defects.append, DefectFound)
        self.app = verdict_app({name: self.judge}, resilience=self.resilience, auth=auth or BearerToken({"engine": TOKEN}), **options)

    async def ask(self, method: str, path: str, *, headers: Any = None, known: bool = True, **more: Any) -> httpx.Response:
        """Send one request, with a token unless told otherwise."""
        transport = httpx.ASGITransport(self.app, root_path=ROOT)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            return await http.request(method, f"{ROOT}{path}", headers={**(KNOWN if known else {}), **(headers or {})}, **more)

    async def post(self, path: str, data: Any, **more: Any) -> httpx.Response:
        """Send JSON."""
        return await self.ask("POST", path, content=json.dumps(data), headers={"content-type": "application/json"}, **more)

    async def hook(self, hook: str, **more: Any) -> httpx.Response:
        """Send what Flagger sends."""
        return await self.post(f"/flagger/{hook}", {**FLAGGER, **more.pop("body", {})}, **more)

    async def argo(self, **asked: str) -> Any:
        """The data that Argo gets; it gets nothing but 200."""
        answer = await self.ask("GET", "/argo/verdict", params=asked)
        assert answer.status_code == 200
        return answer.json()["data"]

    async def query(self, query: str, **asked: str) -> httpx.Response:
        """Ask as Prometheus is asked."""
        return await self.ask("GET", "/prom/api/v1/query", params={"query": query, **asked})
