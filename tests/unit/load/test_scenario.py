"""Scenarios: what a file says, and every way to say it wrongly."""

import itertools
import math
from collections import Counter

import pytest

from somaresil.errors import ConfigurationError
from somaresil.load import PRESETS, Request, Scenario, Stage, Threshold, Upload, read_scenario
from somaresil.load.arrivals import arrivals
from somaresil.load.http import Target
from somaresil.load.orders import Orders
from somaresil.load.scenario import is_loopback

GOOD = {
    "name": "s",
    "target": "http://127.0.0.1:8000",
    "stages": [{"seconds": "1m", "rate": 10}],
    "requests": [{"name": "a", "path": "/a"}, {"name": "b", "path": "/b", "kind": "sse", "end": "done"}],
}
TARGET = Target.of("http://127.0.0.1:8000/base/")


def problems(**changes):
    with pytest.raises(ConfigurationError) as wrong:
        read_scenario({**GOOD, **changes})
    return {problem.path: problem for problem in wrong.value.problems}


def test_a_file_says_everything(tmp_path):
    """Stages in users, limits of one request, objectives of another file, experiments, the service's own metrics."""
    (tmp_path / "slo.toml").write_text(
        '[slos.api]\ntarget_percentage = 99.9\nmeasurement_window = "30d"\n[slos.fast]\ntarget_percentage = 95.0\n'
        'measurement_window = "7d"\nlatency = 2.0\n'
    )
    (tmp_path / "s.toml").write_text(
        """
name = "all"
target = "http://127.0.0.1:8000"
think = "2s"
timeout = 5
stages = [{ name = "up", seconds = "30s", users = 10, to_users = 100 }, { seconds = 60, rate = 50.0 }]
[[requests]]
name = "message"
weight = 3
method = "POST"
path = "/m"
json = { text = "{n}" }
[[requests]]
name = "events"
kind = "sse"
path = "/e"
timeout = "1m"
[thresholds]
p95 = "2s"
"p99.9" = 5.0
events.ttft_p95 = 0.5
[slo]
file = "slo.toml"
names = ["fast"]
[server]
metrics = "http://127.0.0.1:8000/metrics"
slos = ["api"]
[chaos]
url = "http://127.0.0.1:8000/_soma/chaos"
windows = [{ target = "llm.*", kind = "latency", start = 10, duration = 20, delay = 0.5 }]
"""
    )
    scenario = read_scenario(tmp_path / "s.toml")
    assert [(stage.rate, stage.end_rate) for stage in scenario.stages] == [(5.0, 50.0), (50.0, 50.0)]
    assert [request.timeout for request in scenario.requests] == [5.0, 60.0]
    assert [(each.limit, each.value, each.request) for each in scenario.thresholds] == [
        ("p95", 2.0, None),
        ("p99.9", 5.0, None),
        ("ttft_p95", 0.5, "events"),
    ]
    assert [slo.name for slo in scenario.slos] == ["fast"]
    assert scenario.chaos.plan.windows[0].start == 10
    shorter = scenario.compressed(10.0)
    assert (shorter.seconds, shorter.peak, shorter.chaos.plan.windows[0].duration) == (9.0, 50.0, 2.0)
    assert scenario.scaled(2.0).peak == 100.0


