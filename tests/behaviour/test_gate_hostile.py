"""The release gate among hostile answers: each has its documented decision, and none of them opens the gate by accident.

The table stands in docs/guides/gate.md too, and the two are held together. Half of the situations are a loopback server that lies; the
other half are a real Prometheus with a week of history.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from somaresil.cli import main
from tests.integration.servers import HOST, Prometheus, find_prometheus, free_port

pytestmark = pytest.mark.slow

ALLOW, BLOCK, UNKNOWN, WRONG = ("ALLOW", 0), ("BLOCK", 1), ("UNKNOWN", 2), ("refused", 3)

SITUATIONS = {
    "healthy": ALLOW,
    "Prometheus down": UNKNOWN,
    "empty answer": UNKNOWN,
    "NaN": UNKNOWN,
    "stale": UNKNOWN,
    "partial answer": UNKNOWN,
    "slow answer": UNKNOWN,
    "wrong type": UNKNOWN,
    "10 MB answer": UNKNOWN,
    "redirect": UNKNOWN,
    "clock skew": UNKNOWN,
    "error answer": UNKNOWN,
    "zero traffic": UNKNOWN,
    "one event": UNKNOWN,
    "brand-new service": UNKNOWN,
    "counter reset": ALLOW,
    "replica death": BLOCK,
    "objective 100 %": WRONG,
    "unknown SLO": UNKNOWN,
    "override expired": BLOCK,
    "coverage 3 %": UNKNOWN,
    "budget exactly 0": BLOCK,
    "burning too fast": BLOCK,
}
SERVED = ["Prometheus down", "empty answer", "NaN", "stale", "partial answer", "slow answer", "wrong type", "10 MB answer", "redirect"]
SERVED += ["clock skew", "error answer", "override expired", "budget exactly 0", "objective 100 %"]
REAL = {
    "healthy": "healthy",
    "zero traffic": "silent",
    "one event": "single",
    "brand-new service": "new",
    "counter reset": "reset",
    "replica death": "death",
    "unknown SLO": "nobody",
    "coverage 3 %": "little",
    "burning too fast": "burning",
}


class Lies:
    """A server that answers every question with what a situation gives it."""

    def __init__(self, reply):
        self.asked = []
        self.end = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                status, headers, chunks = reply(outer)
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    for chunk in chunks:
                        self.wfile.write(chunk)
                except OSError:
                    pass

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self):
        self.end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20.0)


@contextmanager
def lying(reply):
    server = Lies(reply)
    try:
        yield server
    finally:
        server.close()


def vector(at=None, extra=None, kind="vector", **parts):
    """An answer as Prometheus gives it to the question of the gate."""
    at = time.time() if at is None else at
    values = {"good": 9_990, "bad": 1, "newest": at - 5.0, "seen": 361, **parts}
    result = [{"metric": {"part": part}, "value": [at, str(value)]} for part, value in values.items() if value is not None]
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}, **(extra or {})}).encode()


def plain(body=vector, status=200, **headers):
    """A reply with the bytes that ``body`` makes when it is asked: what is said about time is said of that moment."""

    def reply(_):
        said = body()
        return status, {"content-length": str(len(said)), **headers}, [said]

    return reply


def spent():
    return vector(good=900, bad=100)


def dripping(server):
    """A byte each tenth of a second: no step of it takes long."""

    def bytes_of():
        for byte in vector():
            yield bytes([byte])
            server.end.wait(0.1)

    return 200, {}, bytes_of()


def slo_file(folder, name="api", target=99.0, gate="", window="7d"):
    file = folder / "slo.toml"
    file.write_text(f'{gate}\n[slos."{name}"]\ntarget_percentage = {target}\nmeasurement_window = "{window}"\n')
    return file


def gate(capsys, file, url, *more, timeout="5"):
    """Run the command; its exit code and what it says as JSON (or on stderr, when it says nothing)."""
    capsys.readouterr()
    code = main(["gate", "--slo", str(file), "--prometheus", url, "--format", "json", "--timeout", timeout, *more])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else err


def expected(situation, code, said, reason):
    decision, wanted = SITUATIONS[situation]
    assert code == wanted, said
    assert said["decision"] == decision.lower()
    assert re.search(reason, said["reasons"][0]), said["reasons"]


LYING = {
    "empty answer": (plain(lambda: vector(good=None, bad=None, newest=None, seen=None)), "no samples"),
    "NaN": (plain(lambda: vector(bad="NaN")), "bad is no number"),
    "stale": (plain(lambda: vector(newest=1_700_000_000)), "stale: it has had no sample for"),
    "partial answer": (plain(lambda: vector(extra={"warnings": ["a store did not answer"]})), "partial"),
    "wrong type": (plain(lambda: vector(kind="matrix")), "something else than a vector"),
    "10 MB answer": (plain(lambda: b" " * 10_000_000 + vector()), "more than 1000000 bytes"),
    "clock skew": (plain(lambda: vector(at=time.time() + 7_200.0)), "its clock is 7(200|199) s ahead of ours"),
    "error answer": (plain(lambda: b'{"status":"error","errorType":"timeout","error":"secret"}', status=503), r"answers 503 \(timeout\)"),
}


@pytest.mark.parametrize("situation", LYING)
def test_an_answer_that_cannot_be_trusted_is_unknown(situation, tmp_path, capsys):
    """Whatever is wrong with it: exit code 2, with the reason and without what the server said."""
    reply, reason = LYING[situation]
    with lying(reply) as server:
        code, said = gate(capsys, slo_file(tmp_path), server.url)
    expected(situation, code, said, reason)
    assert said["objectives"][0]["good"] is None
    assert "secret" not in json.dumps(said)


def test_the_same_server_opens_the_gate_when_nothing_is_wrong(tmp_path, capsys):
    """So the tests above see what is wrong with the answers, and not that they are answers of a test."""
    for extra in ({}, {"infos": ["a remark on the query"]}, {"isPartial": False}):
        with lying(plain(lambda extra=extra: vector(extra=extra))) as server:
            code, said = gate(capsys, slo_file(tmp_path), server.url)
            assert (code, said["decision"], said["objectives"][0]["good"]) == (0, "allow", 9_990)
    with lying(plain(lambda: vector(extra={"isPartial": True}))) as server:
        assert gate(capsys, slo_file(tmp_path), server.url)[0] == 2


@pytest.mark.parametrize(
    "body",
    [
        lambda: vector(good=None),
        lambda: vector(bad=None),
        lambda: vector(good=-1),
        lambda: vector(bad="+Inf"),
        lambda: vector(good="1e300"),
        lambda: vector(newest="NaN"),
        lambda: vector(seen="NaN"),
        lambda: vector(newest=None),
        lambda: vector(more=1),
        lambda: vector().replace(b'"bad"', b'"good"'),
        lambda: vector().replace(b'"1"', b"[]"),
        lambda: vector().replace(b'"1"', b"true"),
        lambda: vector(extra={"status": "error"}),
        lambda: vector(extra={"data": None}),
        lambda: vector(extra={"data": {"resultType": "string", "result": [1, "x"]}}),
        lambda: vector()[:-5],
        lambda: b"",
        lambda: b"null",
        lambda: b"[" * 50_000,
        lambda: b"\xff\xfe",
        lambda: b"<html>please log in</html>",
    ],
)
def test_no_answer_that_lacks_something_opens_the_gate(body, tmp_path, capsys):
    """What is missing, negative, infinite, twice, cut off, or no JSON."""
    with lying(plain(body)) as server:
        code, said = gate(capsys, slo_file(tmp_path), server.url)
    assert (code, said["decision"]) == (2, "unknown"), said


def test_nobody_there(tmp_path, capsys):
    """Prometheus down: unknown."""
    code, said = gate(capsys, slo_file(tmp_path), f"http://{HOST}:{free_port()}")
    expected("Prometheus down", code, said, "Connection refused")


def test_a_server_that_drips_is_given_up_after_the_timeout(tmp_path, capsys):
    """A slow answer is none, although each byte comes in time."""
    with lying(dripping) as server:
        begun = time.monotonic()
        code, said = gate(capsys, slo_file(tmp_path), server.url, timeout="0.5")
        assert time.monotonic() - begun < 4.0
    expected("slow answer", code, said, "no answer within 0.5 s")


def test_a_redirect_is_not_followed(tmp_path, capsys, monkeypatch):
    """And the token goes nowhere else."""
    monkeypatch.setenv("TOKEN", "hunter2")
    with lying(plain()) as elsewhere, lying(plain(bytes, 307, location=f"{elsewhere.url}/api/v1/query")) as server:
        code, said = gate(capsys, slo_file(tmp_path), server.url, "--token-env", "TOKEN")
        assert (len(server.asked), elsewhere.asked) == (1, [])
    expected("redirect", code, said, "307, and redirects are not followed")
    assert "hunter2" not in json.dumps(said)


def test_an_override_that_has_expired_is_none(tmp_path, capsys):
    """The block stands, and the report says why the override is void; one that holds lets it pass, and is written down."""
    audit = tmp_path / "audit.jsonl"
    hour = timedelta(hours=1)
    with lying(plain(spent)) as server:
        ago, ahead = ((datetime.now(UTC) + delta).isoformat() for delta in (-hour, hour))
        asking = ("--override", "the fix for the outage", "--audit", str(audit), "--until")
        code, said = gate(capsys, slo_file(tmp_path), server.url, *asking, ago)
        expected("override expired", code, said, "less than 10%")
        assert (said["override"]["counts"], said["override"]["why_not"]) == (False, "it has expired")
        assert not audit.exists()
        code, said = gate(capsys, slo_file(tmp_path), server.url, *asking, ahead)
        assert (code, said["decision"], said["overridden"]) == (0, "block", True)
        assert json.loads(audit.read_text())["reason"] == "the fix for the outage"
        # What cannot be written down does not count.
        code, said = gate(capsys, slo_file(tmp_path), server.url, *asking[:3], str(tmp_path), "--until", ahead)
        assert (code, said["overridden"]) == (1, False)


def test_a_budget_that_is_used_up_exactly_blocks(tmp_path, capsys):
    """Also when the file asks for nothing to be left."""
    with lying(plain(lambda: vector(good=9_900, bad=100))) as server:
        code, said = gate(capsys, slo_file(tmp_path, gate="[gate]\nminimum_remaining = 0.0"), server.url)
    expected("budget exactly 0", code, said, "0.0% of the error budget left, nothing")
    assert (said["objectives"][0]["remaining"], said["objectives"][0]["exhausted_in"]) == (0.0, 0.0)


def test_an_objective_of_100_percent_is_refused(tmp_path, capsys):
    """With exit code 3, before anybody is asked, and with the line."""
    with lying(plain()) as server:
        code, said = gate(capsys, slo_file(tmp_path, target=100), server.url)
        assert server.asked == []
    assert code == SITUATIONS["objective 100 %"][1]
    assert re.search(r"slo.toml:3: slos.api.target_percentage = 100: expected a number > 0 and < 100", said)


# -- a real Prometheus --------------------------------------------------------------------------------------------------------------------

EVERY = 120
DAYS = 8


def history(now):
    """Eight days of counters, by objective and replica, sampled every two minutes until now. None: not there."""
    last = DAYS * 86_400 // EVERY
    half, hours = last // 2, 3_600 // EVERY

    def steady(good, bad):
        return lambda k: good * k, lambda k: bad * k

    def only_last(samples, good):
        return lambda k: None if k < last - samples else good * (k - last + samples), lambda k: None if k < last - samples else 0

    series = {
        ("healthy", "a"): steady(100, 0.1),
        ("healthy", "b"): steady(300, 0.2),
        ("silent", "a"): (lambda _: 5_000, lambda _: 50),
        ("single", "a"): (lambda k: int(k > half), lambda _: 0),
        ("new", "a"): only_last(5, 100),
        ("little", "a"): only_last(5 * hours, 100),
        # Three lives: a third of the samples each, beginning at nothing.
        ("reset", "a"): (lambda k: 100 * (k % (last // 3)), lambda k: 0.1 * (k % (last // 3))),
        # One of two was bad, and died two days ago.
        ("death", "a"): (lambda k: 100 * k if k < 6 * last // 8 else None, lambda k: 10 * k if k < 6 * last // 8 else None),
        ("death", "b"): steady(100, 0),
        # Ten per cent of errors for the last two hours, of an objective that had none.
        ("burning", "a"): (lambda k: 1_000 * k, lambda k: max(0, 111 * (k - last + 2 * hours))),
    }
    yield "# TYPE somaresil_sli_events counter"
    for (slo, instance), (good, bad) in series.items():
        for outcome, value in (("good", good), ("bad", bad)):
            labels = f'slo="{slo}",outcome="{outcome}",instance="{instance}",job="gateway"'
            for k in range(last + 1):
                if (count := value(k)) is not None:
                    yield f"somaresil_sli_events_total{{{labels}}} {count:g} {now - (last - k) * EVERY}"
    yield "# EOF"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """One with that history, for all tests of this module."""
    binary = find_prometheus()
    if binary is None:
        pytest.skip("prometheus is not installed: `apt-get install prometheus`, or run `nox -s tests` as root")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "history.om").write_text("\n".join(history(int(time.time()))) + "\n")
    with Prometheus([], folder=folder, binary=binary, history=folder / "history.om") as server:
        yield server


REASONS = {
    "healthy": "of the error budget left",
    "zero traffic": "0 events, fewer than 10",
    "one event": "1 events, fewer than 10",
    "brand-new service": "% of the period observed, less than 50",
    "counter reset": "of the error budget left",
    "replica death": "of the error budget left, less than 10%",
    "unknown SLO": "no samples of this objective",
    "coverage 3 %": r"(2\.\d+|3\.\d+)% of the period observed",
    "burning too fast": "burning .* times too fast",
}


@pytest.mark.server
@pytest.mark.parametrize("situation", REAL)
def test_a_real_prometheus_is_read_as_it_is_meant(situation, prometheus, tmp_path, capsys):
    """Restarts, dead replicas, silence and youth."""
    code, said = gate(capsys, slo_file(tmp_path, REAL[situation]), prometheus.url, "--label", "job=gateway")
    expected(situation, code, said, REASONS[situation])
    assert said["objectives"][0]["source"] == "prometheus"


def asked(name, part, other="outcome"):
    """A query of one's own over the same counters."""
    matcher = f'slo="{name}"' + (f',{other}="{part}"' if part else "")
    return f"sum(increase(somaresil_sli_events_total{{{matcher}}}[{{{{.window}}}}]))"


