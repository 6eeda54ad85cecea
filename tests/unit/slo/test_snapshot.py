"""Counts that outlive the process: written whole or not at all, read without trust, added slot by slot."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import socket
import stat
import struct
import threading
from array import array
from dataclasses import replace
from datetime import timedelta

import pytest

from somaresil import SLO, ConfigurationError, ManualClock, Resilience, ResilienceMiddleware
from somaresil.events import DefectFound
from somaresil.slo import sheet as sheets
from somaresil.slo import snapshot
from somaresil.slo.sheet import MAGIC, decode, encode, read, write
from somaresil.slo.snapshot import ARCHIVE, SnapshotFolder, SnapshotStore
from tests.unit.slo.kit import DAY, HOUR, availability, bad, breaker, good, recovery

NOW = 1_700_000_000.0


class Life:
    """One process in a folder: an object of its own, on the clock that all share, which writes when it is told to."""

    def __init__(self, folder, clock, *slos, service="gateway", sources=True):
        self.told = []
        self.clock = clock
        self.resilience = Resilience(service, environment="test", clock=clock, seed=1)
        self.resilience.on(self.told.append, DefectFound)
        self.slos = self.resilience.slos
        self.slos.snapshot = self.file = SnapshotFolder(
            folder, lambda: self.slos._series, service=service, clock=clock, listeners=self.resilience.listeners
        )
        self.slos.store.others = self.file.others
        self.file.refresh()
        self.slos.add(*(slos or (availability(),)))
        self.guard = (
            self.resilience.guard("g", slo=[slo.name for slo in slos or (availability(),) if slo.recovery is None]) if sources else None
        )

    def counts(self, window=30 * DAY, name="up"):
        return self.slos.counts(name, window)

    @property
    def defects(self):
        return [event.where for event in self.told]


@pytest.fixture
def clock():
    return ManualClock(time=NOW)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "slo"


def files(folder):
    return sorted(path.name for path in folder.glob("slo_*.bin"))


def test_a_restart_keeps_the_budget_of_thirty_days(folder, clock):
    """What was counted before stays in every window as long as it would have in one process."""
    first = Life(folder, clock)
    bad(first.guard, 7)
    good(first.guard, 93)
    clock.advance(2 * DAY)
    good(first.guard, 100)
    first.file.stop()
    clock.advance(60.0)
    second = Life(folder, clock)
    assert second.counts() == (193, 7)
    assert second.counts(HOUR) == (100, 0)
    good(second.guard, 5)
    assert second.counts(HOUR) == (105, 0)
    clock.advance(28 * DAY)
    assert second.counts() == (105, 0)
    assert second.defects == []


def test_one_line_switches_it_on(folder, monkeypatch):
    """As an argument or a variable; the answers say where they are from."""
    for given in ({"slo_snapshot": folder}, {}):
        monkeypatch.setenv("SOMARESIL_SLO_SNAPSHOT", "" if given else str(folder))
        resilience = Resilience("gateway", **given)
        resilience.slos.add(availability())
        good(resilience.guard("g", slo="up"), 10)
        resilience.slos.snapshot.stop()
        budget = resilience.slos.error_budget("up")
        assert (budget.source, budget.age, budget.problem) == ("snapshot", 0.0, None)
    assert budget.good == 20
    assert len(files(folder)) == 2


@pytest.mark.parametrize("wrong", [5, "", b"x" * 3])
def test_a_folder_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="slo_snapshot"):
        Resilience("gateway", slo_snapshot=wrong)


def test_a_thread_writes_what_was_counted(folder):
    """By itself, also when nothing comes any more."""
    resilience = Resilience("gateway")
    file = resilience.slos.keep(folder, service="gateway", interval=0.01)
    resilience.slos.add(availability())
    good(resilience.guard("g", slo="up"), 3)
    for _ in range(2_000):
        if files(folder):
            break
        threading.Event().wait(0.01)
    assert read(folder / file.name).entries["up"].ledger.totals == (3, 0)
    file.stop()
    assert read(folder / file.name).live is False


def test_workers_answer_for_all(folder, clock):
    """Each adds what the others wrote to what it knows itself."""
    lives = [Life(folder, clock) for _ in range(4)]
    for number, life in enumerate(lives):
        good(life.guard, 10 + number)
        bad(life.guard, number)
    for _ in range(2):
        for life in lives:
            life.file.exchange()
    assert {life.counts() for life in lives} == {(46, 6)}
    good(lives[0].guard)
    assert [life.counts() for life in lives[:2]] == [(47, 6), (46, 6)]


def test_what_was_not_written_is_all_that_is_lost(folder, clock):
    """A process that is killed leaves what it had written last."""
    killed, other = Life(folder, clock), Life(folder, clock)
    good(killed.guard, 10)
    killed.file.save()
    good(killed.guard, 3)
    other.file.refresh()
    assert other.counts() == (10, 0)


def test_nothing_new_is_not_written_again(folder, clock):
    """Until a minute is over: then it is worth knowing that somebody watched."""
    life = Life(folder, clock)
    life.file.save()
    assert files(folder) == []
    good(life.guard)
    life.file.save()
    before = (folder / life.file.name).stat().st_ino
    clock.advance(59.0)
    life.file.save()
    assert (folder / life.file.name).stat().st_ino == before
    clock.advance(1.0)
    life.file.save()
    assert read(folder / life.file.name).at == clock.time()


def test_coverage_is_the_time_in_which_somebody_watched(folder, clock):
    """Gaps between two processes are gaps, and two at the same time are no more than one."""
    slo = availability(days=10)
    first, twin = Life(folder, clock, slo), Life(folder, clock, slo)
    good(first.guard)
    good(twin.guard)
    clock.advance(2 * DAY)
    first.file.stop()
    twin.file.stop()
    clock.advance(3 * DAY)
    second = Life(folder, clock, slo)
    assert second.slos.error_budget("up").coverage == pytest.approx(0.2)
    clock.advance(DAY)
    assert second.slos.error_budget("up").coverage == pytest.approx(0.3)
    condition = second.slos.conditions("up")[0]
    assert (condition.coverage, condition.source, condition.age) == (1.0, "snapshot", 0.0)


def test_what_is_counted_differently_is_left_out(folder, clock):
    """A latency objective whose threshold has changed begins anew; one that promises more does not."""
    first = Life(folder, clock, SLO("fast", 90.0, timedelta(days=30), latency=2.0), availability())
    good(first.guard, 10)
    first.file.stop()
    second = Life(folder, clock, SLO("fast", 90.0, timedelta(days=30), latency=1.0), availability(target=99.99))
    assert second.counts(name="fast") == (0, 0)
    assert second.counts() == (10, 0)
    assert second.defects == ["snapshots of objective fast"]


def test_incidents_are_kept_too(folder, clock):
    """A recovery objective has no guard that names it."""
    first = Life(folder, clock, recovery(), sources=False)
    guard = first.resilience.guard("x", breaker=breaker())
    bad(guard, 2)
    clock.advance(1_000.0)
    good(guard)
    first.file.stop()
    assert Life(folder, clock, recovery(), sources=False).counts(name="recovery") == (0, 1)


def test_slots_of_the_future_are_left_out_and_reported(folder, clock):
    """A clock that went back by a day must not count tomorrow's events today, and a minute of difference is none."""
    first = Life(folder, clock)
    good(first.guard, 5)
    clock.advance(DAY)
    good(first.guard, 7)
    first.file.stop()
    back = ManualClock(time=NOW + 60.0)
    second = Life(folder, back)
    assert second.counts() == (5, 0)
    assert len(second.defects) == 1
    near = Life(folder, ManualClock(time=NOW + DAY - 59.0))
    assert (near.counts(), near.defects) == ((12, 0), [])


