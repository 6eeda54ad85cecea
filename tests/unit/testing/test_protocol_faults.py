"""Protocol faults as data: what may be said, which request is struck, and what of a body goes through."""

from __future__ import annotations

import dataclasses
import json
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil import ConfigurationError
from somaresil.testing.protocol import Cut, ProtocolFault, ProtocolFaults, Strike, halved_json, has_body, is_event_stream, target

URL = "https://api.example.com/v1/chat"
EVENTS = b"data: 1\n\n: ping\n\nretry: 5\n\ndata: 2\r\n\r\nevent: x\rdata: 3\r\rdata: [DONE]\n\n"


def problems_of(*args, **options):
    """The names of what is wrong, in order."""
    with pytest.raises(ConfigurationError) as raised:
        ProtocolFault(*args, **options)
    return [problem.path.removeprefix("ProtocolFault.") for problem in raised.value.problems]


def decisions(faults, count, method="GET", url=URL):
    """Whether each of ``count`` requests is struck."""
    return [bool(faults.decide(method, url)) for _ in range(count)]


def strike_of(fault):
    """A strike of this fault."""
    (strike,) = ProtocolFaults(fault).decide("GET", URL)
    return strike


def passed(cut, pieces):
    """What goes through, piece by piece."""
    out = []
    for piece in pieces:
        if cut.over:
            return out
        out.append(cut.feed(piece))
    if not cut.over:
        out.append(cut.end())
    return out


# -- options --------------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_documentation():
    """A kind alone strikes every request."""
    fault = ProtocolFault("reset")
    rest = {field.name: getattr(fault, field.name) for field in dataclasses.fields(fault)[1:]}
    assert rest == {
        "method": None,
        "url": "*",
        "calls": None,
        "rate": 1.0,
        "times": None,
        "after_chunks": 1,
        "delay": None,
        "status": 429,
        "headers": (),
        "retry_after": None,
        "body": None,
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        fault.rate = 0.5


def test_all_problems_come_at_once():
    """One error names everything that is wrong."""
    found = problems_of(
        "status", method="FETCH", url="", calls=(0,), rate=2, times=0, after_chunks=-1, delay="1", status=200, headers=("x",), body=5
    )
    assert found == [
        "method", "url", "calls", "rate", "times", "after_chunks", "delay", "status", "headers", "body", "after_chunks", "delay",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"kind": "conect_refused"}, "did you mean 'connect_refused'?"),
        ({"kind": "reset", "method": "pots"}, "did you mean 'POST'?"),
        ({"kind": "reset", "url": "api.example.com/*"}, "did you mean '*api.example.com/*'?"),
        ({"kind": "reset", "url": "/v1/*"}, "did you mean '*/v1/*'?"),
        ({"kind": "reset", "calls": 1}, "a tuple such as (1,), also for a single one"),
        ({"kind": "reset", "calls": ()}, "nothing would ever be struck"),
        ({"kind": "status", "retry_after": 1.5}, "headers=(('Retry-After', '1.5'),) sends anything"),
        ({"kind": "status", "retry_after": datetime(2030, 1, 1)}, "it has no time zone"),  # noqa: DTZ001 - that is the mistake
        ({"kind": "status", "headers": {"X": "a\r\nY: b"}}, "without line breaks"),
    ],
)
def test_a_problem_says_what_to_do(options, hint):
    """Near misses are named, and so is what to write instead."""
    with pytest.raises(ConfigurationError) as raised:
        ProtocolFault(**options)
    assert hint in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("reset", {"delay": 1}),
        ("connect_refused", {"status": 503}),
        ("latency", {"body": "x", "delay": 1}),
        ("status", {"after_chunks": 2}),
        ("truncated", {"headers": {"X": "1"}}),
        ("read_timeout", {"retry_after": 1}),
        ("malformed_json", {"status": 500}),
    ],
)
def test_an_option_that_nobody_looks_at_is_a_problem(kind, option):
    """It would be a mistake about what the fault does."""
    assert problems_of(kind, **option) == [next(iter(option))]


@pytest.mark.parametrize("kind", ["latency", "slow_first_byte"])
def test_a_delay_must_say_how_long(kind):
    """There is no usual lateness."""
    assert problems_of(kind) == ["delay"]
    assert ProtocolFault(kind, delay=timedelta(milliseconds=250)).seconds == 0.25


def test_a_timeout_has_patience():
    """Thirty seconds, unless the fault says otherwise."""
    assert ProtocolFault("read_timeout").seconds == 30.0
    assert ProtocolFault("connect_timeout", delay=2).seconds == 2.0


