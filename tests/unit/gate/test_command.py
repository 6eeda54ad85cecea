"""The command of the gate: its credentials, its two stores, and what it does when it was asked wrongly."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from somaresil import Outcome, Resilience
from somaresil.cli import main
from somaresil.integrations.prometheus_store import PrometheusStore
from somaresil.slofile import read_slos

SECRET = "hunter2hunter2"


class Server:
    """A Prometheus that knows one thing, and remembers with which credentials it was asked."""

    def __init__(self):
        self.good, self.bad, self.asked = 1_000, 0, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.headers.get("authorization"))
                now = time.time()
                values = {"good": outer.good, "bad": outer.bad, "newest": now - 5.0, "seen": 360}
                result = [{"metric": {"part": part}, "value": [now, str(value)]} for part, value in values.items()]
                body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20.0)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "slo.toml"
    file.write_text('[gate]\nminimum_coverage = 0.0\n[slos.api]\ntarget_percentage = 99\nmeasurement_window = "1d"\n')
    return file


@pytest.fixture
def gate(file, capsys):
    """Run the command; its exit code, and what it wrote to both."""

    def run(*arguments):
        capsys.readouterr()
        code = main(["gate", "--slo", str(file), "--format", "json", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def left_behind(file, folder, *, good, bad=0):
    """A snapshot of a service that has counted so much."""
    resilience = Resilience("service")
    resilience.slos.add(*read_slos(file).slos)
    recorder = resilience.guard("x", slo="api").recorder
    snapshot = resilience.slos.keep(folder, service="service", interval=3_600.0)
    for _ in range(good):
        recorder.count_quiet(0.01)
    for _ in range(bad):
        recorder.add(Outcome.BAD, 0.01)
    snapshot.stop()


# -- credentials --------------------------------------------------------------------------------------------------------------------------


def test_without_credentials_none_are_sent(gate, server):
    """Not an empty one either."""
    assert gate("--prometheus", server.url)[0] == 0
    assert set(server.asked) == {None}


def test_a_bearer_token_comes_from_a_file(gate, server, tmp_path):
    """Without the line break at its end."""
    token = tmp_path / "token"
    token.write_text(f"{SECRET}\n")
    code, out, err = gate("--prometheus", server.url, "--token-file", token)
    assert (code, set(server.asked)) == (0, {f"Bearer {SECRET}"})
    assert SECRET not in out + err


def test_a_bearer_token_comes_from_a_variable(gate, server, monkeypatch):
    """Its name stands in the process list, and nothing else."""
    monkeypatch.setenv("GATE_TOKEN", SECRET)
    assert gate("--prometheus", server.url, "--token-env", "GATE_TOKEN")[0] == 0
    assert set(server.asked) == {f"Bearer {SECRET}"}


def test_a_user_and_password_come_from_a_variable(gate, server, monkeypatch):
    """As HTTP's basic authentication; a colon in the password is no matter."""
    monkeypatch.setenv("GATE_BASIC", f"ann:{SECRET}:more")
    assert gate("--prometheus", server.url, "--basic-env", "GATE_BASIC")[0] == 0
    assert set(server.asked) == {"Basic " + base64.b64encode(f"ann:{SECRET}:more".encode()).decode()}


