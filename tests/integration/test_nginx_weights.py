"""Weights for a real nginx: shares that were measured, reloads under load, and configurations that it refuses."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta

import pytest

from somaresil import SLO, CanaryConfig, CanaryController, ManualClock, Resilience
from somaresil.canary import Verdict
from somaresil.canary.ledger import Counts, Finding
from somaresil.canary.opinion import Opinion
from somaresil.canary.router import RouterError, TrafficRouter
from somaresil.integrations.nginx import NginxWeights
from tests.integration.routing import Nginx, asked, find, load, upstream

pytestmark = pytest.mark.server

SHUT = {"stable": "stable", "candidate": "candidate"}


@pytest.fixture
def nginx(tmp_path):
    """Give a factory of routers and a running nginx whose candidate has nothing."""
    binary = find("nginx")
    if binary is None:
        pytest.skip("nginx is not installed: `apt-get install nginx-light`, or run `nox -s tests` as root")
    with upstream("old") as old, upstream("new") as new:
        server = Nginx(folder=tmp_path / "nginx", binary=binary, stable=old, candidate=new)

        def router(**options):
            return NginxWeights(server.weights, **SHUT, **{"test": server.test, "reload": server.reload, "probe": server.probe, **options})

        # Before nginx starts there is nobody to reload.
        NginxWeights(server.weights, **SHUT, test=("true",), reload=("true",)).start("v2")
        with server:
            server.router = router
            yield server


def test_shares_are_those_that_were_set(nginx):
    """None, a tenth, a half and all of the requests."""
    router = nginx.router()
    assert isinstance(router, TrafficRouter)
    assert router.steps
    router.start("v2")
    assert asked(nginx.port, 200) == {"old": 200}
    router.set_weight(0.1)
    assert 60 <= asked(nginx.port, 1_000)["new"] <= 145
    router.set_weight(0.5)
    assert 430 <= asked(nginx.port, 1_000)["new"] <= 570
    router.set_weight(1.0)
    assert asked(nginx.port, 200) == {"new": 200}
    assert (router.status().weight, router.status().version, router.status().phase) == (1.0, "v2", "Progressing")
    router.abort("too many errors")
    assert asked(nginx.port, 200) == {"old": 200}
    assert (router.status().phase, router.status().message) == ("Aborted", "too many errors")


def test_a_user_stays_with_the_candidate_as_its_share_grows(nginx):
    """Sticky by a header: whoever is new at 20 % is new at 60 %, always."""
    router = nginx.router(key="$http_x_user", pid_file=nginx.pid_file)
    router.start("v2")

    def sides():
        found = {}
        for number in range(60):
            (found[number],) = asked(nginx.port, 2, headers={"X-User": f"user-{number}"})
        return found

    router.set_weight(0.2)
    few = {user for user, side in sides().items() if side == "new"}
    router.set_weight(0.6)
    more = {user for user, side in sides().items() if side == "new"}
    assert few
    assert few < more < set(range(60))


def test_a_reload_under_load_loses_no_request(nginx):
    """Ten orders while four clients ask: every answer is one of the two."""
    router = nginx.router()
    router.start("v2")
    with load(nginx.port) as total:
        for number in range(10):
            router.set_weight(number / 10)
    assert set(total) == {"old", "new"}
    assert sum(total.values()) > 100


def test_a_configuration_that_nginx_refuses_is_not_activated(nginx):
    """The former file is back, nginx goes on with it, and the error says why."""
    router = nginx.router()
    router.start("v2")
    router.set_weight(0.25)
    before = nginx.weights.read_bytes()
    whole = nginx.conf.read_text(encoding="utf-8")
    nginx.conf.write_text(whole.replace("access_log off;", "acess_log off;"), encoding="utf-8")
    with pytest.raises(RouterError, match="acess_log"):
        router.set_weight(0.5)
    assert nginx.weights.read_bytes() == before
    nginx.conf.write_text(whole, encoding="utf-8")
    assert router.status().weight == 0.25
    router.set_weight(0.5)
    assert router.status().weight == 0.5


def test_a_reload_that_was_not_taken_is_an_error(nginx):
    """A command that says yes and does nothing: the probe knows better, and a share that grew is taken back."""
    nginx.router().start("v2")
    router = nginx.router(reload=("true",), patience=0.3)
    with pytest.raises(RouterError, match="does not answer with order"):
        router.set_weight(0.5)
    assert nginx.router().status().weight == 0.0
    nginx.router().set_weight(0.5)
    with pytest.raises(RouterError, match="does not answer with order"):
        router.abort("it fails")
    # Taking away stands in the file, for whoever reloads next; nginx says that it has not happened.
    assert b" stable;" in nginx.weights.read_bytes()
    assert b" candidate;" not in nginx.weights.read_bytes()
    assert router.status().weight == 0.5
    nginx.router().abort("it fails")
    assert asked(nginx.port, 50) == {"old": 50}


def test_a_new_process_goes_on_where_the_old_one_was(nginx):
    """The share, the version and the pause are read from the file; setting the same again reloads nothing."""
    nginx.router().start("v2")
    nginx.router().set_weight(0.3)
    nginx.router().suspend()
    later = nginx.router()
    assert (later.status().paused, later.status().phase, later.status().version) == (True, "Paused", "v2")
    later.resume()
    later.start("v2")
    assert later.status().weight == 0.3
    nginx.router(reload=("false",)).set_weight(0.3)
    later.start("v3")
    assert (later.status().weight, later.status().version) == (0.0, "v3")


def test_nobody_to_reload_is_an_error(nginx, tmp_path):
    """No program, no process, no file of its number: each says what is missing."""
    with pytest.raises(RouterError, match="cannot be run"):
        nginx.router(test=(str(tmp_path / "absent"),)).set_weight(0.5)
    with pytest.raises(RouterError, match="cannot be told to reload"):
        nginx.router(pid_file=tmp_path / "absent.pid").set_weight(0.5)
    (tmp_path / "own.pid").write_text("1\n", encoding="utf-8")
    with pytest.raises(RouterError, match="no process of nginx"):
        nginx.router(pid_file=tmp_path / "own.pid").set_weight(0.5)
    with pytest.raises(RouterError, match="is nginx running"):
        nginx.router(reload=("false",)).set_weight(0.5)
    assert nginx.router().status().weight == 0.0
    assert os.access(nginx.weights, os.R_OK)


def test_an_order_that_was_taken_and_called_failed_is_taken_back(nginx):
    """A reload that works and says that it did not: nginx goes back to what the file says."""
    nginx.router().start("v2")
    nginx.router().set_weight(0.2)
    words = " ".join(nginx.reload)
    router = nginx.router(reload=("sh", "-c", f"{words}; exit 3"))
    with pytest.raises(RouterError, match="exit 3 failed"):
        router.set_weight(1.0)
    # Once is enough: an old worker may answer in between, until it has ended.
    deadline = time.monotonic() + 20
    while (weight := nginx.router().status().weight) != 0.2 and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    assert weight == 0.2


def test_an_abort_without_nginx_holds_for_the_next_one(nginx):
    """Nobody is told, so it is an error; the file says it, and an nginx that starts reads it."""
    router = nginx.router()
    router.start("v2")
    router.set_weight(0.5)
    nginx.stop()
    with pytest.raises(RouterError):
        router.abort("it fails")
    with pytest.raises(RouterError):
        router.status()
    nginx.start()
    assert router.status().phase == "Aborted"
    assert asked(nginx.port, 50) == {"old": 50}


class Judge:
    """Says what it is told to, of every version."""

    verdict, events = Verdict.PASS, 0

    def opinion(self, checksum):
        finding = Finding(Verdict.WAIT, "no proof either way", 1.0, 1.0, 1.0, Counts(candidate_good=self.events))
        return Opinion(self.verdict, "as told", finding, at=1.0)


def test_a_controller_moves_the_traffic_and_takes_it_back(nginx):
    """Ramped by a judge's word, then failed: the share is measured at each step, and nginx that is deaf for a while holds nothing up."""
    clock, judge = ManualClock(), Judge()
    resilience = Resilience("service", clock=clock)
    resilience.slos.add(SLO("up", 95.0, timedelta(days=1)))
    config = CanaryConfig(name="answer", bad="up", steps=[10, 50, 100], bake=60.0, minimum_events=5, interval=None)
    router = nginx.router()
    controller = CanaryController(resilience, config, judge=judge, router=router)
    controller.start("v2")
    controller.evaluate()
    assert 20 <= asked(nginx.port, 500)["new"] <= 90
    judge.events += 50
    clock.advance(60.0)
    controller.evaluate()
    controller.evaluate()
    assert 190 <= asked(nginx.port, 500)["new"] <= 310
    judge.verdict = Verdict.FAIL
    router._reload = ("false",)
    controller.evaluate()
    assert controller.phase == "rollback"
    assert asked(nginx.port, 100)["new"] > 20
    router._reload = nginx.reload
    controller.evaluate()
    assert asked(nginx.port, 100) == {"old": 100}
    assert router.status().message == "as told"
