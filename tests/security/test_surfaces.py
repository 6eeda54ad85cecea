"""Every HTTP surface of ours against requests that no client of good will sends.

Whatever comes, the app answers once, shortly, with a status that is no failure of its own; it says nothing to who is not known, nothing
hostile comes back as something that a browser or a terminal obeys, and nothing has changed.
"""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest

from tests.security.hostile import (
    ALICE,
    BOB,
    BODIES,
    FIELDS,
    JSON,
    KNOWN,
    MARK,
    METHODS,
    PATHS,
    PIECE,
    QUERIES,
    SECRETS,
    SMALL,
    SURFACES,
    VALUES,
    WINDOW,
    WINDOW_FIELDS,
)

GUARDED = [name for name in SURFACES if name != "metrics"]
REFUSALS = {400, 403, 404, 405, 408, 409, 413, 415, 422}
ANSWERS = REFUSALS | {200, 204, 307, 401}
FREE = {"/api/breakers/llm.invoke/trip", "/api/engage"}
"""What the dashboard does without a body, and for each object that is one."""
NOT_WRONG = {
    *("nothing", "blank", "list", "text", "number", "true", "many names", "many long names", "a long name", "a mark", "prototype"),
    *("a number of 4000 digits", "a lone surrogate", "a surrogate for a name", "NUL", "line ends"),
}
AS_BOB = (b"authorization", f"Bearer {BOB}".encode())


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    """Chaos may be started in this process, so that a request that should not start any could."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    monkeypatch.delenv("SOMARESIL_ENVIRONMENT", raising=False)


@pytest.fixture
def surface(request):
    made = SURFACES[request.param]()
    yield made
    for end in ("stop", "close"):
        if callable(getattr(made.app, end, None)):
            getattr(made.app, end)()


every = pytest.mark.parametrize("surface", [*SURFACES], indirect=True)
guarded = pytest.mark.parametrize("surface", GUARDED, indirect=True)
acting = pytest.mark.parametrize("surface", ["control", "dashboard", "verdicts"], indirect=True)


def check(surface, answer, sent, *, statuses=ANSWERS, most=SMALL):
    """What holds of every answer."""
    shown = repr(sent)[:200]
    assert answer.status in statuses, f"{shown}: {answer.status} {answer.body[:200]!r}"
    assert len(answer.body) <= most, f"{shown}: an answer of {len(answer.body)} bytes"
    for name, value in answer.headers:
        assert name == name.lower()
        assert not {0, 10, 13} & {*name, *value}, f"{shown}: {name!r}: {value!r}"
        assert len(name) + len(value) < 1_024, f"{shown}: {name!r}"
        assert name != b"x-injected"
    said = answer.body + b"".join(value for _, value in answer.headers)
    assert not any(secret in said for secret in SECRETS), f"{shown}: a secret in {answer.body[:200]!r}"
    if MARK.encode() in answer.body:
        assert answer.header(b"content-type").startswith((b"application/json", b"application/problem+json", b"text/plain")), shown
        assert answer.header(b"x-content-type-options") == b"nosniff", shown
    if answer.header(b"content-type").startswith(b"text/plain") and not surface.open_to_all:
        assert answer.body.decode().replace("\n", " ").isprintable() or not answer.body, f"{shown}: {answer.body[:200]!r}"
    assert surface.defects == [], f"{shown}: {surface.defects}"


def run(surface, requests):
    """Send all of ``requests``, each a callable that gives what to await; nothing may have changed. What was answered."""

    async def go():
        return [(sent, await ask()) for sent, ask in requests]

    before = surface.state()
    answers = asyncio.run(go())
    assert surface.state() == before
    assert answers
    return answers


def asking(surface, path, method="GET", **more):
    return (path[:80], method, more.get("query", b"")[:80], [*more.get("headers", ())][:3]), lambda: surface.ask(path, method, **more)


def asking_from_anywhere(surface, number, path, method, **more):
    """From an address of its own: none is refused for its many failures."""
    return asking(surface, path, method, client=(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1), **more)


# -- who is not known ---------------------------------------------------------------------------------------------------------------------


FORGED = (
    (),
    ((b"authorization", b"Bearer " + b"x" * 40),),
    ((b"authorization", b"Bearer"),),
    ((b"authorization", b"Bearer " + b"\xff" * 40),),
    ((b"authorization", b"Bearer \x00" + ALICE.encode()),),
    ((b"authorization", b"Bearer " + ALICE.encode() + b"\x00"),),
    ((b"authorization", b"Bearer " + ALICE.encode() + b", Bearer " + ALICE.encode()),),
    ((b"authorization", b"Bearer\t" + ALICE.encode()),),
    ((b"authorization", b"Bearer " + ALICE.encode().upper()),),
    ((b"authorization", b"Bearer " + b"A" * 100_000),),
    ((b"authorization", b"Basic " + b"=" * 50_000),),
    ((b"authorization", ALICE.encode()),),
    ((b"authorization", b"Digest username=alice"),),
    ((b"authorization", b""),),
    (KNOWN, KNOWN),
    (KNOWN, (b"authorization", b"Bearer " + b"x" * 40)),
    ((b"authorization", b"Bearer " + b"x" * 40), KNOWN),
    ((b"Authorization", KNOWN[1]),),
    ((b"proxy-authorization", KNOWN[1]),),
    ((b"x-authorization", KNOWN[1]),),
    ((b"cookie", b"authorization=" + KNOWN[1] + b"; session=alice; token=" + ALICE.encode()),),
    ((b"x-forwarded-for", b"127.0.0.1"), (b"x-real-ip", b"::1"), (b"forwarded", b"for=127.0.0.1;by=localhost")),
    ((b"x-forwarded-user", b"alice"), (b"x-remote-user", b"alice"), (b"remote-user", b"alice")),
    ((b"x-original-url", b"/status"), (b"x-rewrite-url", b"/status"), (b"x-http-method-override", b"POST")),
    ((b"a" * 100_000, b"b" * 100_000),),
    tuple((b"x-%d" % n, b"v") for n in range(10_000)),
)


@guarded
def test_all_who_are_not_known_get_one_answer_and_nothing_of_them_is_read(surface):
    """Whatever the path, the method, the credentials and the body; HEAD lacks the body alone."""
    numbers = itertools.count()
    places = (*PATHS, *surface.looks, *surface.acts, "/stop", "/api/stop", "/api/stream")
    requests = [asking_from_anywhere(surface, next(numbers), path, "GET", known=False) for path in places]
    requests += [asking_from_anywhere(surface, next(numbers), path, "POST", known=False, headers=surface.headers) for path in places]
    requests += [
        asking_from_anywhere(surface, next(numbers), path, method, known=False)
        for method in METHODS
        for path in (*surface.looks[:1], *surface.acts[:1])
    ]
    requests += [
        asking_from_anywhere(surface, next(numbers), path, method, known=False, headers=(*headers, *surface.headers))
        for headers in FORGED
        for path, method in ((surface.looks[-1], "GET"), ((surface.acts or ("/stop",))[0], "POST"))
    ]
    requests += [asking_from_anywhere(surface, next(numbers), surface.looks[0], "GET", known=False, query=query) for query in QUERIES]
    requests += [
        asking_from_anywhere(surface, next(numbers), (surface.acts or ("/stop",))[0], "POST", known=False, headers=(JSON,), body=[body])
        for body in BODIES.values()
    ]
    answers = run(surface, requests)
    for sent, answer in answers:
        check(surface, answer, sent, statuses={404, 401}, most=200)
        assert answer.taken == 0, sent
    assert len({(answer.status, answer.headers) for _, answer in answers}) == 1
    assert len({answer.body for (_, method, *_), answer in answers if method != "HEAD"}) == 1
    assert {answer.body for (_, method, *_), answer in answers if method == "HEAD"} == {b""}


@guarded
def test_what_a_client_says_of_its_address_gives_it_no_more_tries(surface):
    """The address is that of the connection: a guesser who names another one each time has the tries of one, and is then not looked at."""
    said = [(b"x-forwarded-for", b"x-real-ip", b"forwarded", b"client-ip", b"cf-connecting-ip")[n % 5] for n in range(30)]
    requests = [
        asking(surface, surface.looks[0], known=False, headers=((name, b"10.0.0.%d" % n), (b"authorization", b"Bearer " + b"x" * 40)))
        for n, name in enumerate(said)
    ]
    run(surface, requests)
    ((_, answer),) = run(surface, [asking(surface, surface.looks[0], headers=((b"x-forwarded-for", b"203.0.113.9"),))])
    assert answer.status in {401, 404}, "good credentials that were never good before are not looked at either"


@guarded
def test_a_websocket_is_closed_before_it_is_open_for_everybody(surface):
    async def go(headers):
        sent = []

        async def send(message):
            sent.append(message)

        async def receive():
            return {"type": "websocket.connect"}

        scope = {"type": "websocket", "path": f"{surface.root}/status", "root_path": surface.root, "headers": headers, "query_string": b""}
        await surface.app(scope, receive, send)
        return sent

    assert asyncio.run(go([])) == asyncio.run(go([KNOWN])) == [{"type": "websocket.close", "code": 1000}]


# -- who is known -------------------------------------------------------------------------------------------------------------------------


@every
def test_no_path_is_more_than_not_found(surface):
    """Nothing is cleaned up, decoded again or looked for outside: a path is one of ours, letter by letter, or it is none."""
    paths = [path for path in PATHS if not (surface.name == "dashboard" and not path)]
    requests = [
        asking(surface, path, method, headers=more) for path in paths for method in ("GET", "POST") for more in ((), surface.headers)
    ]
    requests += [asking(surface, path, below=False) for path in paths]
    requests += [asking(surface, path, headers=((b"accept", b"text/html"),)) for path in paths]
    for sent, answer in run(surface, requests):
        anything = surface.name in {"metrics", "evidence"}
        check(surface, answer, sent, statuses={200, 405} if anything else REFUSALS, most=2 * SMALL if anything else SMALL)


@every
def test_no_method_does_what_another_one_does(surface):
    requests = [asking(surface, path, method) for path in (*surface.looks, *surface.acts, "/stop", "/api/stop") for method in METHODS]
    for (path, method, *more), answer in run(surface, requests):
        good = method in {"GET", "HEAD"} and (path in surface.looks or surface.open_to_all or surface.name == "evidence")
        good |= path == "/prom/api/v1/query" and method == "POST"
        if good:
            assert answer.status in {200, 400, 415}, (path, method, answer.status)
        elif method == "OPTIONS" and surface.name in {"control", "dashboard"}:
            assert answer.status in {204, 404}
        else:
            check(surface, answer, (path, method, *more), statuses=REFUSALS)
        assert surface.defects == []


@every
def test_no_header_turns_a_get_into_something_else(surface):
    names = (b"x-http-method-override", b"x-http-method", b"x-method-override")
    others = (b"x-original-url", b"x-rewrite-url", b"x-forwarded-prefix", b"x-forwarded-path", b"x-script-name")
    headers = [((name, b"POST"), *surface.headers) for name in names] + [((name, b"/stop"), *surface.headers) for name in others]
    requests = [asking(surface, path, "GET", headers=more, query=b"_method=POST") for path in ("/stop", "/api/stop") for more in headers]
    for sent, answer in run(surface, requests):
        expected = {200} if surface.name in {"metrics", "evidence"} else {404, 405}
        check(surface, answer, sent, statuses=expected, most=2 * SMALL)


@every
def test_headers_may_be_many_long_broken_and_double(surface):
    odd = (
        ((b"x", b"v" * 100_000),),
        ((b"n" * 100_000, b""),),
        tuple((b"x-%d" % n, b"v") for n in range(10_000)),
        tuple((b"accept", b"text/html;q=0.1") for _ in range(2_000)),
        ((b"accept", b"," * 20_000),),
        ((b"accept", b"application/openmetrics-text;q=" + b"9" * 5_000),),
        ((b"accept", b"application/openmetrics-text;q=nan, text/plain;q=inf"),),
        ((b"accept", b"\xff\xfe\x00"), (b"accept-encoding", b"\xff"), (b"if-none-match", b"\xff")),
        ((b"if-none-match", b'"' * 100_000), (b"accept-encoding", b"gzip;q=" + b"1" * 10_000)),
        ((b"", b""), (b"\xff", b"\xff"), (b"\x00", b"\x00"), (b"x\r\ny", b"a\r\nb")),
        ((b"host", b"evil.example"),),
        ((b"host", f"{MARK}\r\nx-injected: 1".encode()), (b"origin", MARK.encode()), (b"referer", MARK.encode())),
        ((b"content-length", b"0"), (b"content-length", b"5"), (b"transfer-encoding", b"chunked")),
        ((b"range", b"bytes=0-" + b"," * 10_000), (b"expect", b"100-continue"), (b"upgrade", b"h2c")),
        ((b"cookie", b"a=b; " * 20_000),),
        ((b"last-event-id", b"9" * 5_000), (b"idempotency-key", b"\xff" * 200)),
        ((b"traceparent", b"\xff" * 1_000), (b"baggage", b"a=" + b"%ff" * 3_000)),
    )
    requests = [asking(surface, path, headers=headers) for headers in odd for path in (surface.looks[0], "/nothing")]
    for sent, answer in run(surface, requests):
        check(surface, answer, sent, most=2 * SMALL)
    requests = [asking(surface, path, "POST", headers=headers, body=[b"{}"]) for headers in odd for path in surface.acts[:3]]
    for sent, answer in run(surface, requests) if requests else ():
        check(surface, answer, sent, statuses=REFUSALS)


@every
def test_no_query_is_more_than_refused(surface):
    requests = [asking(surface, path, query=query) for path in surface.looks for query in QUERIES]
    for sent, answer in run(surface, requests):
        check(surface, answer, sent, most=4 * SMALL if "openapi" in sent[0] else 2 * SMALL if answer.status == 200 else SMALL)


@acting
def test_no_body_that_is_wrong_does_anything(surface):
    """Those that the dashboard does not need may be left out, and the words in them are looked at only where there is one to look for."""
    sent = [(path, name) for path in surface.acts for name in BODIES if not (path in FREE and name in NOT_WRONG)]
    requests = [asking(surface, path, "POST", headers=surface.headers, body=[BODIES[name]]) for path, name in sent]
    for (path, name), (_, answer) in zip(sent, run(surface, requests), strict=True):
        check(surface, answer, (path, name), statuses=REFUSALS)


@acting
@pytest.mark.parametrize(
    "kind",
    [
        None,
        b"",
        b"text/plain",
        b"text/json",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"application/json; charset=utf-16",
        b"application/json, text/plain",
        b"application/jsonp",
        b"application/json\x00",
        b"\xff",
        b";" * 10_000,
    ],
)
def test_what_is_not_said_to_be_json_is_not_read_as_such(surface, kind):
    """Pages of other sites can have browsers send the types of forms, and no JSON."""
    headers = [pair for pair in surface.headers if pair != JSON and pair[0] != b"x-somaresil-csrf"]
    headers += [] if kind is None else [(b"content-type", kind)]
    for sent, answer in run(surface, [asking(surface, path, "POST", headers=headers, body=[b"{}"]) for path in surface.acts]):
        check(surface, answer, sent, statuses={415, 404})
        assert answer.taken == 0
    twice = [*headers, JSON, JSON]
    packed = [*surface.headers, (b"content-encoding", b"gzip")]
    for given in (twice, packed):
        for sent, answer in run(surface, [asking(surface, path, "POST", headers=given, body=[b"{}"]) for path in surface.acts]):
            check(surface, answer, sent, statuses={415, 404})


def _endless():
    return itertools.repeat(b" " * PIECE)


@acting
@pytest.mark.parametrize(
    ("length", "body", "ends", "statuses"),
    [
        (b"10000000", lambda: iter([b" " * PIECE] * 160), "whole", {413}),
        (None, lambda: iter([b" " * PIECE] * 160), "whole", {413}),
        (b"2", lambda: iter([b" " * PIECE] * 160), "whole", {413}),
        (b"0", _endless, "whole", {413}),
        (None, _endless, "whole", {413}),
        (b"-1", _endless, "whole", {413}),
        (b"9" * 5_000, _endless, "whole", {413}),
        ("٣".encode(), _endless, "whole", {413}),
        (b"100", lambda: iter([b'{"reason"']), "cut", {400}),
        (None, lambda: iter([]), "cut", {400}),
        (b"100", lambda: iter([b"{"] * 3), "silent", {408}),
        (None, lambda: iter([]), "silent", {408}),
        (None, lambda: iter([b""] * 500), "silent", {408}),
    ],
    ids=[
        "ten megabytes",
        "ten megabytes of no length",
        "more than it says",
        "no end after nothing",
        "no end",
        "a negative length",
        "a length of many digits",
        "a length of other digits",
        "cut off",
        "cut off at once",
        "silent after a while",
        "silent at once",
        "empty pieces",
    ],
)
def test_a_body_without_end_and_one_that_breaks_off_are_given_up(surface, length, body, ends, statuses):
    """After one piece more than is allowed, whatever its length was said to be, and in a time that is bounded."""
    headers = [*surface.headers, *([] if length is None else [(b"content-length", length)])]
    for path in surface.acts:
        request = asking(surface, path, "POST", headers=headers, body=body(), ends=ends)
        ((sent, answer),) = run(surface, [request])
        check(surface, answer, sent, statuses=statuses)
        assert answer.taken <= surface.largest + PIECE


@acting
def test_no_value_in_any_field_is_more_than_refused(surface):
    requests = []
    for path, (document, fields) in FIELDS.items():
        if path in surface.acts:
            requests += [(path, {**document, name: value}) for name in fields for value in VALUES]
    if surface.name == "control":
        for name, value in itertools.product(WINDOW_FIELDS, VALUES):
            requests.append(("/check", {"somaresil_plan": 1, "seed": 1, "windows": [{**WINDOW, "start": 0, name: value}]}))
    bodies = [(path, json.dumps(document).encode()) for path, document in requests]
    answers = run(
        surface,
        [asking(surface, path, "POST", headers=surface.headers, body=[body]) for path, body in bodies if len(body) <= surface.largest],
    )
    assert len(answers) > 30
    for sent, answer in answers:
        check(surface, answer, sent, statuses=REFUSALS | ({200} if sent[0] in {"/check", "/evidence"} else set()))


# -- tokens of pages, pages of others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("surface", ["dashboard"], indirect=True)
def test_no_token_but_a_fresh_one_of_the_same_person_moves_anything(surface):
    """Forged, of somebody else, too old, of another service, given twice, without end: each is none."""
    tokens = surface.app._tokens
    good = tokens.give("alice")
    until, _, signature = good.partition(".")
    forged = [
        b"",
        b".",
        b"\xff" * 40,
        b"\x00",
        tokens.give("bob").encode(),
        f"{int(until) + 1}.{signature}".encode(),
        f"{until}.{signature[:-1]}".encode(),
        f"{until}.{signature}x".encode(),
        f"{until}.{signature}=".encode(),
        f"+{good}".encode(),
        f" {good} ".encode(),
        f"{until}.".encode(),
        f"{'9' * 100}.{signature}".encode(),
        f"{'9' * 5_000}.{signature}".encode(),
        f"{good}, {good}".encode(),
        f"-1.{signature}".encode(),
        f"{until}.{signature}".upper().encode(),
        MARK.encode(),
    ]
    paths = [path for path in surface.acts if path != "/api/engage"] + ["/api/engage", "/api/disengage", "/api/experiments/x/stop"]
    requests = [
        asking(surface, path, "POST", headers=(JSON, (b"x-somaresil-csrf", token)), body=[b"{}"]) for path in paths for token in forged
    ]
    requests += [
        asking(surface, path, "POST", headers=(JSON, (b"x-somaresil-csrf", good.encode()), (b"x-somaresil-csrf", b"x"))) for path in paths
    ]
    requests += [asking(surface, path, "POST", headers=(JSON,)) for path in paths]
    requests += [asking(surface, path, "POST", known=False, headers=(AS_BOB, *surface.headers), body=[b"{}"]) for path in paths]
    for sent, answer in run(surface, requests):
        check(surface, answer, sent, statuses={403})
    surface.resilience.clock.advance(12 * 3600.0)
    old = [asking(surface, path, "POST", headers=surface.headers, body=[b"{}"]) for path in paths]
    for sent, answer in run(surface, old):
        check(surface, answer, sent, statuses={403})


@pytest.mark.parametrize("surface", ["control", "dashboard"], indirect=True)
@pytest.mark.parametrize(
    "headers",
    [
        ((b"origin", b"http://evil.example"),),
        ((b"origin", b"null"),),
        ((b"origin", b""),),
        ((b"origin", b"http://service.evil.example"),),
        ((b"origin", b"http://service:8080"),),
        ((b"origin", b"https://service"),),
        ((b"origin", b"http://service/"),),
        ((b"origin", b"http://service\x00"),),
        ((b"origin", b"http://user@service"),),
        ((b"origin", b"http://service"), (b"origin", b"http://evil.example")),
        ((b"origin", b"http://evil.example"), (b"host", b"evil.example")),
        ((b"origin", b"http://evil.example"), (b"x-forwarded-host", b"evil.example")),
        ((b"origin", b"null"), (b"sec-fetch-site", b"same-origin")),
        ((b"origin", b"http://evil.example"), (b"sec-fetch-site", b"cross-site")),
        ((b"origin", b"http://evil.example"), (b"sec-fetch-site", b"same-origin, same-origin")),
        ((b"sec-fetch-site", b"cross-site"),),
        ((b"sec-fetch-site", b"same-site"),),
        ((b"origin", MARK.encode()),),
        ((b"origin", b"h" * 100_000),),
    ],
    ids=lambda each: b" ".join(value[:40] for _, value in each).decode("latin-1").replace("\x00", "NUL") or "empty",
)
def test_no_page_of_another_site_moves_anything_not_even_the_kill_switch(surface, headers):
    paths = (*surface.acts, "/stop", "/engage", "/api/stop")
    for sent, answer in run(surface, [asking(surface, path, "POST", headers=(*headers, *surface.headers), body=[b"{}"]) for path in paths]):
        check(surface, answer, sent, statuses={403, 404})


# -- that the table is one ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("surface", ["control"], indirect=True)
def test_a_request_that_changes_something_is_noticed_by_the_table(surface):
    with pytest.raises(AssertionError):
        run(surface, [asking(surface, "/stop", "POST", headers=surface.headers, body=[b"{}"])])


@every
def test_good_requests_are_answered_by_the_same_apps(surface):
    """Or all of the above would be true of an app that refuses everything."""
    for sent, answer in run(
        surface, [asking(surface, path, query=b"query=vector(1)" if "query" in path else b"") for path in surface.looks]
    ):
        assert answer.status == 200, (sent, answer.body[:200])