@pytest.mark.parametrize(("name", "users", "minutes"), [("baseline", 100, 10), ("stress", 1000, 30), ("soak", 200, 240), ("spike", 500, 5)])
def test_presets_are_as_long_and_as_high_as_they_are_called(name, users, minutes):
    """With a second between two requests of a user, users are arrivals a second."""
    scenario = read_scenario({**{key: value for key, value in GOOD.items() if key != "stages"}, "preset": name})
    assert scenario.seconds == pytest.approx(minutes * 60.0)
    assert scenario.peak == users
    assert "ramp-to-capacity" in PRESETS


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"target": "ftp://x"}, "target"),
        ({"target": "http://user:secret@127.0.0.1/"}, "target"),
        ({"target": 5}, "target"),
        ({"tagret": "http://127.0.0.1"}, "tagret"),
        ({"name": "a b"}, "name"),
        ({"seed": -1}, "seed"),
        ({"arrival": "burst"}, "arrival"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"sessions": 0}, "sessions"),
        ({"timeout": "soon"}, "timeout"),
        ({"think": 0}, "think"),
        ({"users": -5}, "users"),
        ({"stages": []}, "stages"),
        ({"stages": 5}, "stages"),
        ({"stages": [5]}, "stages.0"),
        ({"stages": [{"seconds": 1}]}, "stages.0"),
        ({"stages": [{"seconds": 1, "rate": 1, "users": 1}]}, "stages.0"),
        ({"stages": [{"rate": 1}]}, "stages.0.seconds"),
        ({"stages": [{"seconds": math.nan, "rate": 1}]}, "stages.0.seconds"),
        ({"stages": [{"seconds": 1, "rate": math.inf}]}, "stages.0.rate"),
        ({"stages": [{"seconds": 1, "rate": "fast"}]}, "stages.0.rate"),
        ({"stages": [{"seconds": 1, "rate": 0.1}]}, "stages"),
        ({"stages": [{"seconds": 1, "users": "many"}]}, "stages.0"),
        ({"preset": "baseline"}, "stages"),
        ({"requests": []}, "requests"),
        ({"requests": {"a": 1}}, "requests"),
        ({"requests": [5]}, "requests.0"),
        ({"requests": [{"name": "a"}]}, "requests.0.path"),
        ({"requests": [{"name": "a", "path": "a"}]}, "requests.0.path"),
        ({"requests": [{"name": "a", "path": "/a b"}]}, "requests.0.path"),
        ({"requests": [{"name": "a", "path": "/a\r\nX: y"}]}, "requests.0.path"),
        ({"requests": [{"name": "a", "path": "/{who}"}]}, "requests.0.path"),
        ({"requests": [{"name": "a", "path": "/", "weight": -1}]}, "requests.0.weight"),
        ({"requests": [{"name": "a", "path": "/", "weight": 0}]}, "requests"),
        ({"requests": [{"name": "a", "path": "/"}, {"name": "a", "path": "/"}]}, "requests"),
        ({"requests": [{"name": "a", "path": "/", "kind": "grpc"}]}, "requests.0.kind"),
        ({"requests": [{"name": "a", "path": "/", "method": "HEAD"}]}, "requests.0.method"),
        ({"requests": [{"name": "a", "path": "/", "headers": {"x": "a\r\nb"}}]}, "requests.0.headers.x"),
        ({"requests": [{"name": "a", "path": "/", "headers": {"x y": "a"}}]}, "requests.0.headers"),
        ({"requests": [{"name": "a", "path": "/", "headers": {"Host": "a"}}]}, "requests.0.headers.Host"),
        ({"requests": [{"name": "a", "path": "/", "headers": 5}]}, "requests.0.headers"),
        ({"requests": [{"name": "a", "path": "/", "json": {}, "body": ""}]}, "requests.0.body"),
        ({"requests": [{"name": "a", "path": "/", "json": {"x": math.nan}}]}, "requests.0.json"),
        ({"requests": [{"name": "a", "path": "/", "body": 5}]}, "requests.0.body"),
        ({"requests": [{"name": "a", "path": "/", "upload": {"size": -1}}]}, "requests.0.size"),
        ({"requests": [{"name": "a", "path": "/", "upload": {"field": "f"}}]}, "requests.0.upload"),
        ({"requests": [{"name": "a", "path": "/", "upload": {"size": 1, "filename": 'x"'}}]}, "requests.0.filename"),
        ({"requests": [{"name": "a", "path": "/", "expect": [99]}]}, "requests.0.expect"),
        ({"requests": [{"name": "a", "path": "/", "end": "x"}]}, "requests.0.end"),
        ({"requests": [{"name": "a", "path": "/", "messages": ["x"]}]}, "requests.0.messages"),
        ({"requests": [{"name": "a", "path": "/", "kind": "websocket", "items": 0}]}, "requests.0.items"),
        ({"requests": [{"name": "a", "path": "/", "kind": "websocket", "body": "x"}]}, "requests.0.body"),
        ({"requests": [{"name": "a", "path": "/", "timeout": "1x"}]}, "requests.0.timeout"),
        ({"thresholds": 5}, "thresholds"),
        ({"thresholds": {"p95": -1}}, "thresholds.p95"),
        ({"thresholds": {"p95": True}}, "thresholds.p95"),
        ({"thresholds": {"p100": 1}}, "thresholds.p100"),
        ({"thresholds": {"p0": 1}}, "thresholds.p0"),
        ({"thresholds": {"error_rate": 5}}, "thresholds.error_rate"),
        ({"thresholds": {"eror_rate": 0.1}}, "thresholds.eror_rate"),
        ({"thresholds": {"c": {"p95": 1}}}, "thresholds.c"),
        ({"thresholds": {"a": {"ttft_p95": 1}}}, "thresholds"),
        ({"slo": {"file": "/nowhere/slo.toml"}}, "/nowhere/slo.toml"),
        ({"slo": 5}, "slo"),
        ({"server": {"metrics": "here"}}, "server.metrics"),
        ({"server": {"metrics": "http://127.0.0.1/m", "slos": "up"}}, "server.slos"),
        ({"chaos": {"url": "http://127.0.0.1/c"}}, "chaos.windows"),
        ({"chaos": {"url": "http://127.0.0.1/c", "windows": [{"target": "a", "kind": "fire", "start": 0, "duration": 1}]}}, "chaos"),
        ({"chaos": {"url": "http://127.0.0.1/c", "token_env": "s3cr3t-token", "windows": []}}, "chaos.windows"),
    ],
)
def test_what_is_wrong_is_named(changes, path):
    """With its path, before anything is sent."""
    assert path in problems(**changes)