@pytest.mark.server
@pytest.mark.parametrize("part", ["bad", "good"])
@pytest.mark.parametrize("situation", REAL)
def test_queries_of_ones_own_are_judged_alike(situation, part, prometheus, tmp_path, capsys):
    """Whether they ask for what is bad or good: the decision is that of our own counter, and so are the counts."""
    name = REAL[situation]
    file = slo_file(tmp_path, name)
    _, plain_said = gate(capsys, file, prometheus.url)
    source = f"source = {{ {part}_query = '{asked(name, part)}', total_query = '{asked(name, None)}', rates = false }}"
    file.write_text(f"{file.read_text()}{source}\n")
    code, said = gate(capsys, file, prometheus.url)
    expected(situation, code, said, REASONS[situation])
    for count in ("good", "bad"):
        there, here = plain_said["objectives"][0][count], said["objectives"][0][count]
        assert here == there or here == pytest.approx(there, rel=1e-3, abs=2)


@pytest.mark.server
@pytest.mark.parametrize(("situation", "period"), [("healthy", "7d"), ("burning too fast", "7d"), ("replica death", "7d")])
def test_an_objective_of_sloth_is_judged(situation, period, prometheus, tmp_path, capsys):
    """From its spec, by way of the command, to the decision that our own counter would have."""
    name = REAL[situation]
    bad, total = (f'somaresil_sli_events_total{{slo="{name}"{more}}}' for more in (',outcome="bad"', ""))
    (tmp_path / "sloth.yaml").write_text(
        "version: prometheus/v1\nservice: shop\nslos:\n- name: orders\n  objective: 99.0\n  sli:\n    events:\n"
        f"      error_query: sum(rate({bad}[{{{{.window}}}}]))\n      total_query: sum(rate({total}[{{{{.window}}}}]))\n"
    )
    file = tmp_path / "slo.toml"
    assert main(["slo", "import", str(tmp_path / "sloth.yaml"), "--from", "sloth", "--period", period, "--out", str(file)]) == 0
    code, said = gate(capsys, file, prometheus.url)
    expected(situation, code, said, REASONS[situation])


