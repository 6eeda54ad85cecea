"""Small promises of the engine: probes that break, names that do not exist, bytes that say nothing."""

from __future__ import annotations

import asyncio
from types import ModuleType, SimpleNamespace

import pytest

from somaresil import ChaosExperiment
from somaresil.chaos import baggage, capabilities, clienterrors
from somaresil.chaos.ingress import arriving
from somaresil.chaos.network import hooks, seam
from somaresil.chaos.network.board import BOARD
from somaresil.chaos.network.targets import address_of
from somaresil.chaos.streams import Tear
from somaresil.chaos.strikes import _own
from tests.unit.chaos.kit import ERROR, Stand


def test_a_probe_that_breaks_makes_nothing_available_and_says_what_it_raised(monkeypatch):
    monkeypatch.setattr(capabilities, "PROBES", ("somaresil.chaos.capabilities:no_such_probe",))
    ((name, found),) = capabilities.capabilities().items()
    assert name == "somaresil.chaos"
    assert not found.available
    assert found.reason.startswith("the probe raised AttributeError")


def test_nowhere_is_this_machine():
    assert str(address_of("0.0.0.0")) == "127.0.0.1"
    assert str(address_of("::")) == "::1"
    assert address_of("localhost") is None


def test_an_error_of_no_library_that_is_known_is_no_error():
    with pytest.raises(KeyError, match=r"openai\.NoSuchError"):
        clienterrors._Errors()["openai.NoSuchError"]


def test_bytes_that_are_no_text_are_no_value():
    assert baggage._decodes("%C3%A9")
    assert not baggage._decodes("%FF%FE")


def test_what_is_neither_a_request_nor_a_websocket_brings_no_plan():
    assert arriving(None, {"type": "lifespan"}, None) is None


def test_a_frozen_error_is_raised_as_it_is():
    class Frozen(Exception):
        def __setattr__(self, name, value):
            raise AttributeError(name)

    stand = Stand()
    run = stand.arm(ERROR, error=Frozen)
    found = _own(run, "llm.invoke", None, status_code=400)
    assert type(found) is Frozen
    assert not hasattr(found, "status_code")


def test_an_item_without_a_half_is_left_out_where_a_stream_is_torn():
    broken = ConnectionError()
    shape = SimpleNamespace(index=0, config=SimpleNamespace(after_items=0), claim=lambda **_: (True, broken), pending=None)
    with pytest.raises(ConnectionError) as raised:
        asyncio.run(Tear.shape(shape, {"no": "half"}))
    assert raised.value is broken
    assert asyncio.run(Tear.shape(shape, "half")) == "ha"
    assert shape.pending is broken


def test_the_short_forms_of_streams_arm_what_they_say():
    stand = Stand()

    async def both():
        return await stand.chaos.truncate_streams("llm.*", 3), await stand.chaos.cut_streams("llm.invoke", 2, allow_overlap=True)

    truncating, cutting = asyncio.run(both())
    assert (truncating.config.experiment, truncating.config.after_items) == (ChaosExperiment.STREAM_TRUNCATION, 3)
    assert (cutting.config.experiment, cutting.config.after_items) == (ChaosExperiment.STREAM_CUT, 2)


def test_a_seam_that_cannot_be_asked_leaves_the_way_free_and_says_so(monkeypatch):
    told = []
    cut = SimpleNamespace(defect=lambda *facts: told.append(facts))
    monkeypatch.setattr(BOARD, "cuts", (cut,))
    assert seam.verdict("127.0.0.1", 80) is None
    assert len(told) == 1


# -- hooks ----------------------------------------------------------------------------------------------------------------------------


class Loops:
    """The loop of an uvloop that is not there."""

    async def create_connection(self, factory, host=None, port=None, **options):
        return "made", host, port, options

    async def getaddrinfo(self, host, port, **options):
        return [(2, 1, 6, "", ("192.0.2.7", port))]


@pytest.fixture
def uvloop(monkeypatch):
    class Loop(Loops):
        create_connection = Loops.create_connection
        getaddrinfo = Loops.getaddrinfo

    module = ModuleType("uvloop")
    module.Loop = Loop
    monkeypatch.setitem(hooks.sys.modules, "uvloop", module)
    return Loop


def test_without_uvloop_there_is_nothing_to_patch(monkeypatch):
    monkeypatch.setitem(hooks.sys.modules, "uvloop", None)
    assert hooks.uvloop_patches(lambda *_: None) == []


def test_connections_of_uvloop_come_by_while_the_patch_is_in_place_and_those_with_a_socket_do_not(uvloop):
    asked = []

    async def through(previous, loop, factory, host, port, options):
        asked.append((host, port))
        return await previous(loop, factory, host, port, **options)

    connecting, looking = hooks.uvloop_patches(through)
    for patch in (connecting, looking):
        patch.install()
        assert patch.installed
    try:
        loop = uvloop()
        assert asyncio.run(loop.create_connection(None, "far.example", 1)) == ("made", "far.example", 1, {})
        assert asyncio.run(loop.create_connection(None, sock="theirs")) == ("made", None, None, {"sock": "theirs"})
        assert asked == [("far.example", 1)]
        asyncio.run(loop.getaddrinfo(b"far.example", 1))
        assert [str(address) for address in hooks.NAMES.addresses("far.example")] == ["192.0.2.7"]
        through_ours = uvloop.create_connection
    finally:
        for patch in (connecting, looking):
            patch.remove()
        hooks.NAMES.forget()
    assert uvloop.create_connection is Loops.create_connection
    # Whoever has kept ours is led past us.
    assert asyncio.run(through_ours(loop, None, "far.example", 2)) == ("made", "far.example", 2, {})
    assert len(asked) == 1


def test_what_is_no_name_is_not_learnt():
    hooks._learn(None, [(2, 1, 6, "", ("192.0.2.7", 1))])
    hooks._learn("", [(2, 1, 6, "", ("192.0.2.7", 1))])
    assert len(hooks.NAMES) == 0


def test_a_hook_that_is_passed_by_does_not_fire():
    assert not hooks.Patch(object, "x", None, lambda: None).fires()
    assert not hooks.Patch(object, "x", None, lambda: 1 / 0).fires()


def test_names_that_are_kept_for_good_are_held_once():
    lookups = hooks.Lookups()
    assert not lookups.held
    try:
        lookups.keep()
        lookups.keep()
        assert (lookups.held, lookups._users) == (True, 1)
    finally:
        lookups.release()
    assert not lookups.held
    # Nobody needs it: nothing is put in place.
    lookups.check()
    assert not lookups._patch.installed