def test_a_secret_is_not_repeated():
    """Neither a password in an address nor a token in the wrong field is shown."""
    for wrong in (problems(target="http://user:secret@127.0.0.1/"), problems(chaos={"url": "http://127.0.0.1/c", "token_env": "secret-1"})):
        assert all("secret" not in str(problem.value) for problem in wrong.values())


def test_a_mistyped_name_gets_a_hint():
    """Whoever mistypes is told what was meant."""
    assert "thresholds" in problems(treshholds={})["treshholds"].hint
    with pytest.raises(ConfigurationError, match="did you mean 'baseline'"):
        read_scenario(GOOD, preset="baselin")


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False), ("localhost.evil.example", False)],
)
def test_loopback_is_known_without_asking_anybody(host, is_ours):
    """A name that only begins like it is elsewhere."""
    assert is_loopback(host) is is_ours


def test_other_hosts_must_be_allowed_each():
    """The target and every other address of a scenario."""
    scenario = read_scenario({**GOOD, "target": "http://a.example", "server": {"metrics": "http://b.example/metrics"}})
    with pytest.raises(ConfigurationError) as wrong:
        scenario.check_hosts(["a.example"])
    assert [problem.path for problem in wrong.value.problems] == ["scenario.server.metrics"]
    scenario.check_hosts(["a.example", "b.example"])


def test_weights_are_shares_and_the_same_seed_makes_the_same_requests():
    """Three to one to two, in an order that only the seed decides."""
    requests = [Request("a", "/a", weight=3), Request("b", "/b", weight=1), Request("c", "/c", weight=2)]
    orders = Orders(requests, TARGET, seed=1)
    drawn = [orders(number).request for number in range(6000)]
    again = Orders(requests, TARGET, seed=1)
    assert [again(number).request for number in range(6000)] == drawn
    shares = Counter(drawn)
    assert [shares[name] / 1000 for name in "abc"] == pytest.approx([3.0, 1.0, 2.0], rel=0.1)


def test_a_request_of_weight_0_is_never_made():
    """It may stay in the file."""
    orders = Orders([Request("never", "/"), Request("always", "/")], TARGET)
    assert {orders(number).request for number in range(50)} == {"never", "always"}
    orders = Orders([Request("never", "/", weight=0), Request("always", "/"), Request("nor", "/", weight=0)], TARGET)
    assert {orders(number).request for number in range(50)} == {"always"}


def test_the_bytes_of_a_request():
    """As HTTP/1.1 wants them, below the path of the target."""
    order = Orders([Request("a", "/a?n={n}", method="POST", body="x{{y}}", headers={"X-Id": "{id}"})], TARGET, run="r")(7)
    head, _, body = order.payload.data.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /base/a?n=7 HTTP/1.1",
        b"Host: 127.0.0.1:8000",
        b"Content-Type: text/plain; charset=utf-8",
        b"Accept: */*",
        b"Content-Length: 4",
        b"X-Id: r-7",
    ]
    assert body == b"x{y}"


def test_a_request_without_places_is_made_once():
    """What does not vary costs nothing an arrival."""
    orders = Orders([Request("a", "/a")], TARGET)
    assert orders(0) is orders(1)


def test_an_upload_is_as_large_as_it_says():
    """Raw, or as a form that a parser understands."""
    assert len(Upload(1234).body()[0]) == 1234
    body, kind = Upload(10, field="file").body()
    boundary = kind.partition("boundary=")[2].encode()
    parts = body.split(b"--" + boundary)
    assert parts[-1] == b"--\r\n"
    assert parts[1].partition(b"\r\n\r\n")[2] == Upload(10).body()[0] + b"\r\n"


def test_a_scenario_in_code_is_checked_alike():
    """No way around the checks."""
    with pytest.raises(ConfigurationError, match="at least one"):
        Scenario("a", "http://127.0.0.1", (), (Stage(1.0, 5.0),))
    with pytest.raises(ConfigurationError, match="stream"):
        Scenario("a", "http://127.0.0.1", (Request("a", "/"),), (Stage(1.0, 5.0),), thresholds=(Threshold("gap_p99", 1.0),))


def test_the_template_is_a_scenario():
    """What is shipped can be read, and has the three kinds of requests three to one to two."""
    from importlib.resources import as_file, files

    with as_file(files("somaresil.load") / "templates" / "conversation.toml") as path:
        scenario = read_scenario(path)
    assert {request.name: request.weight for request in scenario.requests} == {"message": 3, "upload": 1, "events": 2}
    assert len(list(itertools.islice(arrivals(scenario.stages, scenario.arrival), 10))) == 10
