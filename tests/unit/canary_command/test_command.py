"""The command canary in this process: exit codes, what it asks and prints, and a rollout from its first share to its end."""

from __future__ import annotations

import json
import signal
import stat
import sys

import pytest

from somaresil import ManualClock
from somaresil.canary.ledger import Counts, Finding
from somaresil.canary.opinion import Opinion
from somaresil.canary.router import RouterError
from somaresil.canary_command import command
from somaresil.canary_command.file import RolloutFile
from somaresil.canary_command.router import CommandRouter
from somaresil.cli import _parser, main
from somaresil.model.rollout import Verdict
from somaresil.remote import Impossible, Remote

ROLLOUT = """
[canary]
name = "gateway"
bad = "up"
allowed = 0.05
bake = 60
minimum_events = 5
steps = [10, 50, 100]
interval = 10
[judge]
sources = [{{ kind = "push" }}]
[router]
kind = "command"
set = [{traffic!r}, "{{percent}}", "{{version}}"]
[run]
snapshot = {snapshot!r}
"""


def asked(*words, clock=None):
    """The exit code of a command on a clock that moves when it waits."""
    return command.run(_parser().parse_args(["canary", *words]), clock or Hurry())


class Hurry(ManualClock):
    """Nobody waits: the time that should have passed has."""

    def wait(self, event, timeout):
        self.advance(timeout)
        return event.is_set()


class Verdicts:
    """A verdict app that answers as it is told to."""

    def __init__(self, monkeypatch, *answers):
        self.answers = list(answers)
        self.questions = []
        monkeypatch.setenv("SOMARESIL_CANARY_TOKEN", "t" * 40)
        monkeypatch.setenv("SOMARESIL_CANARY_URL", "http://127.0.0.1:1/canary")
        monkeypatch.setattr(Remote, "ask", self.ask)

    def ask(self, method, path, data=None):
        self.questions.append((method, path, data))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def said(verdict, reason="because", canary="gateway", checksum="", status=200):
    return status, {"data": {"verdict": verdict, "reason": reason, "canary": canary, "checksum": checksum}}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (said("pass"), 0),
        (said("fail"), 1),
        (said("wait"), 2),
        (said("PASS"), 2),
        (said(None), 2),
        (said("pass", status=404), 2),
        (said("pass", status=302), 2),
        (said("fail", status=401), 2),
        (said("pass", canary="other"), 2),
        ((200, {"data": {}}), 2),
        ((200, {"data": "pass"}), 2),
        ((401, {"detail": "who is this?"}), 2),
        (Impossible("connection refused"), 2),
    ],
)
def test_only_a_clear_pass_is_0(monkeypatch, capsys, answer, code):
    """Whatever else comes back, or nothing."""
    Verdicts(monkeypatch, answer)
    assert asked("verdict", "gateway") == code
    shown = capsys.readouterr().out
    assert shown.startswith({0: "pass", 1: "fail"}.get(code, shown[:4]))
    assert not (code == 2 and shown.startswith(("pass", "fail")))


def test_a_verdict_on_another_checksum_is_none(monkeypatch, capsys):
    """Whatever it says."""
    Verdicts(monkeypatch, said("pass", checksum="abd"))
    assert asked("verdict", "gateway", "--checksum", "abc") == 2
    assert "'abd'" in capsys.readouterr().out


def test_a_verdict_is_waited_for(monkeypatch):
    """Through an app that restarts, for as long as was asked for and no longer."""
    asked_for = {"canary": "soma/gateway", "checksum": "a&b"}
    app = Verdicts(monkeypatch, said("wait", **asked_for), Impossible("connection refused"), said("pass", **asked_for))
    assert asked("verdict", "soma/gateway", "--checksum", "a&b", "--wait", "60", "--interval", "5") == 0
    assert [path for _, path, _ in app.questions] == ["/argo/verdict?canary=soma%2Fgateway&checksum=a%26b"] * 3
    app = Verdicts(monkeypatch, said("wait"))
    clock = Hurry()
    before = clock.monotonic()
    assert asked("verdict", "gateway", "--wait", "12", "--interval", "5", clock=clock) == 2
    assert clock.monotonic() - before == 12.0
    assert len(app.questions) == 4


@pytest.mark.parametrize("words", [("--wait", "nan"), ("--wait", "-1"), ("--interval", "0"), ("--interval", "1e9"), ("--timeout", "0")])
def test_times_that_are_none_are_refused(monkeypatch, capsys, words):
    """Before anybody is asked."""
    monkeypatch.setenv("SOMARESIL_CANARY_TOKEN", "t" * 40)
    assert asked("verdict", "gateway", "--url", "http://127.0.0.1:1", *words) == 2
    assert "expected" in capsys.readouterr().err