def test_slots_that_are_too_old_are_forgotten(folder, clock):
    """After 90 days nothing of them is left, also in what is put together."""
    first = Life(folder, clock)
    good(first.guard, 5)
    first.file.stop()
    clock.advance(91 * DAY)
    second = Life(folder, clock)
    assert second.counts(90 * DAY) == (0, 0)
    assert second.file._entries["up"][0].ledger.totals == (0, 0)


def put(folder, data, name="slo_1-1.bin", mode=0o600):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    (folder / name).chmod(mode)
    return folder / name


def good_file(folder, clock, many=5, service="gateway"):
    """The bytes of a file with so many good events, and no file."""
    life = Life(folder, clock, service=service)
    good(life.guard, many)
    life.file.save()
    path = folder / life.file.name
    data = path.read_bytes()
    path.unlink()
    return data


def flipped(data):
    return data[:-200] + bytes([data[-200] ^ 1]) + data[-199:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"x",
        flipped,
        lambda data: data.replace(MAGIC, b"somaresil-slo 2\n"),
        lambda data: b"PK\x03\x04" + data,
        lambda data: b"\0" * 100_000,
    ],
)
def test_a_damaged_file_is_reported_and_the_start_goes_on(folder, clock, damage):
    """The other files count; the damaged one is neither used nor removed."""
    data = good_file(folder, clock)
    put(folder, data)
    damaged = put(folder, damage(data), "slo_2-2.bin")
    life = Life(folder, clock)
    good(life.guard)
    assert life.counts() == (6, 0)
    assert life.defects == [f"snapshot {damaged}"]
    assert damaged.exists()


