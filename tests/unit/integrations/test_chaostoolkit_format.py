"""What an experiment of the Chaos Toolkit may not be, what its journal means, and a service behind its control API."""

from __future__ import annotations

import io
import json
import sys
import urllib.error
from types import SimpleNamespace

import pytest

from somaresil import ChaosPlan, ConfigurationError, FaultWindow

pytest.importorskip("chaoslib")

from somaresil.integrations.chaostoolkit import (
    _service,
    actions,
    controls,
    from_chaostoolkit,
    probe,
    probes,
    template,
    to_chaostoolkit,
    verdict_of,
)
from somaresil.integrations.chaostoolkit._service import ServiceError
from tests.unit.integrations.test_chaostoolkit import PLAN, action, experiment, refused

URL = "http://127.0.0.1:9/chaos"


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"method": {"a": 1}}, "method", "a list of at most"),
        ({"method": [action("stop_everything")]}, "method[0].provider.func", "one of "),
        ({"method": [{**action("inject_errors"), "provider": {"type": "python", "module": action("x")["provider"]["module"],
          "func": "inject_errors", "arguments": [1]}}]}, "method[0].provider.arguments", "an object"),
        ({"method": [action("inject_errors", target={"a": ["${x}"]}, duration=1)]}, "method[0].provider.arguments.target.a[0]", "a value"),
        ({"method": [action("start_plan", plan=PLAN.as_dict()), action("inject_errors", target="x", duration=1)]}, "method[0]",
         "a plan that is the only action"),
        ({"controls": [5]}, "controls[0].provider", "the module somaresil"),
        ({"configuration": {"somaresil_service": {"type": "env"}}}, "configuration.somaresil_service", "text"),
        ({"steady-state-hypothesis": [1]}, "steady-state-hypothesis", "an object with title and probes"),
        ({"steady-state-hypothesis": {"title": "t", "probes": [{**probe("recovered", True), "tolerance": {"type": "probe"}}]}},
         "steady-state-hypothesis.probes[0].tolerance", "a value, a range or a pattern"),
    ],
)  # fmt: skip
def test_what_would_be_lost_is_refused_with_its_path(changes, path, said):
    assert said in refused(experiment(**changes))[path]


def test_arguments_deeper_than_anybody_looks_are_refused():
    """Something that stands for another value could hide there."""
    deep = "x"
    for _ in range(20):
        deep = [deep]
    (path,) = [path for path in refused(experiment(method=[action("inject_errors", target=deep, duration=1)])) if "target" in path]
    assert path.startswith("method[0].provider.arguments.target")


def test_windows_that_no_plan_can_hold_are_refused_with_the_place_of_each():
    found = refused(experiment(method=[action("inject_errors", {"before": 9e6}, target="x", duration=1)] * 2))
    assert set(found) == {"method[0].provider.arguments.start", "method[1].provider.arguments.start"}


def test_data_that_is_no_experiment_is_refused():
    with pytest.raises(ConfigurationError, match="an experiment of the Chaos Toolkit, as an object"):
        from_chaostoolkit([])


@pytest.mark.parametrize(
    ("options", "path"),
    [({"plan": "x"}, "plan"), ({"title": " "}, "title"), ({"title": 5}, "title"), ({"service": None}, "service")],
)
def test_only_a_plan_with_a_title_is_exported(options, path):
    given = {"plan": PLAN, "title": "drill", **options}
    with pytest.raises(ConfigurationError) as caught:
        to_chaostoolkit(given.pop("plan"), **given)
    assert [problem.path for problem in caught.value.problems] == [f"to_chaostoolkit.{path}"]


def test_without_the_toolkit_nothing_is_taken_for_valid(monkeypatch):
    made = experiment()
    monkeypatch.setitem(sys.modules, "chaoslib.exceptions", None)
    assert 'pip install "somaresil[chaostoolkit]"' in refused(made)["experiment"]


def test_a_template_can_watch_an_objective():
    data = template("llm.*", slo="answers")
    assert [each["provider"]["func"] for each in data["steady-state-hypothesis"]["probes"]] == ["recovered", "burn_rate"]
    assert from_chaostoolkit(data).plan == ChaosPlan([FaultWindow("llm.*", "error", 0, 60, rate=0.5)])


OK = {"status": "succeeded", "activity": {"name": "a"}}
SAID = {"activity": {"name": "recovered"}, "tolerance_met": False, "output": False}


@pytest.mark.parametrize(
    ("journal", "status", "reason"),
    [
        ({"status": "completed", "run": [OK], "rollbacks": [OK]}, "passed", ""),
        ({"status": "completed", "steady_states": {"before": {"steady_state_met": False, "probes": [SAID]}}}, "not started",
         "the steady state was not met before it: recovered said False"),
        ({"status": "completed", "steady_states": {"before": {"steady_state_met": None, "probes": []}}}, "not started",
         "the steady state was not met before it: no probe said why"),
        ({"status": "interrupted"}, "interrupted", "somebody has ended it"),
        ({"status": "aborted"}, "aborted", "an activity broke it off"),
        ({"status": "completed", "run": [{"status": "failed", "activity": {"name": "start"}, "exception": ["x\n", "no route\n"]}]},
         "failed", "start: no route"),
        ({"status": "completed", "rollbacks": [{"status": "aborted", "activity": {}}]}, "failed", ": aborted"),
        ({"status": "completed", "deviated": True, "steady_states": {"after": {"probes": [{**SAID, "tolerance_met": True},
          {**SAID, "exception": ["gone\n"]}]}}}, "deviated", "the steady state was not met after it: recovered gone"),
        ({"status": "odd"}, "odd", ""),
    ],
)  # fmt: skip
def test_the_journal_says_what_became_of_it_and_only_a_whole_one_has_passed(journal, status, reason):
    verdict = verdict_of(journal)
    assert (verdict.status, verdict.reason) == (status, reason)
    assert verdict.journal == journal