def test_without_an_address_or_a_token_nobody_is_asked(monkeypatch, capsys):
    """It says which variables are looked at."""
    monkeypatch.delenv("SOMARESIL_CANARY_URL", raising=False)
    monkeypatch.delenv("SOMARESIL_CANARY_TOKEN", raising=False)
    assert asked("status") == 2
    assert "SOMARESIL_CANARY_URL" in capsys.readouterr().err
    assert asked("status", "--url", "http://127.0.0.1:1") == 2
    assert "SOMARESIL_CANARY_TOKEN" in capsys.readouterr().err


DOCUMENT = {
    "canary": "gateway",
    "version": "v2",
    "phase": "ramp_10",
    "weight": 0.1,
    "verdict": "wait",
    "events": 7,
    "reason": "a\x1b[2Jb",
    "paused": False,
}


def test_status_shows_all_or_one(monkeypatch, capsys):
    """Without what a terminal would obey."""
    Verdicts(monkeypatch, (200, {"canaries": [DOCUMENT]}))
    assert asked("status") == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].split() == ["canary", "version", "phase", "weight", "verdict", "events", "reason"]
    assert "\x1b" not in shown
    app = Verdicts(monkeypatch, (200, DOCUMENT))
    assert asked("status", "gateway", "--json") == 0
    assert json.loads(capsys.readouterr().out) == DOCUMENT
    assert app.questions == [("GET", "/canaries/gateway", None)]


@pytest.mark.parametrize("action", ["promote", "rollback", "pause", "resume"])
def test_people_have_their_word(monkeypatch, capsys, action):
    """With a reason; what is refused is 1."""
    app = Verdicts(monkeypatch, (200, DOCUMENT))
    assert asked(action, "gateway", "--reason", "lunch") == 0
    assert app.questions == [("POST", f"/canaries/gateway/{action}", {"reason": "lunch"})]
    Verdicts(monkeypatch, (404, {"detail": "no canary is called gateway here"}))
    assert asked(action, "gateway", "--reason", "lunch") == 1
    assert "no canary is called gateway" in capsys.readouterr().err


def test_an_answer_of_something_else_is_no_answer(monkeypatch, capsys):
    """Whatever it is."""
    for strange in ({"canaries": 7}, {}, {"canaries": [7]}):
        Verdicts(monkeypatch, (200, strange))
        assert asked("status") == 2
    assert "not one of the verdict app" in capsys.readouterr().err


# -- judging and writing ----------------------------------------------------------------------------------------------------------------


def kayenta(experiment):
    return {
        "canaryConfig": {
            "name": "c",
            "metrics": [{"name": "errors", "groups": ["g"], "analysisConfigurations": {"canary": {"direction": "increase"}}}],
            "classifier": {"groupWeights": {"g": 100}},
        },
        "scoreThresholds": {"pass": 95, "marginal": 75},
        "metricSetPairList": [{"name": "errors", "id": "1", "tags": {}, "values": {"control": [1, 2] * 5, "experiment": experiment}}],
    }


@pytest.mark.parametrize(("experiment", "code"), [([1, 2, 1, 2, 1, 2, 1, 2, 1, 2], 0), ([9, 8, 9, 9, 8, 9, 8, 9, 8, 9], 1)])
def test_two_sets_of_metrics_are_compared(tmp_path, capsys, experiment, code):
    """From a file, in words or as Kayenta reads it."""
    path = tmp_path / "request.json"
    path.write_text(json.dumps(kayenta(experiment)))
    assert asked("judge", str(path)) == code
    assert asked("judge", str(path), "--json") == code
    assert json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))["score"]["score"] in {0.0, 100.0}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"canaryConfig": 7}', "\xff"])
def test_what_cannot_be_judged_is_2(tmp_path, capsys, text):
    """It is neither good nor bad."""
    path = tmp_path / "request.json"
    path.write_text(text)
    assert asked("judge", str(path)) == 2
    assert asked("judge", str(tmp_path / "none.json")) == 2
    assert "somaresil canary:" in capsys.readouterr().err


def test_the_rollout_of_a_file_is_rendered(tmp_path, capsys):
    """To a file or out; --check says whether what is there is that."""
    path, out = tmp_path / "gateway.toml", tmp_path / "canary.yaml"
    path.write_text(
        '[canary]\nname = "gateway"\nbad = "up"\nallowed = 0.01\nbake = 60\nsteps = [10, 50]\n[render]\nverdict_url = "http://verdicts:8080/canary"\n'
    )
    assert asked("render", "flagger", str(path)) == 0
    text = capsys.readouterr().out
    assert 'kind: "Canary"' in text
    assert asked("render", "flagger", str(path), "--out", str(out), "--check") == 1
    assert asked("render", "flagger", str(path), "--out", str(out)) == 0
    assert out.read_text() == text
    assert asked("render", "flagger", str(path), "--out", str(out), "--check") == 0
    out.write_text("kind: Other\n")
    assert asked("render", "flagger", str(path), "--out", str(out), "--check") == 1
    assert asked("render", "fluger", str(path)) == 2
    assert "did you mean 'flagger'" in capsys.readouterr().err
    path.write_text(path.read_text() + 'nmae = "x"\n')
    assert asked("render", "flagger", str(path)) == 2