def test_foreign_files_are_refused(folder, clock, tmp_path, monkeypatch):
    """Links, folders, pipes, what others may write, what is too large, what another service wrote, and what another user owns."""
    data = good_file(folder, clock)
    target = tmp_path / "target"
    target.write_bytes(data)
    (folder / "slo_1-1.bin").symlink_to(target)
    (folder / "slo_2-2.bin").mkdir()
    os.mkfifo(folder / "slo_3-3.bin")
    put(folder, data, "slo_4-4.bin", mode=0o666)
    put(folder, good_file(folder, clock, service="other"), "slo_5-5.bin")
    put(folder, data, "slo_6-6.bin")
    put(folder, b"not for us", "notes.txt")
    with monkeypatch.context() as patch:
        patch.setattr(sheets, "LARGEST", len(data) - 1)
        life = Life(folder, clock)
        assert life.counts() == (0, 0)
        assert len(life.defects) == 6
    life = Life(folder, clock)
    assert life.counts() == (5, 0)
    assert len(life.defects) == 5
    if hasattr(os, "geteuid"):
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert Life(folder, clock).counts() == (0, 0)


def test_a_folder_that_cannot_be_used_costs_the_folder_alone(tmp_path, clock):
    """Counting goes on, it is reported once, and nothing is raised."""
    (tmp_path / "file").write_text("in the way")
    life = Life(tmp_path / "file", clock)
    good(life.guard, 4)
    life.file.exchange()
    life.file.exchange()
    assert life.counts() == (4, 0)
    assert life.defects == ["writing the snapshot of objectives"]


def test_a_file_is_written_in_one_step_for_its_owner_alone(folder, clock, monkeypatch):
    """When writing fails, what was there is there still, and no draft is left."""
    life = Life(folder, clock)
    good(life.guard, 4)
    life.file.save()
    path = folder / life.file.name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    good(life.guard, 4)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    life.file.save()
    assert read(path).entries["up"].ledger.totals == (4, 0)
    assert list(folder.iterdir()) == [path]
    assert life.defects == ["writing the snapshot of objectives"]


def test_files_of_many_dead_processes_are_put_together(folder, clock):
    """Nothing is lost or counted twice, for whoever reads while it is done and after."""
    for number in range(12):
        life = Life(folder, clock)
        good(life.guard, number)
        bad(life.guard, 1)
        clock.advance(HOUR)
        life.file.stop()
    last = Life(folder, clock)
    good(last.guard)
    assert last.counts() == (67, 12)
    last.file.exchange()
    assert set(files(folder)) == {last.file.name, ARCHIVE}
    last.file.refresh()
    assert last.counts() == (67, 12)
    assert Life(folder, clock).counts() == (67, 12)
    assert last.slos.error_budget("up").coverage == pytest.approx(12 * HOUR / (30 * DAY), rel=1e-6)


def test_a_file_that_was_folded_and_not_removed_counts_once(folder, clock):
    """Whoever folds may be killed between the writing and the removing."""
    kept = {}
    for _ in range(12):
        life = Life(folder, clock)
        good(life.guard, 1)
        life.file.stop()
        kept[life.file.name] = (folder / life.file.name).read_bytes()
    last = Life(folder, clock)
    last.file.exchange()
    for name, data in kept.items():
        put(folder, data, name)
    assert Life(folder, clock).counts() == (12, 0)
    assert SnapshotStore(folder, clock=clock).read(availability(), DAY).counts == (12, 0)