def test_a_histogram_is_asked_for_its_bucket(tmp_path, capsys):
    """At the threshold of the objective, with the labels of the source and of the gate."""
    file = slo_file(tmp_path)
    file.write_text(f"{file.read_text()}latency = 0.5\nsource = {{ histogram = 'h_seconds', buckets = [0.5], labels = {{ a = 'b' }} }}\n")
    parts = {"good": None, "total": 9_991, "bad": 1}
    with lying(plain(lambda: vector(**parts))) as server:
        code, said = gate(capsys, file, server.url, "--label", "job=x")
        asked_for = urllib.parse.unquote_plus(server.asked[0])
    assert (code, said["objectives"][0]["good"], said["objectives"][0]["bad"]) == (0, 9_990, 1)
    assert 'h_seconds_bucket{a="b",job="x",le="0.5"}[7d]' in asked_for
    for strange in ({**parts, "bad": -500}, {**parts, "bad": 20_000}, {**parts, "total": None}, {**parts, "bad": None}, {"total": 3}):
        with lying(plain(lambda strange=strange: vector(**strange))) as server:
            assert gate(capsys, file, server.url)[0] == 2, strange
    # A little less than nothing is nothing: increases are extrapolated.
    with lying(plain(lambda: vector(**{**parts, "bad": -3}))) as server:
        code, said = gate(capsys, file, server.url)
        assert (code, said["objectives"][0]["bad"]) == (0, 0)


