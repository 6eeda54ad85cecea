"""Several workers, one truth: files are added up exactly, whatever state they are in, and forks count nothing twice."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry

from somaresil import ManualClock, Resilience, forks
from somaresil.events import DefectFound
from somaresil.integrations._families import FAMILIES
from somaresil.integrations._readings import Reader, Reading, decode, encode
from somaresil.integrations._workers import ARCHIVE, Worker
from somaresil.integrations.prometheus import install
from tests.unit.integrations.test_prometheus import scrape

GOOD = ("somaresil_calls_total", ("guard", "db"), ("injected", "false"), ("outcome", "good"))
CLOSED = ("somaresil_breaker_state", ("guard", "db"), ("state", "closed"))
NOBODY = 2**22 + 1
"""Above the largest process id of Linux."""


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "metrics"


@pytest.fixture
def resilience(clock):
    return made(clock)


def made(clock, service="service"):
    resilience = Resilience(service, clock=clock, seed=1)
    resilience.guard("db", breaker=True)
    return resilience


@contextmanager
def working(resilience, folder, interval=5.0):
    worker = Worker(resilience, folder, interval)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def call(resilience, times=1):
    for _ in range(times):
        resilience.guards["db"].call(int)


def good(reading):
    return reading.rows["somaresil_calls"].get(("db", "good", "false"), 0)


def states(reading):
    return {state: number for (_, state), number in reading.rows["somaresil_breaker_state"].items() if number}


def strange(path, **changes):
    """Change a worker's file as if another had written it."""
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def test_counts_of_all_workers_are_added(folder, clock):
    """Whoever is asked answers for all: counters and histograms together, gauges as the number of workers in that state."""
    one, other = made(clock), made(clock)
    with working(one, folder) as first, working(other, folder) as second:
        call(one, 3)
        call(other, 4)
        other.breaker("db").trip()
        second.flush()
        whole = first.gather()
        assert good(whole) == 7
        assert sum(whole.rows["somaresil_call_duration_seconds"]["db",].counts) == 7
        assert states(whole) == {"closed": 1, "open": 1}
        assert whole.rows["somaresil_breaker_transitions"]["db", "open"] == 1


def test_a_worker_answers_exactly_for_itself(folder, resilience):
    """What was counted a moment ago is in the answer, and written down with it."""
    with working(resilience, folder) as worker:
        call(resilience, 5)
        assert good(worker.gather()) == 5
        assert good(decode(json.loads((folder / worker.name).read_text())["rows"])) == 5


def test_what_a_dead_worker_counted_stays_and_what_it_was_does_not(folder, clock):
    """After a proper end, and after one that nobody announced: counters live on, gauges do not."""
    proper, sudden, asking = made(clock), made(clock), made(clock)
    with working(asking, folder) as worker:
        with working(proper, folder):
            call(proper, 2)
        with working(sudden, folder) as dead:
            call(sudden, 3)
            dead.flush()
            text = (folder / dead.name).read_text()
        (folder / dead.name).write_text(text)
        assert states(worker.gather()) == {"closed": 2}
        clock.advance(15.1)
        whole = worker.gather()
        assert good(whole) == 5
        assert states(whole) == {"closed": 1}


def test_files_are_replaced_in_one_step_and_leave_nothing_beside_them(folder, resilience):
    """There is one file a worker, and it can be read at any time."""
    with working(resilience, folder) as worker:
        seen = []
        stop = threading.Event()

        def read():
            while not stop.is_set():
                seen.append(json.loads((folder / worker.name).read_text())["pid"])

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(50):
            worker.flush()
        stop.set()
        reader.join()
        assert set(seen) == {os.getpid()}
        assert [path.name for path in folder.iterdir()] == [worker.name]


CORRUPTIONS = {
    "empty": "",
    "torn": '{"format": 1, "service": "serv',
    "not-an-object": "[1, 2]",
    "binary": b"\xff\xfe\x00",
    "deep": "[" * 100_000,
    "other-version": {"format": 2},
    "other-service": {"service": "another"},
    "no-pid": {"pid": None},
    "unknown-metric": {"rows": {"made_up": []}},
    "rows-are-a-list": {"rows": []},
    "row-is-no-pair": {"rows": {"somaresil_calls": [["a", "b", "c"]]}},
    "too-few-labels": {"rows": {"somaresil_calls": [[["db", "good"], 1]]}},
    "label-is-a-number": {"rows": {"somaresil_calls": [[["db", "good", 1], 1]]}},
    "negative": {"rows": {"somaresil_calls": [[["db", "good", "false"], -1]]}},
    "infinite": '{"format": 1, "rows": {"somaresil_calls": [[["db", "good", "false"], Infinity]]}}',
    "text-for-a-number": {"rows": {"somaresil_calls": [[["db", "good", "false"], "1"]]}},
    "number-for-a-histogram": {"rows": {"somaresil_call_duration_seconds": [[["db"], 1]]}},
    "bounds-not-ascending": {"rows": {"somaresil_call_duration_seconds": [[["db"], {"le": [2, 1], "n": [0, 0, 0], "sum": None}]]}},
    "counts-do-not-fit": {"rows": {"somaresil_call_duration_seconds": [[["db"], {"le": [1], "n": [0], "sum": None}]]}},
}