def test_a_process_that_was_taken_for_gone_goes_on_in_a_new_file(folder, clock):
    """It was suspended for an hour: what it had written is in the archive, what came since is in its new file."""
    asleep = Life(folder, clock)
    good(asleep.guard, 10)
    asleep.file.save()
    old = asleep.file.name
    snapshot._ours.discard(old)
    good(asleep.guard, 2)
    for _ in range(12):
        life = Life(folder, clock)
        good(life.guard, 1)
        life.file.stop()
    clock.advance(HOUR)
    other = Life(folder, clock)
    other.file.exchange()
    assert old not in files(folder)
    asleep.file.exchange()
    asleep.file.exchange()
    assert asleep.file.name != old
    other.file.exchange()
    assert asleep.counts() == other.counts() == (24, 0)


def test_a_process_id_that_is_used_again_does_no_harm(folder, clock):
    """Here all have the same: files differ by the nanosecond of their beginning."""
    for many in (1, 2, 4):
        life = Life(folder, clock)
        good(life.guard, many)
        life.file.stop()
    assert len({name.partition("-")[0] for name in files(folder)}) == 1
    assert Life(folder, clock).counts() == (7, 0)


def test_what_a_child_took_over_is_its_parents_to_tell(folder, clock):
    """A fork of a process that has counted already: each event counts once."""
    parent = Life(folder, clock)
    good(parent.guard, 5)
    parent.file.before_fork()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            parent.file._run = lambda: None
            parent.file.after_fork_in_child()
            good(parent.guard, 3)
            parent.file.exchange()
            os.write(writing, repr((parent.slos.series("up").totals(), parent.counts())).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100) == b"((8, 0), (3, 0))"
    os.close(reading)
    os.close(writing)
    parent.file.exchange()
    assert parent.counts() == (8, 0)
    assert len(files(folder)) == 2


def test_a_store_reads_from_outside(folder, clock):
    """Without the process: with coverage, source and age; one file, or all of a folder."""
    life = Life(folder, clock)
    good(life.guard, 90)
    bad(life.guard, 10)
    clock.advance(3 * DAY)
    life.file.save()
    clock.advance(20.0)
    for path in (folder, folder / life.file.name):
        reading = SnapshotStore(path, clock=clock).read(availability(), 30 * DAY)
        assert (reading.counts, reading.source, reading.age) == ((90, 10), "snapshot", pytest.approx(20.0))
        assert reading.coverage == pytest.approx(0.1, rel=0.01)


def problem_of(path, clock, slo=None):
    reading = SnapshotStore(path, clock=clock).read(slo or availability(), 30 * DAY)
    assert (reading.good, reading.bad, reading.counts) == (0, 0, None)
    return reading.problem


def test_a_store_that_does_not_know_says_why(folder, clock, tmp_path):
    """Nothing there, an unknown objective, another indicator, stale, of the future, of several services, damaged."""
    assert "cannot be used" in problem_of(tmp_path / "nothing", clock)
    folder.mkdir()
    assert "knows it" in problem_of(folder, clock)
    data = good_file(folder, clock)
    put(folder, data)
    assert "knows it" in problem_of(folder, clock, availability("other"))
    assert "something else" in problem_of(folder, clock, availability(latency=1.0))
    assert problem_of(folder, ManualClock(time=NOW + 301.0)) == "stale: nobody has written for 301 s"
    assert "future" in problem_of(folder, ManualClock(time=NOW - DAY))
    put(folder, good_file(folder, clock, service="other"), "slo_2-2.bin")
    assert "several services" in problem_of(folder, clock)
    put(folder, data[:-1], "slo_2-2.bin")
    assert "checksum" in problem_of(folder, clock)
    (folder / "slo_2-2.bin").unlink()
    (folder / "slo_2-2.bin").symlink_to(folder / "slo_1-1.bin")
    assert "symbolic link" in problem_of(folder, clock)


def test_a_file_reads_back_as_it_was_written(folder, clock):
    """Every field."""
    life = Life(folder, clock, availability(), availability("two"))
    good(life.guard, 5)
    clock.advance(DAY)
    bad(life.guard, 5)
    life.file.save()
    found = read(folder / life.file.name)
    assert decode(encode(found)) == found
    write(folder / "slo_7-7.bin", found)
    assert read(folder / "slo_7-7.bin") == found


