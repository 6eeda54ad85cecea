"""The command top: exit codes, what it prints where nobody looks, and what it says when it could not be asked."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer

import pytest

from somaresil.cli import main
from somaresil.remote import Impossible, Remote
from somaresil.top_command.cli import KINDS
from somaresil.top_command.command import FAILURES, failures
from tests.unit.top_command.kit import DETAIL, NAME, PICTURE, TOKEN, Dashboard, Handler, picture, serving


@pytest.fixture
def board(monkeypatch):
    """A dashboard, its address, and the token that opens it."""
    monkeypatch.setenv(NAME, TOKEN)
    monkeypatch.setenv("COLUMNS", "100")
    with serving() as (dashboard, url):
        yield dashboard, url


def test_where_nobody_looks_it_is_shown_once(board, capsys):
    """Without a terminal the view is printed as plain text, and that is a success."""
    _, url = board
    assert main(["top", url]) == 0
    shown = capsys.readouterr()
    assert "llm.invoke" in shown.out
    assert "\x1b" not in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--view", "slos"], "api_availability"),
        (["--guard", "llm.invoke"], "circuit_open 5"),
        (["--view", "chaos"], "slow model"),
        (["--view", "canary"], "ramp_10"),
        (["--view", "events"], "a circuit opened"),
        (["--view", "guard"], "no guard is chosen"),
        (["--filter", "memory"], "memory.write"),
    ],
)
def test_each_view_is_printed(board, capsys, arguments, said):
    """What is asked for is what is shown."""
    _, url = board
    assert main(["top", url, "--once", *arguments]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], PICTURE), (["--guard", "llm.invoke"], DETAIL), (["--view", "events"], None)],
)
def test_json_is_what_the_dashboard_says(board, capsys, arguments, said):
    """Word for word."""
    dashboard, url = board
    assert main(["top", url, "--once", "--json", *arguments]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == (said if said is not None else {"events": dashboard.events, "next": 3, "lost": 0})


def test_it_fails_on_what_it_is_told_to_fail_on(board, capsys):
    """Exit code 1 with each thing that is wrong; 0 when none of these kinds is."""
    dashboard, url = board
    assert main(["top", url, "--fail-on", "open,missing,chaos,budget,alert"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "somaresil top: the circuit of llm.invoke is open",
        "somaresil top: gateway-2 is stale",
        "somaresil top: gateway-3 is missing",
        "somaresil top: experiment latency-1 runs",
    ]
    assert main(["top", url, "--fail-on", "budget,alert"]) == 0
    spent = {**PICTURE["objectives"][0], "budget_left": -0.2, "alerts": [{"severity": "page", "since": 1.0}]}
    dashboard.picture = picture(objectives=[spent])
    assert main(["top", url, "--fail-on", "budget"]) == 1
    assert main(["top", url, "--fail-on", "alert"]) == 1


def test_what_is_not_known_is_not_wrong():
    """No budget, no states, no sources: nothing can be said against that."""
    assert failures({"guards": [{}], "objectives": [{"budget_left": None}], "sources": []}, list(KINDS)) == []
    assert failures({"guards": 7, "objectives": "x", "sources": None, "experiments": [1]}, list(KINDS)) == []
    assert set(FAILURES) == set(KINDS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--view", "everything"], "invalid choice: 'everything'"),
        (["--fail-on", "rain"], "'rain': expected some of open, budget, alert, missing, chaos"),
        (["--fail-on", ","], "expected some of"),
        (["--interval", "0"], "'0': expected seconds from 0.2 to 3600"),
        (["--interval", "nan"], "expected seconds"),
        (["--lively"], "unrecognized arguments: --lively"),
    ],
)
def test_wrong_arguments_say_what_is_allowed(capsys, arguments, said):
    """Exit code 2 before anything is asked."""
    with pytest.raises(SystemExit) as ended:
        main(["top", "http://127.0.0.1:1/", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def refused(capsys, *arguments):
    """What is said with exit code 2."""
    assert main(["top", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_a_token_that_is_not_known_looks_like_a_wrong_address(board, capsys, monkeypatch):
    """A dashboard gives nothing away, so both are said."""
    _, url = board
    monkeypatch.setenv(NAME, "w" * 40)
    assert "status 404: a wrong URL, or a token that is not known there" in refused(capsys, url)
    monkeypatch.delenv(NAME)
    assert "status 404: a wrong URL, or it needs a token" in refused(capsys, url)


def test_a_dashboard_that_is_open_to_all_is_asked_without_a_token(board, capsys, monkeypatch):
    """And no header says otherwise."""
    dashboard, url = board
    dashboard.for_all = True
    monkeypatch.delenv(NAME)
    assert main(["top", url]) == 0
    assert "llm.invoke" in capsys.readouterr().out
    assert not any(name.lower() == "authorization" for _, _, headers in dashboard.asked for name in headers)


def test_what_is_no_dashboard_is_said(board, capsys, monkeypatch):
    """A closed port, no address, another page, another version, another variable."""
    dashboard, url = board
    assert "nothing listens there" in refused(capsys, "http://127.0.0.1:9/")
    monkeypatch.delenv("SOMARESIL_DASHBOARD_URL", raising=False)
    assert "where is the dashboard? its address as an argument, or SOMARESIL_DASHBOARD_URL" in refused(capsys)
    assert "expected http:// or https://" in refused(capsys, "ftp://127.0.0.1/")
    assert "the variable OTHER holds no token" in refused(capsys, url, "--token-env", "OTHER")
    dashboard.picture = {"hello": "world"}
    assert "not one of the dashboard" in refused(capsys, url)
    dashboard.picture = picture(version=9)
    assert "version 9 of the picture, and this command understands 1" in refused(capsys, url)
    dashboard.content_type = "text/html"
    assert "not one of the dashboard (status 200)" in refused(capsys, url)


def test_the_address_may_come_from_the_environment(board, capsys, monkeypatch):
    """For a shell that looks at one service all day."""
    _, url = board
    monkeypatch.setenv("SOMARESIL_DASHBOARD_URL", url.rstrip("/"))
    assert main(["top"]) == 0
    assert "llm.invoke" in capsys.readouterr().out


def test_another_encoding_gets_what_it_can_show(board):
    """On a stream that knows ASCII only the drawings are ASCII, and names are escapes."""
    dashboard, url = board
    dashboard.picture = picture(service="modèle")
    command = [sys.executable, "-m", "somaresil", "top", url, "--once"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"mod\\xe8le" in done.stdout


def test_a_reader_that_leaves_is_no_error(board):
    """`somaresil top ... | head -1` ends quietly."""
    _, url = board
    command = f"{sys.executable} -m somaresil top {url} --json --once | head -c 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, check=False, timeout=60)
    assert b"Traceback" not in done.stderr


def test_lines_of_json_for_programs(board):
    """Without --once each picture is a line; with events each event is one, the old ones first."""
    dashboard, url = board
    command = [sys.executable, "-m", "somaresil", "top", url, "--json", "--view", "events"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert [json.loads(process.stdout.readline())["id"] for _ in range(2)] == [1, 2]
        dashboard.say("event", {**dashboard.events[1], "id": 3, "text": "new"}, "3")
        assert json.loads(process.stdout.readline())["text"] == "new"
    finally:
        process.terminate()
        process.communicate(timeout=20)


# -- https --------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def secure(tmp_path, monkeypatch):
    """A dashboard behind a certificate that nobody has signed, and the file with it."""
    monkeypatch.setenv(NAME, TOKEN)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=x",
    ]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    if subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_: None
    server.dashboard = Dashboard()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server.dashboard, f"https://127.0.0.1:{server.server_address[1]}/_soma/", certificate
    server.dashboard.open = False
    server.dashboard.end_streams()
    server.shutdown()
    server.server_close()
    thread.join(5)


def remote_of(url):
    return Remote("dashboard", url=url, url_variable="U", token_variable=NAME, timeout=5.0)


def test_a_certificate_that_is_not_trusted_is_named(secure, capsys):
    """Not as an error of some layer below, but with what to do."""
    _, url, _ = secure
    said = refused(capsys, url)
    assert "its certificate is not trusted here: self-signed certificate" in said
    assert "SSL_CERT_FILE" in said
    with pytest.raises(Impossible, match="its certificate is not trusted here"):
        remote_of(url).stream("/api/stream", silence=5.0)


def test_https_works_with_a_certificate_that_is(secure, capsys, monkeypatch):
    """Questions and the stream."""
    dashboard, url, certificate = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert main(["top", url, "--once"]) == 0
    assert "llm.invoke" in capsys.readouterr().out
    incoming = remote_of(url).stream("/api/stream", silence=5.0)
    dashboard.say("event", {"id": 1}, "1")
    assert next(iter(incoming)).startswith(b"id: 1")
    incoming.stop()
    incoming.close()


def test_a_stream_is_only_taken_for_what_it_is(board):
    """JSON where a stream was asked for, or nothing at all, is no stream; redirects are not followed."""
    dashboard, url = board
    dashboard.streams = False
    with pytest.raises(Impossible, match="status 404"):
        remote_of(url).stream("/api/stream", silence=5.0)
    with pytest.raises(Impossible, match=r"not one of the dashboard \(status 200\)"):
        remote_of(url).stream("/api/picture", silence=5.0)
    dashboard.refuse = 302
    with pytest.raises(Impossible, match="status 302"):
        remote_of(url).stream("/api/stream", silence=5.0)
    with pytest.raises(Impossible, match="nothing listens there"):
        remote_of("http://127.0.0.1:9/").stream("/api/stream", silence=5.0)


def test_a_stream_that_falls_silent_is_given_up(board):
    """After the silence that was asked for."""
    _, url = board
    incoming = remote_of(url).stream("/api/stream", silence=0.2)
    with pytest.raises(Impossible, match="timed out"):
        next(iter(incoming))
    incoming.close()
