"""The addresses and queries that are rendered, before the app that answers them."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from urllib.parse import urlencode, urlsplit

import pytest

from somaresil import SLO, CanaryConfig, ManualClock, Resilience
from somaresil.canary import Verdict
from somaresil.canary.ledger import Counts, Finding
from somaresil.canary.opinion import Opinion
from somaresil.canary.render import RenderOptions, documents
from somaresil.mounted.auth import BearerToken
from somaresil.verdict import verdict_app
from tests.unit.verdict.kit import TOKEN

BASE = "http://verdicts:8080/canary"
CONFIG = CanaryConfig(name="gateway", bad="availability", steps=[10, 50, 100])
TARGET = RenderOptions(name="gateway", verdict_url=BASE, burn=14.4)
HOOKS = {
    Verdict.PASS: {"rollback"},
    Verdict.FAIL: {"confirm-rollout", "pre-rollout", "rollout", "confirm-traffic-increase", "confirm-promotion"},
    Verdict.WAIT: {"rollback", "rollout", "confirm-traffic-increase", "confirm-promotion"},
}
"""Which hooks are answered with no."""


class Judge:
    def __init__(self, said):
        self.said = said

    def opinion(self, checksum, **_):
        return Opinion(self.said, "as told", Finding(Verdict.WAIT, "", 1.0, 1.0, 1.0, Counts(candidate_good=50)), at=1.0)


def asker(said):
    """Give a function that asks the app at an address, and gives status and body."""
    resilience = Resilience("service", clock=ManualClock())
    resilience.slos.add(SLO("availability", 99.0, timedelta(days=1)))
    app = verdict_app({"gateway": Judge(said)}, resilience=resilience, auth=BearerToken({"engine": TOKEN}))

    def ask(url, body=None):
        address = urlsplit(url)
        path = address.path.removeprefix("/canary")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET" if body is None else "POST",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": address.query.encode(),
            "headers": [(b"content-type", b"application/json"), (b"authorization", f"Bearer {TOKEN}".encode())],
            "client": ("127.0.0.1", 1),
        }
        sent = []

        async def receive():
            return {"type": "http.request", "body": json.dumps(body).encode() if body is not None else b"", "more_body": False}

        async def send(message):
            sent.append(message)

        asyncio.run(app(scope, receive, send))
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()

    return ask


@pytest.mark.parametrize("said", Verdict)
def test_flagger_finds_every_hook_and_every_metric(said):
    """Each with the answer that this hook needs, and no query that is not understood."""
    ask = asker(said)
    canary, *templates = documents("flagger", CONFIG, TARGET)
    body = {"name": "gateway", "namespace": "default", "phase": "Progressing", "checksum": "5c9f"}
    answers = {hook["type"]: ask(hook["url"], body)[0] for hook in canary["spec"]["analysis"]["webhooks"]}
    assert {hook for hook, status in answers.items() if status == 409} == HOOKS[said]
    assert set(answers.values()) == {200, 409}
    for template in templates:
        address, query = template["spec"]["provider"]["address"], template["spec"]["query"]
        status, text = ask(f"{address}/api/v1/query?{urlencode({'query': query})}")
        assert (status, json.loads(text)["status"]) == (200, "success")


@pytest.mark.parametrize("said", Verdict)
def test_argo_finds_the_verdict_both_ways(said):
    """As a word, and as a number for those who ask Prometheus."""
    ask = asker(said)
    web = documents("argo-web", CONFIG, TARGET)[0]["spec"]["metrics"][0]["provider"]["web"]
    status, text = ask(web["url"].replace("{{args.canary-hash}}", "5c9f"))
    assert (status, json.loads(text)["data"]["verdict"]) == (200, said.value)
    prometheus = documents("argo-prometheus", CONFIG, TARGET)[0]["spec"]["metrics"][0]["provider"]["prometheus"]
    query = urlencode({"query": prometheus["query"].replace("{{args.canary-hash}}", "5c9f")})
    status, text = ask(f"{prometheus['address']}/api/v1/query?{query}")
    value = {Verdict.PASS: 1.0, Verdict.WAIT: 0.0, Verdict.FAIL: -1.0}[said]
    assert [float(series["value"][1]) for series in json.loads(text)["data"]["result"]] == [value]