# -- a rollout --------------------------------------------------------------------------------------------------------------------------


class Judge:
    """Sees fifty events more at each look."""

    def __init__(self):
        self.looks = 0
        self.verdict = Verdict.PASS
        self.each = None

    def look(self):
        self.looks += 1
        if self.each is not None:
            self.each(self)

    def opinion(self, checksum):
        finding = Finding(self.verdict, "nothing speaks against it", 1.0, 1.0, 1.0, Counts(50 * self.looks, 0, 50 * self.looks, 0))
        return Opinion(self.verdict, "worse" if self.verdict is Verdict.FAIL else "nothing speaks against it", finding, at=1.0)


@pytest.fixture
def rollout(tmp_path, monkeypatch):
    """A file, with a command that writes down the shares it is called with."""
    traffic = tmp_path / "traffic"
    traffic.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/orders\ntest ! -e {tmp_path}/down\n')
    traffic.chmod(traffic.stat().st_mode | stat.S_IXUSR)
    path = tmp_path / "gateway.toml"
    path.write_text(ROLLOUT.format(traffic=str(traffic), snapshot=str(tmp_path / "snapshot.json")))
    judge = Judge()
    monkeypatch.setattr(RolloutFile, "judge_for", lambda *_: judge)
    return path, judge


def orders(path):
    return (path.parent / "orders").read_text().splitlines()


def test_a_good_version_gets_each_share_and_then_everything(rollout, capsys):
    """0, and lines that say why."""
    path, _ = rollout
    assert asked("run", str(path), "--version", "v2") == 0
    assert orders(path) == ["10 v2", "50 v2", "100 v2", "100 v2"]
    lines = capsys.readouterr().out.splitlines()
    assert "ramp_10" in lines[0]
    assert lines[-1].split()[2] == "complete"
    assert len(lines) < 12


def test_a_bad_version_gets_nothing(rollout, capsys):
    """1, as soon as it is proven."""
    path, judge = rollout

    def worse(judge):
        judge.verdict = Verdict.FAIL if judge.looks > 8 else Verdict.PASS

    judge.each = worse
    assert asked("run", str(path), "--version", "v2", "--json") == 1
    assert orders(path)[-1] == "0 v2"
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["step"], last["phase"], last["verdict"], last["weight"]) == ("rollback", "rollback", "fail", 0.0)


def test_a_roll_back_that_is_not_taken_is_no_roll_back(rollout, capsys):
    """2, after it was ordered for five minutes: somebody has to look at the router."""
    path, judge = rollout

    def worse(judge):
        if judge.looks == 5:
            judge.verdict = Verdict.FAIL
            (path.parent / "down").touch()

    judge.each = worse
    assert asked("run", str(path), "--version", "v2") == 2
    assert orders(path)[-1] == "0 v2"
    assert orders(path).count("0 v2") > 10
    assert "does not follow" in capsys.readouterr().out


def test_what_has_failed_once_stays_so(rollout):
    """The same version again is 1 at once."""
    path, judge = rollout
    judge.verdict = Verdict.FAIL
    assert asked("run", str(path), "--version", "v2") == 1
    judge.verdict = Verdict.PASS
    assert asked("run", str(path), "--version", "v2") == 1
    assert asked("run", str(path), "--version", "v3") == 0


def test_a_file_is_checked_and_nothing_is_done(rollout, capsys):
    """It says what it comes to."""
    path, judge = rollout
    assert asked("run", str(path), "--version", "v2", "--check") == 0
    shown = capsys.readouterr().out
    assert "ramp_50" in shown
    assert "50.00%" in shown
    assert judge.looks == 0
    path.write_text(path.read_text().replace("[judge]", "[judge]\nstale = 1"))
    assert not (path.parent / "orders").exists()