# -- a service behind its control API -----------------------------------------------------------------------------------------------------


class Api:
    """A control API that answers in turn."""

    def __init__(self, monkeypatch, *answers):
        self.answers = list(answers)
        self.asked = []
        monkeypatch.setattr(_service, "_OPENER", self)

    def open(self, request, timeout):
        self.asked.append((request.get_method(), request.full_url.removeprefix(URL), request.data, request.get_header("Authorization")))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer if isinstance(answer, bytes) else json.dumps(answer).encode())


def test_actions_and_probes_ask_the_control_api_with_the_token_of_the_secrets(monkeypatch):
    api = Api(monkeypatch, {"ids": ["e-1"]}, {"experiments": [{"id": "e-1", "state": "running"}]}, {"stopped": True}, {})
    secrets = {"token": "t0ken"}
    assert actions.inject_errors("llm.*", 5.0, service=URL, secrets=secrets) == "e-1"
    assert probes.experiment_status("e-1", service=URL, secrets=secrets) == "running"
    assert actions.stop_experiment("e/1", service=URL, secrets=secrets)
    actions.stop_all(service=URL, secrets={"somaresil": secrets})
    assert [(method, path) for method, path, _, _ in api.asked] == [
        ("POST", "/experiments"),
        ("GET", "/experiments"),
        ("POST", "/experiments/e%2F1/stop"),
        ("POST", "/stop"),
    ]
    assert {token for *_, token in api.asked} == {"Bearer t0ken"}


@pytest.mark.parametrize(
    ("name", "arguments", "target"),
    [("partition", {"target": "net:db:5432"}, "net:db:5432"), ("exhaust", {"target": "resource:threads"}, "resource:threads")],
)
def test_networks_and_resources_are_struck_by_actions_of_their_own(monkeypatch, name, arguments, target):
    api = Api(monkeypatch, {"id": "e-1"})
    try:
        identity = getattr(actions, name)(duration=5.0, service=URL, **arguments)
    except ConfigurationError as wrong:
        assert wrong.problems[0].path.startswith("plan")  # noqa: PT017 - this target wants options here
        return
    assert identity == "e-1"
    assert json.loads(api.asked[0][2])["target"] == target


def test_what_the_api_does_not_tell_is_an_error_with_a_way_out(monkeypatch):
    told = {"objectives": {"calls": {"burn_rate": 1.5, "budget_left": None}}}
    api = Api(monkeypatch, told, told, told, {}, [1], b"{", urllib.error.URLError("refused"))
    service = _service.service_of(URL, None, None)
    assert service.objective("calls", 3600.0) == {"burn_rate": 1.5, "budget_left": None}
    for call, said in (
        (lambda: service.objective("other", 3600.0), "the service tells of no objective 'other'"),
        (lambda: service.objective("calls", 60.0), "for another window ask Prometheus"),
        (service.breakers, "does not tell its breakers; run the probe in its process, or ask Prometheus"),
        (service.breakers, "GET status: the answer is no object"),
        (service.breakers, "GET status: JSONDecodeError"),
        (service.breakers, "GET status: URLError"),
    ):
        with pytest.raises(ServiceError, match=said):
            call()
    # Without a secret none is sent.
    assert {token for *_, token in api.asked} == {None}


def test_a_refusal_of_the_api_is_told_with_its_status_and_words(monkeypatch):
    Api(monkeypatch, urllib.error.HTTPError(URL, 403, "no", {}, io.BytesIO(b"who is this?")))
    with pytest.raises(ServiceError, match=r"POST stop: 403 who is this\?"):
        _service.service_of(URL, None, None).stop_all()


@pytest.mark.parametrize("url", ["ftp://host/x", "http://", "http://me:secret@host/x", "http://host/x?token=1"])
def test_an_address_with_a_secret_in_it_is_refused_without_showing_it(url):
    with pytest.raises(ConfigurationError, match="the token is not a part of it") as caught:
        _service.service_of(url, None, None)
    assert "secret" not in str(caught.value)


def test_a_redirect_is_not_followed():
    """A token goes where it was meant to go."""
    assert _service._NoRedirect().redirect_request("any", "thing") is None


# -- the safety control -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("failures", "tries", "told"), [(0, 1, 0), (1, 2, 0), (99, controls._TRIES, 1)])
def test_the_end_of_an_experiment_goes_on_whatever_the_service_says(caplog, failures, tries, told):
    """It is tried a few times; then the leases are all that is left, and that is told."""
    asked = []

    def stop_all():
        asked.append(1)
        if len(asked) <= failures:
            raise ServiceError("POST stop: 503")

    watch = object.__new__(controls._Watch)
    watch.service = SimpleNamespace(stop_all=stop_all)
    watch.stop_all()
    assert len(asked) == tries
    said = [record.getMessage() for record in caplog.records if "each ends by its own lease" in record.getMessage()]
    assert len(said) == told
    assert all("POST stop: 503" in each for each in said)
