"""Which peers belong to a target, and which targets make no sense."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.chaos.network.names import MOST_ADDRESSES, MOST_NAMES, NameMap
from somaresil.chaos.network.targets import NetTarget, address_of

addresses = st.ip_addresses().filter(
    lambda address: not (address.is_loopback or address.is_unspecified or address_of(str(address)) != address)
)
ports = st.integers(1, 65_535)


@pytest.mark.parametrize(
    ("target", "address", "names", "port", "belongs"),
    [
        ("net:db.internal", "10.0.0.5", ("db.internal",), 5432, True),
        ("net:DB.internal.", "10.0.0.5", ("db.internal",), 5432, True),
        ("net:db.internal:5432", "10.0.0.5", ("db.internal",), 5433, False),
        ("net:db.internal", "10.0.0.5", (), 5432, False),
        ("net:*.internal:5000-6000", "10.0.0.5", ("a.b.internal",), 6000, True),
        ("net:*.internal:5000-6000", "10.0.0.5", ("a.b.internal",), 6001, False),
        ("net:db[12].internal:*", "10.0.0.5", ("db2.internal",), 1, True),
        ("net:10.0.0.5", "10.0.0.5", (), 1, True),
        ("net:10.0.0.0/8:443", "10.9.9.9", (), 443, True),
        ("net:10.0.0.0/8", "11.0.0.1", (), 443, False),
        ("net:2001:db8::1", "2001:db8::1", (), 443, True),
        ("net:[2001:db8::/32]:443", "2001:db8::7", (), 443, True),
        ("net:[2001:db8::/32]:443", "2001:db8::7", (), 444, False),
        ("net:::ffff:10.0.0.5", "10.0.0.5", (), 443, True),
        ("net:*", "10.0.0.5", (), 443, True),
        ("net:*", "127.0.0.1", (), 443, False),
        ("net:*", "::1", (), 443, False),
        ("net:0.0.0.0/0", "127.0.0.1", (), 443, False),
        ("net:*host", "127.0.0.1", ("localhost",), 443, False),
        ("net:127.0.0.0/8", "127.0.0.1", (), 443, True),
        ("net:127.0.0.1:443", "127.0.0.1", (), 443, True),
        ("net:localhost", "::1", ("localhost",), 443, True),
    ],
)
def test_what_belongs_to_a_target(target: str, address: str, names: tuple[str, ...], port: int, belongs: bool) -> None:
    assert NetTarget.parse(target).matches(ip_address(address), names, port) is belongs


def test_a_name_alone_is_enough_where_no_address_is_known() -> None:
    assert NetTarget.parse("net:*.internal").matches(None, ("db.internal",), 1)
    assert not NetTarget.parse("net:10.0.0.0/8").matches(None, ("db.internal",), 1)
    assert not NetTarget.parse("net:*").matches(None, ("localhost",), 1)


@pytest.mark.parametrize(
    "target",
    [
        "net:",
        "net::80",
        "net:host:0",
        "net:host:65536",
        "net:host:9-8",
        "net:host:x",
        "net:10.0.0.0/33",
        "net:a:b:c",
        "net:[::1]80",
        "net:host:+1",
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(target: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        NetTarget.parse(target)


@given(addresses, ports)
def test_an_address_and_a_port_strike_themselves_and_no_other_port(address: object, port: int) -> None:
    target = NetTarget.parse(f"net:[{address}]:{port}" if address.version == 6 else f"net:{address}:{port}")
    assert target.matches(address, (), port)
    assert not target.matches(address, (), port % 65_535 + 1)


@given(addresses, addresses, st.integers(0, 32), ports)
def test_a_network_strikes_what_the_standard_library_says_is_in_it(base: object, other: object, prefix: int, port: int) -> None:
    network = ip_network((base, prefix), strict=False)
    if network.version == 6 and network.prefixlen >= 96:
        return
    expected = other.version == network.version and other in network
    assert NetTarget.parse(f"net:{network}").matches(other, (), port) is expected


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        target = NetTarget.parse(text)
    except ValueError:
        return
    assert 0 <= target.low <= target.high <= 65_535
    assert (target.host is None) != (target.network is None)
    assert isinstance(target.matches(ip_address("192.0.2.1"), ("some.host",), 80), bool)


def test_names_are_learnt_and_the_oldest_forgotten() -> None:
    names = NameMap()
    names.learn("Db.internal.", ["10.0.0.1", "::ffff:10.0.0.2", "fe80::1%eth0", "no address"])
    assert names.of(ip_address("10.0.0.2")) == ("db.internal",)
    assert names.addresses("db.INTERNAL") == [ip_address("10.0.0.1"), ip_address("10.0.0.2"), ip_address("fe80::1")]
    for n in range(MOST_NAMES + 3):
        names.learn(f"n{n}", ["10.0.0.1"])
    assert len(names.of(ip_address("10.0.0.1"))) == MOST_NAMES
    for n in range(MOST_ADDRESSES):
        names.learn("many", [str(ip_address(0x0B000000 + n))])
    assert len(names) == MOST_ADDRESSES
    assert names.of(ip_address("10.0.0.1")) == ()