def test_the_snapshot_alone_says_how_it_stands(rollout, capsys):
    """Of the canary that is meant; what is no snapshot is refused."""
    path, judge = rollout
    judge.verdict = Verdict.FAIL
    asked("run", str(path), "--version", "v2")
    capsys.readouterr()
    snapshot = path.parent / "snapshot.json"
    assert asked("status", "--snapshot", str(snapshot), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["canary"], said["phase"], said["taken"]) == ("gateway", "rollback", True)
    assert asked("status", "other", "--snapshot", str(snapshot)) == 2
    for text in ("{", "[]", '{"x": NaN}', '{"canary": 7, "phase": "x"}'):
        snapshot.write_text(text)
        assert asked("status", "--snapshot", str(snapshot)) == 2
    assert asked("status", "--snapshot", str(path.parent / "none.json")) == 2
    snapshot.write_text('{"canary": "gateway", "phase": "x", "weight": NaN, "reason": {"a": {"b": [1]}}}')
    assert asked("status", "--snapshot", str(snapshot)) == 0
    assert "nan" not in capsys.readouterr().out


@pytest.mark.parametrize("down", [False, True])
def test_whoever_ends_it_may_want_the_traffic_back(rollout, capsys, down):
    """By a signal that the loop sees; what the router has not taken is not said to be so."""
    path, judge = rollout

    def end(judge):
        if judge.looks == 5:
            if down:
                (path.parent / "down").touch()
            signal.raise_signal(signal.SIGTERM)

    judge.each = end
    assert asked("run", str(path), "--version", "v2", "--abort-on-exit") == 128 + signal.SIGTERM
    assert orders(path)[-1] == "0 v2"
    shown = capsys.readouterr().err
    assert ("nobody knows what the candidate has" in shown) is down
    assert ("has 0.000% now" in shown) is not down


def test_ended_by_a_signal_it_leaves_the_traffic_as_it_is(rollout, capsys):
    """And goes on there when it is started again."""
    path, judge = rollout

    def end(judge):
        if judge.looks == 12:
            signal.raise_signal(signal.SIGINT)

    judge.each = end
    assert asked("run", str(path), "--version", "v2") == 128 + signal.SIGINT
    assert orders(path) == ["10 v2", "50 v2"]
    assert "has 50.000% now" in capsys.readouterr().err
    judge.each = None
    assert asked("run", str(path), "--version", "v2") == 0
    assert orders(path) == ["10 v2", "50 v2", "100 v2", "100 v2"]


@pytest.mark.parametrize(
    "where",
    ["0.0.0.0:0", "192.0.2.1:80", "localhost", ":80", "127.0.0.1:99999", "localhost.example.com:0", "127.0.0.1.nip.io:0", "[::1234]:0"],
)
def test_nobody_else_is_let_in_without_being_asked_for(rollout, capsys, monkeypatch, where):
    """Loopback, and a token."""
    path, _ = rollout
    monkeypatch.delenv("SOMARESIL_CANARY_TOKEN", raising=False)
    assert asked("run", str(path), "--version", "v2", "--listen", where) == 2
    shown = capsys.readouterr().err
    assert "token_env" in shown
    assert "--listen" in shown


def test_wrong_arguments_are_2():
    """As of every command."""
    for words in (["run"], ["verdict"], ["rollback", "gateway"], ["dance"]):
        with pytest.raises(SystemExit) as ended:
            main(["canary", *words])
        assert ended.value.code == 2


# -- a command as a router --------------------------------------------------------------------------------------------------------------


def test_a_command_is_called_with_the_share_and_no_shell():
    """What looks like one stays a word."""
    router = CommandRouter(set=[sys.executable, "-c", "import sys; sys.exit(sys.argv[1:] != ['12.5', '$(id)'])", "{percent}", "{version}"])
    router.start("$(id)")
    router.set_weight(0.125)
    assert router.status().weight == 0.125


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise SystemExit('no such upstream')", "ended with 1: no such upstream"),
        ("import time; time.sleep(60)", "took longer than 0.2 s"),
    ],
)
def test_a_command_that_fails_has_not_taken_the_order(code, says):
    """And the router does not believe itself."""
    router = CommandRouter(set=[sys.executable, "-c", code, "{percent}"], timeout=0.2 if "sleep" in code else 30.0)
    with pytest.raises(RouterError, match=says):
        router.set_weight(0.5)
    assert router.status().weight is None
    with pytest.raises(RouterError, match="cannot be run"):
        CommandRouter(set=["/nowhere/at/all", "{percent}"]).promote()


@pytest.mark.parametrize(("text", "weight"), [("12.5", 0.125), (" 50 %\n", 0.5), ("many", None), ("nan", None), ("101", None)])
def test_a_command_may_show_the_share(text, weight):
    """What is no percentage is no share."""
    router = CommandRouter(set=["traffic", "{share}"], show=[sys.executable, "-c", f"print({text!r})"])
    if weight is None:
        with pytest.raises(RouterError, match="expected a percentage"):
            router.status()
    else:
        assert router.status().weight == weight