@pytest.mark.server
def test_queries_that_say_nothing_are_unknown(prometheus, tmp_path, capsys):
    """What is no vector, has more bad events than events, or is broken."""
    healthy = asked("healthy", None)
    for bad, total, reason in (
        (asked("nobody", None), asked("nobody", None), "no samples of this objective"),
        (asked("burning", None), healthy, "more good or bad ones than events"),
        ("sum(nothing[{{.window}}])", healthy, r"it answers 400 \(bad_data\)"),
        ("1 / 0 * " + healthy, healthy, "bad is no number of events"),
    ):
        file = slo_file(tmp_path)
        file.write_text(f"{file.read_text()}source = {{ bad_query = '{bad}', total_query = '{total}', rates = false }}\n")
        code, said = gate(capsys, file, prometheus.url)
        assert (code, said["decision"]) == (2, "unknown"), bad
        assert re.search(reason, said["reasons"][0]), said["reasons"]
    # Without bad events there are none: the query for them may have no answer.
    file = slo_file(tmp_path, "healthy", gate="[gate]\nminimum_coverage = 0.0")
    file.write_text(f"{file.read_text()}source = {{ bad_query = '{asked('nobody', 'bad')}', total_query = '{healthy}', rates = false }}\n")
    code, said = gate(capsys, file, prometheus.url)
    assert (code, said["objectives"][0]["bad"]) == (0, 0)