def test_an_app_that_ends_has_written_before_it_says_so(folder, clock):
    """A server may kill its worker right after that word."""
    life = Life(folder, clock)
    good(life.guard, 3)
    said = []

    async def send(message):
        said.append((message["type"], files(folder)))

    async def app(scope, receive, send):
        for kind in ("startup", "shutdown"):
            await send({"type": f"lifespan.{kind}.complete"})

    asyncio.run(ResilienceMiddleware(app, life.resilience)({"type": "lifespan"}, None, send))
    assert said == [("lifespan.startup.complete", []), ("lifespan.shutdown.complete", [life.file.name])]
    assert read(folder / life.file.name).live is False


def test_a_file_that_is_signed_and_makes_no_sense_is_refused_with_what_it_lacks(folder, clock):
    """Whoever wrote it, nothing of it is believed."""
    life = Life(folder, clock)
    good(life.guard, 5)
    life.file.save()
    whole = (folder / life.file.name).read_bytes()
    start = len(MAGIC) + 4
    (length,) = struct.unpack_from("<I", whole, len(MAGIC))
    header, counts = json.loads(whole[start : start + length]), whole[start + length : -16]

    def signed(said, many=None, more=counts):
        written = json.dumps(said).encode()
        data = MAGIC + struct.pack("<I", len(written) if many is None else many) + written + more
        return data + hashlib.blake2b(data, digest_size=16).digest()

    name, indicator, shapes, seen = header["objectives"][0]
    assert decode(signed(header)).entries.keys() == {"up"}
    for data, why in (
        (signed(header, many=2**31), "its header has no length that it can have"),
        (signed({**header, "objectives": {}}), "objectives: expected a list"),
        (signed({**header, "objectives": [[name, indicator, shapes[:1], seen]]}), "up: expected .* resolutions"),
        (signed(header, more=b"\xff" * len(counts)), "up: expected counts that do not go back"),
        (signed(header, more=counts + b"\0" * 8), "no more counts than"),
        (signed({**header, "folded": ["../x"]}), "folded: expected names of files"),
        (signed({**header, "live": 1}), "whether it is live"),
        (signed({**header, "pid": True}), "pid: expected a whole number"),
        (signed({**header, "at": 1e300}), "at: expected seconds"),
    ):
        with pytest.raises(ValueError, match=why):
            decode(data)


def test_the_same_question_has_the_same_name_in_every_process():
    """Functions are told by what they mention; what is deeper than anybody looks, and cells that hold nothing, tell nothing."""

    def about(judge):
        return sheets.fingerprint(availability(good_when=judge))

    def of(bound):
        return lambda result: result > bound

    def unset():
        if not files:
            never = 1
        return lambda result: result > never

    assert about(of(1)) == about(of(1)) != about(of(2))
    assert about(unset()) == about(unset()) != about(of(1))
    nested = 1
    for _ in range(20):
        nested = (nested,)
    assert about(of(nested)) == about(of(nested)) != about(of(1))


def test_in_the_order_of_other_machines_counts_are_turned_around(monkeypatch):
    """Files are the same everywhere, and what was counted is left as it is."""
    kept = array("q", [1, 256])
    monkeypatch.setattr(sheets.sys, "byteorder", "big")
    assert list(sheets._swapped(kept)) == [1 << 56, 1 << 48]
    assert list(kept) == [1, 256]


@pytest.fixture
def stale(folder, clock):
    """A process beside which there are so many files of others."""

    def make(many=12, live=False):
        for _ in range(many):
            life = Life(folder, clock)
            good(life.guard, 1)
            if live:
                life.file.save()
                snapshot._ours.discard(life.file.name)
            else:
                life.file.stop()
        return Life(folder, clock)

    return make