@pytest.mark.parametrize("content", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_file_that_cannot_be_trusted_is_skipped_and_reported_once(folder, clock, content):
    """Torn, foreign, of another version or simply wrong: the other workers are still added up."""
    one, other = made(clock), made(clock)
    defects = []
    one.on(defects.append, DefectFound)
    with working(one, folder) as worker, working(other, folder) as healthy:
        call(other, 2)
        healthy.flush()
        path = folder / "somaresil_7-7.json"
        if isinstance(content, dict):
            path.write_text((folder / healthy.name).read_text())
            strange(path, **content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
        assert good(worker.gather()) == 2
        assert good(worker.gather()) == 2
        assert [defect.where for defect in defects] == [f"metrics file {path}"]


def test_files_of_others_are_not_even_looked_at(folder, resilience):
    """prometheus_client keeps its own files in the same folder."""
    folder.mkdir()
    for name in ("counter_12.db", "somaresil_x.json", "somaresil_1-2.json.tmp", "notes.json"):
        (folder / name).write_text("nonsense")
    defects = []
    resilience.on(defects.append, DefectFound)
    with working(resilience, folder) as worker:
        call(resilience)
        assert good(worker.gather()) == 1
    assert defects == []


def test_a_folder_that_cannot_be_written_costs_the_others_only(tmp_path, resilience):
    """The worker answers for itself, and it is reported once."""
    (tmp_path / "file").write_text("in the way")
    defects = []
    resilience.on(defects.append, DefectFound)
    with working(resilience, tmp_path / "file") as worker:
        call(resilience)
        assert good(worker.gather()) == 1
    places = [defect.where for defect in defects]
    assert places[0] == "writing the metrics of this worker"
    assert len(places) == len(set(places))


def test_a_reading_survives_being_written_down(resilience):
    """Writing and reading back changes nothing."""
    call(resilience, 3)
    reading = Reader(resilience).read()
    assert decode(json.loads(json.dumps(encode(reading)))) == reading
    assert set(reading.rows) == set(FAMILIES)


# -- many dead workers --------------------------------------------------------------------------------------------------------------------


def graves(folder, clock, number, first=0, **changes):
    """Leave the files of so many workers that each counted one call and are gone."""
    for index in range(first, first + number):
        resilience = made(clock)
        with working(resilience, folder) as worker:
            call(resilience)
            name = worker.name
        path = (folder / name).rename(folder / f"somaresil_{NOBODY + index}-{index}.json")
        strange(path, pid=NOBODY + index, **changes)


def test_files_of_many_dead_workers_are_folded_into_one(folder, clock, resilience):
    """The counts stay the same, the number of files does not grow without end, and folding twice is folding on."""
    with working(resilience, folder) as worker:
        for first in (0, 40):
            graves(folder, clock, 40, first)
            before = good(worker.gather())
            worker._fold()
            assert good(worker.gather()) == before
            assert len(list(folder.glob("somaresil_*.json"))) == 2
        assert before == 80
        assert good(decode(json.loads((folder / ARCHIVE).read_text())["rows"])) == 80


def test_few_files_are_left_alone(folder, clock, resilience):
    """Folding is for servers that replace their workers all the time."""
    graves(folder, clock, 5)
    with working(resilience, folder) as worker:
        worker._fold()
    assert not (folder / ARCHIVE).exists()


@pytest.mark.parametrize("changes", [{"pid": os.getpid()}, {"host": "elsewhere"}, {"live": True, "at": 2e9}])
def test_who_may_still_be_there_is_not_folded(folder, clock, resilience, changes):
    """A process that runs, one of another host and one that has just written keep their files."""
    graves(folder, clock, 40)
    changed = folder / f"somaresil_{NOBODY}-0.json"
    strange(changed, **changes)
    with working(resilience, folder) as worker:
        worker._fold()
        assert changed.exists()
        assert good(worker.gather()) == 40


def test_folding_survives_being_killed_before_it_has_removed_the_files(folder, clock, resilience, monkeypatch):
    """The archive names what it holds: nothing is counted twice, and the next one removes it."""
    graves(folder, clock, 40)
    with working(resilience, folder) as worker:
        with monkeypatch.context() as patch:
            patch.setattr(type(folder), "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                worker._fold()
        assert len(list(folder.glob("somaresil_*.json"))) == 42
        assert good(worker.gather()) == 40
        worker._fold()
        assert len(list(folder.glob("somaresil_*.json"))) == 2
        assert good(worker.gather()) == 40


def test_who_reads_while_another_folds_reads_again(folder, clock, resilience, monkeypatch):
    """A file that is folded between two looks is counted once."""
    graves(folder, clock, 40)
    with working(resilience, folder) as worker, working(made(clock), folder) as folding:
        names = Worker._names
        looks = []

        def fold_meanwhile(self):
            found = names(self)
            if self is worker and not looks:
                looks.append(found)
                folding._fold()
            return found

        monkeypatch.setattr(Worker, "_names", fold_meanwhile)
        assert good(worker.gather()) == 40
        assert looks


def test_an_archive_that_cannot_be_read_is_not_written_over(folder, clock, resilience):
    """What it held may still be saved by a person; the files stay."""
    graves(folder, clock, 40)
    (folder / ARCHIVE).write_text("torn")
    with working(resilience, folder) as worker:
        worker._fold()
        assert good(worker.gather()) == 40
    assert (folder / ARCHIVE).read_text() == "torn"


# -- forks --------------------------------------------------------------------------------------------------------------------------------


@contextmanager
def forked():
    """Give True in a forked child, which leaves without exit functions, and False in the parent, which waits for it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            yield True
            status = 0
        finally:
            os._exit(status)
    yield False
    _, status = os.waitpid(child, 0)
    assert status == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_tells_only_what_it_counted_itself(folder, resilience):
    """What was counted before the fork is the parent's to tell: three calls before, four in the child, two in the parent are nine."""
    with working(resilience, folder) as worker:
        call(resilience, 3)
        with forked() as child:
            if child:
                call(resilience, 4)
                good(worker.flush()) == 4 or sys.exit(1)
            else:
                call(resilience, 2)
        assert good(worker.gather()) == 9
        assert len(list(folder.glob("somaresil_*.json"))) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_of_a_child_counts_its_own_too(folder, resilience):
    """The baseline of each generation is what its parent had counted."""
    with working(resilience, folder) as worker:
        call(resilience, 1)
        with forked() as child:
            if child:
                call(resilience, 2)
                with forked() as grandchild:
                    if grandchild:
                        call(resilience, 4)
                        worker.flush()
                worker.flush()
        assert good(worker.gather()) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_master_that_only_forks_is_no_worker(folder, resilience):
    """Its breaker, which sees no call, is not one of those that live; when it works it is."""
    with working(resilience, folder) as worker:
        with forked() as child:
            if child:
                call(resilience)
                worker.flush()
        assert states(worker.gather()) == {"closed": 1}
        call(resilience)
        assert states(worker.gather()) == {"closed": 2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_writes_by_itself(folder, resilience):
    """Its thread runs again although no thread survives a fork."""
    with working(resilience, folder, interval=0.1) as worker:
        with forked() as child:
            if child:
                call(resilience, 4)
                names = [thread.name for thread in threading.enumerate()]
                "somaresil-metrics" in names or sys.exit(1)
                written = threading.Event()
                flush = worker.flush
                worker.flush = lambda **live: (flush(**live), written.set())
                written.wait(10.0) or sys.exit(1)
        assert good(worker.gather()) == 4


# -- installing ---------------------------------------------------------------------------------------------------------------------------


def test_without_the_variable_there_is_neither_thread_nor_file(resilience, monkeypatch):
    """One process needs none of this."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    before = threading.active_count()
    install(resilience, CollectorRegistry())()
    assert threading.active_count() == before
    assert resilience not in forks._watched


def test_one_process_has_one_file_however_often_it_is_installed(folder, resilience, clock, monkeypatch):
    """Two registries and a second worker: everything is counted once, and the last one out closes the file."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    registries = [CollectorRegistry(), CollectorRegistry()]
    ends = [install(resilience, registry) for registry in registries]
    try:
        with working(made(clock), folder) as other:
            call(other._resilience, 2)
            other.flush()
            call(resilience, 3)
            assert [scrape(registry)[GOOD] for registry in registries] == [5.0, 5.0]
            assert [scrape(registry)[CLOSED] for registry in registries] == [2.0, 2.0]
            assert len(list(folder.glob("somaresil_*.json"))) == 2
    finally:
        for end in ends:
            end()
    live = [json.loads(path.read_text())["live"] for path in folder.glob("somaresil_*.json")]
    assert live == [False, False]
    assert not any(thread.name == "somaresil-metrics" and thread.is_alive() and not _stopping(thread) for thread in threading.enumerate())


def _stopping(thread):
    thread.join(10.0)
    return not thread.is_alive()


def test_a_worker_says_where_it_is_and_of_which_version(folder, resilience):
    """The file carries what a reader needs to judge it."""
    with working(resilience, folder, interval=2.0) as worker:
        content = json.loads((folder / worker.name).read_text())
    expected = {"format": 1, "service": "service", "host": socket.gethostname(), "pid": os.getpid(), "interval": 2.0, "live": True}
    assert content.items() >= expected.items()


def test_an_empty_reading_is_empty():
    """Nothing counted, nothing to say."""
    assert Reading().empty