def test_what_is_given_is_kept_plain():
    """Methods in capitals, collections as tuples, so that equal faults are equal and hashable."""
    fault = ProtocolFault("status", method="post", calls=range(1, 3), headers={"X-Limit": "10"})
    assert (fault.method, fault.calls, fault.headers) == ("POST", (1, 2), (("X-Limit", "10"),))
    assert fault == ProtocolFault("status", method="POST", calls=[1, 2], headers=[("X-Limit", "10")])
    assert len({fault, fault}) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (7.0, "7"),
        (timedelta(minutes=2), "120"),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT"),
        (datetime(2015, 10, 21, 9, 28, tzinfo=timezone(timedelta(hours=2))), "Wed, 21 Oct 2015 07:28:00 GMT"),
        (datetime(2015, 10, 21, 7, 28, tzinfo=UTC), "Wed, 21 Oct 2015 07:28:00 GMT"),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, text):
    """The two forms of RFC 9110, 10.2.3."""
    headers, _ = ProtocolFault("status", retry_after=value).reply()
    assert ("Retry-After", text) in headers


@pytest.mark.parametrize("value", [-1, 0.5, True, "soon", [], float("nan")])
def test_no_other_retry_after(value):
    """Anything else is no Retry-After."""
    assert problems_of("status", retry_after=value) == ["retry_after"]


def test_retry_after_is_said_once():
    """In headers or by itself."""
    assert problems_of("status", retry_after=1, headers={"retry-after": "2"}) == ["retry_after"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [('{"error": 1}', "application/json"), ("slow down", "text/plain; charset=utf-8"), (b"\xff", "text/plain; charset=utf-8")],
)
def test_an_answer_says_what_its_body_is(body, kind):
    """Length and type are set, unless they are given."""
    headers, sent = ProtocolFault("status", body=body).reply()
    assert headers == [("Content-Type", kind), ("Content-Length", str(len(body)))]
    assert sent == (body.encode() if isinstance(body, str) else body)
    own = {"content-type": "text/html", "content-length": "3"}
    assert ProtocolFault("status", body=body, headers=own).reply()[0] == list(own.items())


# -- decisions ------------------------------------------------------------------------------------------------------------------------


def test_only_requests_that_match_count():
    """Method and url must fit; the rest is neither seen nor struck."""
    fault = ProtocolFault("reset", method="POST", url="https://api.example.com/*")
    faults = ProtocolFaults(fault)
    assert not faults.decide("GET", URL)
    assert not faults.decide("POST", "https://other.example.com/v1/chat")
    assert faults.decide("post", URL)
    assert (faults.seen(fault), faults.struck(fault)) == (1, 1)


def test_calls_are_numbers_of_matching_requests():
    """Counted from 1 by each fault for itself."""
    faults = ProtocolFaults(ProtocolFault("reset", url="*/a", calls=(2,)), ProtocolFault("status", calls=(1, 3)))
    kinds = [[strike.fault.kind for strike in faults.decide("GET", f"http://x/{path}")] for path in ("a", "b", "a", "a")]
    assert kinds == [["status"], [], ["reset"], []]


def test_a_burst_clears():
    """``times`` strikes, then none."""
    faults = ProtocolFaults(ProtocolFault("status", times=2))
    assert decisions(faults, 5) == [True, True, False, False, False]


def test_the_same_seed_decides_alike():
    """The n-th matching request of a fault, whatever else is asked in between and whatever stands beside it."""
    fault = ProtocolFault("reset", url="*chat", rate=0.3)
    alone = decisions(ProtocolFaults(fault, seed=7), 200)
    among = ProtocolFaults(ProtocolFault("latency", delay=1, url="*other"), fault, seed="7")
    mixed = []
    for _ in range(200):
        among.decide("GET", "https://x/other")
        mixed.append(bool(among.decide("GET", URL)))
    assert alone == mixed
    assert 30 <= sum(alone) <= 90
    assert alone != decisions(ProtocolFaults(fault, seed=8), 200)


def test_equal_faults_draw_apart():
    """Twice the same fault is two chances, not one chance twice."""
    fault = ProtocolFault("latency", delay=1, rate=0.5)
    faults = ProtocolFaults(fault, fault)
    assert {len(faults.decide("GET", URL)) for _ in range(50)} == {0, 1, 2}


def test_faults_are_layers():
    """What lets the request through leaves those after it their turn; what does not hides them, and they still count it."""
    faults = ProtocolFaults(
        ProtocolFault("latency", delay=1), ProtocolFault("truncated"), ProtocolFault("status"), ProtocolFault("reset", calls=(2,))
    )
    assert [strike.fault.kind for strike in faults.decide("GET", URL)] == ["latency", "truncated", "status"]
    assert (faults.seen("reset"), faults.struck("reset")) == (1, 0)