@pytest.mark.parametrize(
    ("option", "value", "path"),
    [
        ("--token-env", None, "token_env"),
        ("--token-env", "", "token_env"),
        ("--token-env", f"{SECRET}\n", "token_env"),
        ("--token-env", f"{SECRET}\u00e9", "token_env"),
        ("--basic-env", SECRET, "basic_env"),
        ("--basic-env", None, "basic_env"),
    ],
)
def test_a_variable_that_holds_no_credentials_is_asked_wrongly(option, value, path, gate, server, monkeypatch):
    """Nobody is asked, and what it holds is not shown."""
    monkeypatch.delenv("GATE_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("GATE_SECRET", value)
    code, out, err = gate("--prometheus", server.url, option, "GATE_SECRET")
    assert (code, out, server.asked) == (3, "", [])
    assert f"{path} = 'GATE_SECRET'" in err
    assert SECRET not in err


@pytest.mark.parametrize("content", [None, b"", b"two words\n", b"a\nb\n", "\u00e9".encode()])
def test_a_file_that_holds_no_token_is_asked_wrongly(content, gate, server, tmp_path):
    """Empty, of several words, of other letters, or not there."""
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    code, _, err = gate("--prometheus", server.url, "--token-file", token)
    assert (code, server.asked) == (3, [])
    assert "token_file" in err


def test_one_way_of_credentials_is_enough(gate, server, monkeypatch, tmp_path):
    """Two could be of two people."""
    monkeypatch.setenv("GATE_TOKEN", SECRET)
    token = tmp_path / "token"
    token.write_text(SECRET)
    code, _, err = gate("--prometheus", server.url, "--token-env", "GATE_TOKEN", "--token-file", token)
    assert (code, server.asked) == (3, [])
    assert "None when token_env is given" in err


def test_a_password_in_the_address_is_refused_and_not_repeated(gate):
    """It would end in logs."""
    code, _, err = gate("--prometheus", f"http://ann:{SECRET}@localhost:9090")
    assert code == 3
    assert SECRET not in err


def test_a_token_that_is_rotated_is_read_again(server, tmp_path):
    """A service that asks for days goes on."""
    token = tmp_path / "token"
    token.write_text("first")
    store = PrometheusStore(server.url, token_file=token)
    (slo,) = read_slos({"slos": {"api": {"target_percentage": 99, "measurement_window": "1d"}}}).slos
    assert store.read(slo, 3_600.0).problem is None
    token.write_text("second")
    assert store.read(slo, 3_600.0).problem is None
    token.unlink()
    assert store.read(slo, 3_600.0).problem is not None
    assert server.asked == ["Bearer first", "Bearer second"]


# -- both stores at once ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fleet", "own", "code", "decision"),
    [
        ((1_000, 0), (1_000, 0), 0, "allow"),
        ((900, 100), (1_000, 0), 1, "block"),
        ((1_000, 0), (900, 100), 1, "block"),
        ((5, 0), (1_000, 0), 2, "unknown"),
        ((1_000, 0), None, 2, "unknown"),
        ((900, 100), None, 1, "block"),
    ],
)
def test_with_two_stores_the_worse_answer_stands(fleet, own, code, decision, gate, server, file, tmp_path):
    """The evidence names both."""
    server.good, server.bad = fleet
    folder = tmp_path / "snapshots"
    folder.mkdir()
    if own is not None:
        left_behind(file, folder, good=own[0], bad=own[1])
    found, out, _ = gate("--prometheus", server.url, "--snapshot", folder)
    said = json.loads(out)
    assert (found, said["decision"]) == (code, decision)
    assert [each["source"] for each in said["objectives"]] == ["prometheus", "snapshot"]


def test_a_snapshot_alone_is_enough(gate, file, tmp_path):
    """A folder of a service, or one file of it."""
    folder = tmp_path / "snapshots"
    left_behind(file, folder, good=100)
    (one,) = folder.glob("slo_*.bin")
    for path in (folder, one):
        code, out, _ = gate("--snapshot", path)
        assert (code, json.loads(out)["objectives"][0]["good"]) == (0, 100)


# -- asked wrongly ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--prometheus = None"),
        (("--prometheus", "http://localhost:1", "--only", "apu"), "did you mean 'api'?"),
        (("--prometheus", "http://localhost:1", "--label", "job"), "NAME=VALUE"),
        (("--prometheus", "http://localhost:1", "--label", "slo=x"), "a label name other than slo"),
        (("--prometheus", "ftp://localhost"), "http://host"),
        (("--prometheus", "http://localhost:1", "--timeout", "0"), "timeout"),
        (("--prometheus", "http://localhost:1", "--override", "why"), "--until"),
        (("--prometheus", "http://localhost:1", "--until", "2026-01-01T00:00:00Z"), "--override"),
        (("--prometheus", "http://localhost:1", "--override", "why", "--until", "tomorrow"), "with its zone"),
        (("--prometheus", "http://localhost:1", "--override", "why", "--until", "2026-01-01T00:00:00"), "with its zone"),
        (("--prometheus", "http://localhost:1", "--override", " ", "--until", "2026-01-01T00:00:00Z"), "1 to 500 characters"),
        (("--prometheus", "http://localhost:1", "--override", "why", "--until", "2999-01-01T00:00:00Z"), "at most 7 days"),
    ],
)
def test_wrong_arguments_are_exit_code_3_in_words(arguments, said, gate):
    """Not 2: that means that it was asked properly, and nothing is known."""
    code, out, err = gate(*arguments)
    assert (code, out) == (3, "")
    assert said in err


def test_a_defect_of_the_gate_itself_is_no_reason_to_release(monkeypatch, capsys, tmp_path):
    def broken(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr("somaresil.gate.command._run", broken)
    assert main(["gate", "--slo", str(tmp_path / "slo.toml")]) == 2
    assert "UNKNOWN: RuntimeError in the gate itself" in capsys.readouterr().err