def test_only_one_at_a_time_puts_files_together(folder, clock, stale):
    """Whoever comes second leaves them to the first."""
    last = stale()
    with (folder / ".slo.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        last.file.exchange()
        assert len(files(folder)) == 12
    last.file.exchange()
    assert files(folder) == [ARCHIVE]
    assert last.counts() == (12, 0)


def test_an_archive_that_cannot_be_read_is_not_written_over(folder, clock, stale):
    """What it holds would be lost."""
    last = stale()
    put(folder, b"damaged", ARCHIVE)
    last.file.exchange()
    assert (folder / ARCHIVE).read_bytes() == b"damaged"
    assert len(files(folder)) == 13


def test_what_was_folded_and_left_is_removed_by_whoever_folds_next(folder, clock, stale):
    """It counts once all the time."""
    last = stale()
    kept = {name: (folder / name).read_bytes() for name in files(folder)}
    last.file.exchange()
    for name, data in kept.items():
        put(folder, data, name)
    (folder / ".slo_draft.tmp").write_bytes(b"half")
    os.utime(folder / ".slo_draft.tmp", (NOW - 2_000, NOW - 2_000))
    last.file.exchange()
    assert files(folder) == [ARCHIVE]
    assert last.counts() == (12, 0)
    last = stale()
    last.file.exchange()
    assert not (folder / ".slo_draft.tmp").exists()
    assert last.counts() == (24, 0)


@pytest.mark.parametrize(
    ("host", "pid", "kill", "gone"),
    [
        ("elsewhere", 1, None, False),
        (None, os.getpid(), None, True),
        (None, 4_711, ProcessLookupError, True),
        (None, 4_711, PermissionError, False),
        (None, 4_711, None, False),
    ],
    ids=["elsewhere", "our id", "no process", "of somebody else", "another process"],
)
def test_a_process_is_gone_when_the_machine_says_so(monkeypatch, host, pid, kill, gone):
    """One elsewhere, or of somebody else, is there until it is silent; one with our id that is not us is not."""

    def answer(asked, signal):
        assert (asked, signal) == (pid, 0)
        if kill is not None:
            raise kill

    monkeypatch.setattr(snapshot.os, "kill", answer)
    sheet = sheets.Sheet(
        service="g", host=host or socket.gethostname(), pid=pid, started=NOW, at=NOW, live=True, entries={}, name="slo_4711-1.bin"
    )
    assert snapshot._is_gone(sheet, NOW + 10.0) is gone
    assert snapshot._is_gone(sheet, NOW + 1_000.0)
    monkeypatch.setattr(snapshot, "_ours", {sheet.name})
    assert not snapshot._is_gone(sheet, NOW + 1_000.0)


def test_few_that_are_gone_are_left_where_they_are(folder, clock, stale):
    """Putting one or two together is not worth a lock."""
    last = stale(many=2)
    for number in range(9):
        data = good_file(folder, clock)
        put(folder, encode(replace(decode(data), host="elsewhere", live=True)), f"slo_{number}-1.bin")
    last.file.exchange()
    assert len(files(folder)) == 11
    assert last.counts() == (47, 0)


def test_a_folder_with_too_many_files_is_reported_and_the_newest_are_read(folder, clock, monkeypatch):
    """And a gate knows nothing, for it must not judge by a part."""
    monkeypatch.setattr(snapshot, "_MOST_FILES", 3)
    data = good_file(folder, clock)
    for number in range(5):
        put(folder, data, f"slo_{number}-1.bin")
    life = Life(folder, clock)
    assert life.counts() == (15, 0)
    assert "the folder of snapshots" in life.defects
    assert "there are more than 3" in problem_of(folder, clock)


def test_files_that_change_all_the_time_are_unknown_to_a_gate(folder, clock, monkeypatch):
    """They are tried a few times, and not for ever; a process takes what it has read last."""
    put(folder, good_file(folder, clock))
    tried = []

    def gone(path):
        tried.append(path)
        raise FileNotFoundError(path)

    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "read", gone)
        assert "change too fast" in problem_of(folder, clock)
    assert len(tried) == 5
    life = Life(folder, clock)
    usual, generations = life.file._load, iter(range(100))

    def restless(name):
        found = usual("slo_1-1.bin" if name == ARCHIVE else name)
        return found if name != ARCHIVE else replace(found, generation=next(generations), folded=())

    monkeypatch.setattr(life.file, "_load", restless)
    assert sum(entry.ledger.tracks[0].totals[0] for sheet in life.file._sheets() for entry in sheet.entries.values()) == 5
    assert next(generations) == 10