def test_json_that_is_given_needs_no_peer():
    """The request is not sent, so what is below strikes nothing."""
    faults = ProtocolFaults(ProtocolFault("malformed_json", body="{}"), ProtocolFault("reset"))
    assert [strike.fault.kind for strike in faults.decide("GET", URL)] == ["malformed_json"]


def test_the_kill_switch_ends_strikes():
    """Requests are still counted."""
    faults = ProtocolFaults(ProtocolFault("reset"))
    assert decisions(faults, 1) == [True]
    faults.stop()
    assert faults.stopped
    assert decisions(faults, 2) == [False, False]
    assert (faults.seen(), faults.struck()) == (3, 1)


def test_a_strike_can_be_taken_back():
    """What had no effect is missed, not struck, and gives ``times`` back."""
    faults = ProtocolFaults(ProtocolFault("truncated", times=1))
    (strike,) = faults.decide("GET", URL)
    strike.miss()
    assert (faults.struck(), faults.missed(), faults.recent) == (0, 1, ())
    assert decisions(faults, 2) == [True, False]


def test_threads_share_the_count():
    """No strike is lost or given twice."""
    faults = ProtocolFaults(ProtocolFault("reset", times=500))
    threads = [threading.Thread(target=decisions, args=(faults, 200)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (faults.seen(), faults.struck()) == (800, 500)
    assert [strike.number for strike in faults.recent] == sorted(strike.number for strike in faults.recent)


def test_memory_is_bounded():
    """The last 256 strikes are kept, the counts go on."""
    faults = ProtocolFaults(ProtocolFault("reset"))
    decisions(faults, 1000)
    assert [strike.request for strike in faults.recent] == list(range(745, 1001))


def test_the_report_names_faults_and_counts():
    """One line a fault; what was never asked for is listed."""
    never = ProtocolFault("reset", url="*typo*")
    faults = ProtocolFaults(ProtocolFault("status", status=503, method="POST"), ProtocolFault("truncated"), never, seed=3)
    faults.decide("POST", URL)
    faults.decide("GET", URL)[0].miss()
    assert faults.unused() == (never,)
    assert faults.report().splitlines() == [
        "status 503 on POST *: 1 seen, 1 struck",
        "truncated on any method *: 2 seen, 0 struck, 1 missed",
        "reset on any method *typo*: 0 seen, 0 struck",
    ]
    faults.stop()
    assert repr(faults).startswith("<ProtocolFaults seed=3 struck=1, stopped: status 503 on POST *: 1 seen, 1 struck; ")


def test_counts_of_a_stranger_are_a_mistake():
    """Zero would look like an answer."""
    faults = ProtocolFaults(ProtocolFault("reset"))
    for ask in (faults.seen, faults.struck, faults.missed):
        with pytest.raises(LookupError, match="status 429 on any method"):
            ask(ProtocolFault("status"))
        with pytest.raises(LookupError):
            ask("truncated")
    assert ProtocolFaults().struck() == 0


def test_the_collection_is_checked_too():
    """Faults, seed and clock, all at once."""
    with pytest.raises(ConfigurationError) as raised:
        ProtocolFaults(ProtocolFault("reset"), "reset", seed=1.5, clock=object())
    assert [problem.path for problem in raised.value.problems] == [
        "ProtocolFaults.faults[1]",
        "ProtocolFaults.clock",
        "ProtocolFaults.seed",
    ]


def test_a_note_names_the_strike():
    """Kind, number and request, without query and user."""
    strike = strike_of(ProtocolFault("reset"))
    error = strike.mark(ValueError("x"))
    assert error.__notes__ == [f"injected by somaresil.testing: reset #1 of GET {URL}"]
    assert isinstance(strike, Strike)


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("https", "h", None, "/a%20b"), "https://h/a%20b"),
        (("http", "127.0.0.1", 8080, ""), "http://127.0.0.1:8080/"),
        (("http", "::1", 81, "/"), "http://[::1]:81/"),
    ],
)
def test_the_name_of_a_request(parts, name):
    """Scheme, host, port unless it is the usual one, path."""
    assert target(*parts) == name