@pytest.mark.server
def test_counts_are_those_of_all_lives_and_replicas(prometheus, tmp_path, capsys):
    """Within a per mille of what was counted in the week."""
    week = 7 * 86_400 // EVERY
    for name, good, bad in (("healthy", 400 * week, 0.3 * week), ("reset", 100 * week, 0.1 * week)):
        _, said = gate(capsys, slo_file(tmp_path, name), prometheus.url)
        found = said["objectives"][0]
        assert found["good"] == pytest.approx(good, rel=2e-3)
        assert found["bad"] == pytest.approx(bad, rel=1e-2)
        assert found["coverage"] == 1.0
        assert 0.0 <= found["age"] < 300.0
    _, said = gate(capsys, slo_file(tmp_path, "death"), prometheus.url)
    # Of the week the dead one lived five days.
    assert said["objectives"][0]["bad"] == pytest.approx(10 * week * 5 / 7, rel=2e-3)


@pytest.mark.server
def test_labels_keep_services_apart(prometheus, tmp_path, capsys):
    """An objective of the same name in another job is another one."""
    code, said = gate(capsys, slo_file(tmp_path, "healthy"), prometheus.url, "--label", "job=other")
    assert (code, "no samples" in said["reasons"][0]) == (2, True)
    code, said = gate(capsys, slo_file(tmp_path, "healthy"), prometheus.url, "--label", 'job=x"} or vector(1) or y{z="')
    assert (code, "no samples" in said["reasons"][0]) == (2, True)


# -- the table ----------------------------------------------------------------------------------------------------------------------------


def test_the_page_says_what_the_gate_does():
    """The table of the guide has these situations, in this order, with these decisions and exit codes, and each is tested."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "gate.md").read_text(encoding="utf-8")
    table = page.partition("| situation | decision | exit code |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|]+) \| `?(\w+)`? \| (\d) \|", table, re.MULTILINE)
    assert rows == [(name, decision, str(code)) for name, (decision, code) in SITUATIONS.items()]
    assert {*SERVED, *REAL} == set(SITUATIONS)


def test_the_exit_code_reaches_the_shell(tmp_path):
    """Of a process of its own; wrong arguments are neither ALLOW nor UNKNOWN."""
    file = slo_file(tmp_path)
    with lying(plain(spent)) as server:
        for arguments, code in (
            (["--slo", file, "--prometheus", server.url], 1),
            (["--slo", file, "--prometheus", f"http://{HOST}:1"], 2),
            (["--slo", file, "--prometheuss", server.url], 3),
            (["--slo", tmp_path / "absent.toml", "--prometheus", server.url], 3),
            (["--prometheus", server.url], 3),
            (["--slo", file], 3),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "somaresil", "gate", *map(str, arguments)], capture_output=True, text=True, check=False
            )
            assert done.returncode == code, done
        assert urllib.parse.unquote_plus(server.asked[0]).startswith(
            "/api/v1/query?query=label_replace(sum(increase(somaresil_sli_events_total"
        )
