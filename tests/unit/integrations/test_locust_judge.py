"""Locust's judge, one part at a time: what it refuses, how the counts of workers come together, what it makes of what is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Importing it here would make the sockets of this process gevent's.
pytestmark = pytest.mark.skipif(importlib.util.find_spec("locust") is None, reason="needs locust")

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def played():
    """What became of each play, in a process of its own: Locust makes every socket of a process gevent's."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "tests.unit.integrations.judge_alone"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_arguments_that_cannot_be_right_are_refused_with_their_names(played):
    assert played["wrong"]["report"] == ["judge.report"]
    assert played["wrong"]["tell"] == ["judge.tell"]
    assert len(played["wrong"]["thresholds"]) == 2


def test_a_place_that_is_taken_ends_locust_with_2_and_is_named(played):
    assert played["taken"]["code"] == 2
    assert played["taken"]["said"].startswith("tell='127.0.0.1:PORT': ")


def test_the_master_asks_every_worker_for_its_last_counts_and_adds_them_up(played):
    found = played["workers"]
    assert found["heard"] == ["somaresil.last"]
    assert found["asked"] == [["somaresil.finish", "w1"]]
    assert found["started"] == 5
    assert found["problems"] == []


def test_a_worker_that_has_not_told_its_last_counts_leaves_the_answer_unknown(played):
    """What is missing may be the worst."""
    found = played["workers"]
    assert len(found["lacking"]) == 1
    assert "gone has not told its last counts; silent has not told its last counts" in found["lacking"][0]
    assert found["warned"] == ["gone could not be asked for its last counts: OSError: no route"]
    assert found["code"] == 2


def test_a_worker_tells_its_last_counts_when_it_has_stopped_and_decides_nothing(played):
    told = played["worker"]["told"]
    assert told[:2] == ["somaresil.finish", "stopped"]
    assert told[2][0] == "somaresil.last"
    assert "books" in told[2][1]
    assert played["worker"]["code"] == 0
    assert played["worker"]["reported"] == ["somaresil"]


def test_a_stall_counts_for_every_look_that_was_due_in_it(played):
    """One long stall must not be one late look among many: of a fifth of a second, four or five looks were late."""
    count, late = played["watched"]["late"]
    assert count > 28
    assert late in {4, 5}
    assert 0.5 < played["watched"]["busiest"] < 1.0


def test_how_a_test_goes_is_told_while_it_runs_and_what_breaks_that_does_not_end_it(played):
    found = played["shown"]
    assert found["told"] == [["locust", 1, 5], ["locust", 1, 5]]
    assert found["turns"] == 3
    assert "cannot be told to Prometheus any more" in found["said"]


def test_what_is_not_known_is_said_in_the_report_and_never_good(played):
    found = played["judged"]
    assert found["early"]["no errors in tasks"] == "3 runs of tasks ended with an error of their own"
    assert "the test was not brought to its end" in found["notes"]
    assert found["slos"] == ["fast"]
    assert found["written"]
    assert found["service"]
    assert found["code"] == 2


def test_a_test_that_could_not_be_judged_was_not_found_good(played):
    assert played["judged"]["broken"] == 2
    assert played["judged"]["said"] == "the test could not be judged"


def test_limits_are_read_by_name_and_by_request(played):
    assert {"p95 <= 2 s", "answer: ttft_p95 <= 0.5 s"} <= set(played["judged"]["limits"])