# -- bodies ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "pieces", "expected"),
    [
        (0, [b"ab", b"cd"], []),
        (1, [b"ab", b"cd"], [b"", b"ab"]),
        (2, [b"ab", b"cd", b"ef", b"gh"], [b"", b"ab", b"cd"]),
        (1, [b"abcd"], [b"", b"ab"]),
        (9, [b"ab", b"cdef"], [b"", b"ab", b"cd"]),
        (1, [b"x"], [b"", b""]),
    ],
)
def test_a_truncated_body_ends_early(after, pieces, expected):
    """After so many chunks, or in the middle of the last one."""
    assert passed(Cut(strike_of(ProtocolFault("truncated", after_chunks=after)), events=False), pieces) == expected


@pytest.mark.parametrize(
    ("after", "pieces", "expected"),
    [(0, [b"ab"], []), (1, [b"ab", b"cd"], [b"ab"]), (2, [b"ab", b"", b"cd"], [b"ab", b""]), (9, [b"ab"], [b"ab", b""])],
)
def test_a_reset_body_breaks_after_chunks(after, pieces, expected):
    """Nothing is held back, and the error comes at the latest where the end would be."""
    cut = Cut(strike_of(ProtocolFault("reset_mid_body", after_chunks=after)), events=False)
    assert passed(cut, pieces) == expected
    assert cut.over
    assert cut.breaks


def test_a_chunk_in_pieces_counts_once():
    """Large chunks arrive in several parts."""
    cut = Cut(strike_of(ProtocolFault("reset_mid_body", after_chunks=2)), events=False)
    sent = [cut.feed(b"a", whole=False), cut.feed(b"b"), cut.feed(b"c", whole=False)]
    assert (sent, cut.over) == ([b"a", b"b", b"c"], False)
    assert (cut.feed(b"", whole=True), cut.over) == (b"", True)


@pytest.mark.parametrize("kind", ["truncated", "reset_mid_body"])
@given(sizes=st.lists(st.integers(1, 9), max_size=40), after=st.integers(1, 4))
def test_events_are_whole_however_they_arrive(kind, sizes, after):
    """The cut falls behind the n-th event, wherever pieces begin; comments and retry times are none."""
    pieces, rest = [], EVENTS
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    cut = Cut(strike_of(ProtocolFault(kind, after_chunks=after)), events=True)
    through = b"".join(passed(cut, [*pieces, rest]))
    begin = EVENTS.index([b"data: 1", b"data: 2", b"data: 3", b"[DONE]"][after - 1])
    ends = [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\n"][after - 1]
    # The LF of a CR LF that arrives in two pieces is not waited for: the event is whole without it.
    assert EVENTS[: EVENTS.index(ends, begin) + len(ends)] in {through, through + b"\n"}
    assert cut.over


def test_too_few_events_are_a_miss():
    """A stream that is shorter is left alone, and says so."""
    faults = ProtocolFaults(ProtocolFault("truncated", after_chunks=5))
    (strike,) = faults.decide("GET", URL)
    assert b"".join(passed(Cut(strike, events=True), [EVENTS])) == EVENTS
    assert (faults.struck(), faults.missed()) == (0, 1)


def test_an_empty_body_cannot_be_truncated():
    """Nothing is a miss."""
    faults = ProtocolFaults(ProtocolFault("truncated"))
    (strike,) = faults.decide("GET", URL)
    assert passed(Cut(strike, events=False), []) == [b""]
    assert faults.missed() == 1


@settings(max_examples=60)
@given(
    st.none() | st.integers() | st.text() | st.lists(st.text(max_size=4), max_size=3) | st.dictionaries(st.text(max_size=3), st.integers())
)
def test_half_of_json_is_not_json(value):
    """Whatever the answer was, also one that is valid when cut, and cut between characters."""
    half = halved_json(json.dumps(value, ensure_ascii=False).encode())
    assert half.strip()
    with pytest.raises(json.JSONDecodeError):
        json.loads(half.decode())


@pytest.mark.parametrize("data", [b"", b"<html>", b"12", b"\xff"])
def test_what_cannot_be_cut_is_replaced(data):
    """There is always something that looks like the beginning of JSON."""
    assert halved_json(data) == b'{"data": [{"id": 1, "na'


@pytest.mark.parametrize(
    ("method", "status", "length", "expected"),
    [("GET", 200, "5", True), ("GET", 200, None, True), ("HEAD", 200, "5", False), ("GET", 204, None, False), ("GET", 200, "0", False)],
)
def test_some_answers_have_no_body(method, status, length, expected):
    """By method, status or length."""
    assert has_body(method, status, length) is expected


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [("text/event-stream", True), ("Text/Event-Stream; charset=utf-8", True), ("text/plain", False), (None, False)],
)
def test_event_streams_are_known_by_type(content_type, expected):
    """Parameters and case do not matter."""
    assert is_event_stream(content_type) is expected
