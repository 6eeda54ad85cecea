"""Where a function takes its endpoint, and what a pool does with names that are not there."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from somaresil import ConfigurationError, Endpoint
from somaresil.pool import core, race
from somaresil.pool.place import Place, place_of, routed, without_endpoint
from tests.unit.pool.kit import Stand


class Silent:
    """A callable that does not tell its parameters, as some builtins."""

    __signature__ = "none"

    def __call__(self, endpoint):
        return endpoint


def test_a_function_that_does_not_tell_its_parameters_takes_its_endpoint_first():
    silent = Silent()
    assert place_of("p", silent, None) == Place(0)
    assert without_endpoint(silent, Place(0)) is None
    assert routed(silent, Place(0))("eu") == "eu"


def test_a_function_of_nothing_but_names_takes_its_endpoint_by_name():
    assert place_of("p", lambda **options: options, None) == Place(None)
    with pytest.raises(ConfigurationError, match="a function that takes an endpoint"):
        place_of("p", lambda: None, None)


def test_a_name_that_two_threads_add_at_once_is_refused_to_the_second(monkeypatch):
    stand = Stand("ab")
    monkeypatch.setattr(core, "check_endpoints", lambda *_: None)
    with pytest.raises(ConfigurationError, match="two threads have added it at once"):
        stand.pool.add(Endpoint("a", "A"))


def test_more_endpoints_than_the_most_are_refused(monkeypatch):
    monkeypatch.setattr(core, "MOST_ENDPOINTS", 2)
    with pytest.raises(ConfigurationError, match="at most 2 endpoints"):
        Stand("abc")


def test_what_is_not_in_the_balance_is_neither_weighed_nor_removed_and_nothing_is_added_twice():
    balance = Stand("ab").pool._balance
    assert not balance.set_weight("x", 2.0)
    assert not balance.remove("x")
    assert not balance.add(Endpoint("a", "A"), None, slowly=False)
    assert set(balance.endpoints) == {"a", "b"}


def test_a_stream_that_nobody_will_read_is_closed():
    closed = []

    class Source:
        async def aclose(self):
            closed.append(True)

    async def main():
        await race._close(SimpleNamespace(source=Source()))
        await race._close("no stream")

    asyncio.run(main())
    assert closed == [True]
