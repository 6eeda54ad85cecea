"""The files of the kill switch: what is written in them, which of them count, and what is given back."""

from __future__ import annotations

import errno
import os

import pytest

from somaresil.chaos import killswitch
from somaresil.chaos.killswitch import HostSwitch, Reading


@pytest.fixture
def paths(tmp_path):
    return [tmp_path / "one" / "a.switch", tmp_path / "two" / "a.switch"]


def test_a_switch_says_where_it_is(paths):
    switch = HostSwitch(paths)
    assert switch.where == f"{paths[0]} and {paths[1]}"
    assert repr(switch) == f"<HostSwitch {paths[0]} and {paths[1]}>"
    assert switch.paths == tuple(paths)


def test_every_stop_has_a_later_number_even_when_the_clock_stands_still_or_went_back(paths, monkeypatch):
    switch = HostSwitch(paths[:1])
    seen = []
    for stamp in (100, 100, 50, 200):
        monkeypatch.setattr("somaresil.chaos.killswitch.time.time_ns", lambda stamp=stamp: stamp)
        switch.throw()
        seen.append(switch.read().stamp)
    assert seen == [100, 101, 102, 200]


def test_engaging_the_lever_is_a_stop_too_and_releasing_it_is_none(paths):
    switch = HostSwitch(paths)
    switch.move_lever(True, "ann: \u00e4 reason\n")
    engaged = switch.read()
    assert (engaged.engaged, engaged.by) == (True, "ann: ? reason")
    assert engaged.stamp > 0
    switch.move_lever(False, "bob")
    released = switch.read()
    assert (released.engaged, released.stamp) == (False, engaged.stamp)


def test_one_file_that_can_be_engaged_is_enough_and_all_must_be_released(paths):
    """Experiments of the other place would go on being forbidden, and nobody would know."""
    paths[1].parent.mkdir()
    paths[1].parent.chmod(0o777)
    switch = HostSwitch(paths)
    switch.move_lever(True, "ann")
    assert HostSwitch(paths[:1]).read().engaged
    with pytest.raises(OSError, match="two"):
        switch.move_lever(False, "ann")


def test_a_switch_that_can_be_thrown_nowhere_says_so(paths):
    for path in paths:
        path.parent.mkdir()
        path.parent.chmod(0o777)
    with pytest.raises(OSError, match=r"one|two"):
        HostSwitch(paths).throw()


def test_a_file_that_is_half_written_is_made_whole(paths):
    switch = HostSwitch(paths[:1])
    switch.throw()
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[:40])
    switch.throw()
    assert len(paths[0].read_bytes()) == len(whole)
    assert not switch.read().engaged
    paths[0].write_bytes(whole[:40] + b"x" * 300)
    switch.throw()
    assert len(paths[0].read_bytes()) == len(whole)


def test_a_file_that_others_may_write_is_not_used(paths):
    switch = HostSwitch(paths[:1])
    switch.prepare()
    paths[0].chmod(0o666)
    with pytest.raises(OSError, match="switch"):
        switch.throw()
    with pytest.raises(OSError, match="switch"):
        HostSwitch(paths[:1]).read()


def test_a_file_is_kept_open_while_it_is_the_same_and_given_back_when_it_is_gone(paths, monkeypatch):
    """An experiment may have taken all descriptors; and a switch must take none itself, however often it is read."""
    opened, closed = [], []
    really_open, really_close = os.open, os.close
    monkeypatch.setattr(os, "open", lambda *given, **more: opened.append(found := really_open(*given, **more)) or found)
    monkeypatch.setattr(os, "close", lambda descriptor: closed.append(descriptor) or really_close(descriptor))
    switch = HostSwitch(paths[:1])
    switch.throw()
    assert sorted(opened) == sorted(closed)
    opened.clear()
    closed.clear()
    for _ in range(5):
        assert switch.read().stamp > 0
    assert (len(opened), closed) == (1, [])
    paths[0].unlink()
    assert switch.read() == Reading()
    assert closed == opened
    switch.throw()
    assert switch.read().stamp > 0
    switch.close()
    assert sorted(opened) == sorted(closed)


def test_another_file_that_cannot_be_opened_for_want_of_descriptors_is_said_to_be_a_stop(paths, monkeypatch):
    """To be sure. That it may not be read is another matter, and an error."""
    switch = HostSwitch(paths[:1])
    switch.prepare()
    os.utime(paths[0], ns=(7, 7))
    failing = [errno.EMFILE]

    def refuse(*_, **__):
        raise OSError(failing[0], os.strerror(failing[0]))

    monkeypatch.setattr(os, "open", refuse)
    assert switch.read() == Reading(7)
    os.utime(paths[0], ns=(0, 0))
    assert switch.read() == Reading(1)
    failing[0] = errno.EACCES
    with pytest.raises(PermissionError):
        switch.read()


def test_the_descriptor_of_a_file_that_was_replaced_is_given_back_before_the_next_one_is_opened(paths, monkeypatch):
    """There may be no other one to be had."""
    switch = HostSwitch(paths[:1])
    switch.throw()
    stamp = switch.read().stamp
    old = switch._files[0]._opened[0]
    paths[0].rename(paths[0].with_name("old"))
    HostSwitch(paths[:1]).prepare()
    really_open = os.open

    def open_one(*given, **more):
        try:
            os.fstat(old)
        except OSError:
            return really_open(*given, **more)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", open_one)
    assert stamp > 0
    assert switch.read() == Reading(0)


def test_a_file_that_is_changed_after_it_was_looked_at_is_not_written_to(paths, monkeypatch):
    switch = HostSwitch(paths[:1])
    switch.prepare()
    before = paths[0].read_bytes()
    paths[0].chmod(0o666)
    monkeypatch.setattr(killswitch._File, "make", lambda _: None)
    with pytest.raises(PermissionError):
        switch.throw()
    assert paths[0].read_bytes() == before


def test_a_file_is_made_whole_readable_by_all_and_with_nothing_left_beside_it(paths):
    before = os.umask(0o077)
    try:
        HostSwitch(paths[:1]).prepare()
    finally:
        os.umask(before)
    assert paths[0].stat().st_mode & 0o777 == 0o644
    assert list(paths[0].parent.iterdir()) == [paths[0]]


def test_a_link_that_leads_nowhere_is_not_taken_for_a_place_that_is_free(paths):
    paths[0].parent.mkdir(mode=0o700)
    paths[0].symlink_to(paths[0].with_name("nowhere"))
    with pytest.raises(OSError, match="no plain file"):
        HostSwitch(paths[:1]).prepare()
    assert list(paths[0].parent.iterdir()) == [paths[0]]


def test_a_file_that_others_may_write_is_found_out_before_anything_is_armed(paths):
    switch = HostSwitch(paths[:1])
    switch.prepare()
    paths[0].chmod(0o620)
    with pytest.raises(PermissionError, match="others may write"):
        switch.prepare()


def test_a_lever_that_was_moved_is_on_the_disk(paths, monkeypatch):
    synced = []
    really = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(1) or really(descriptor))
    switch = HostSwitch(paths[:1])
    switch.move_lever(True, "ann")
    switch.move_lever(False, "ann")
    assert len(synced) == 2
    switch.throw()
    assert len(synced) == 2
