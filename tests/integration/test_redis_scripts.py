"""The scripts, on a real Redis: they do what the plain store of the unit tests does, refuse who is behind, and leave nothing for ever."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from somaresil import ManualClock, Outcome
from somaresil.integrations._lua import RedisStore, parse_message
from somaresil.model.breaker import State
from tests.integration.servers import Redis, find_redis
from tests.unit.integrations.fleet_kit import TRUST, Shelf, View

redis = pytest.importorskip("redis")
pytestmark = pytest.mark.server

LONG = 100.0
PROCESSES = ("a", "b", "c")
who = st.integers(0, 2)
known = st.sampled_from(["now"] * 8 + ["before", "never"])
seconds = st.sampled_from([LONG] * 4 + [0.0])
verdict = st.sampled_from([Outcome.GOOD, Outcome.BAD, None])
probing = st.one_of(
    st.tuples(st.just("lease_probe"), who, known, st.integers(1, 4), st.integers(1, 4), seconds, st.booleans()),
    st.tuples(st.just("record_probe"), who, known, st.sampled_from([1, 1, 1, 1, 9]), verdict, st.booleans()),
    st.tuples(st.just("keep_probes"), who, known, st.integers(0, 4)),
)
moving = st.one_of(
    st.tuples(st.just("trip_open"), who, known, seconds, st.integers(1, 3)),
    st.tuples(st.just("begin_half_open_if_elapsed"), who, known),
    st.tuples(st.just("close"), who, known, st.booleans(), st.integers(1, 3)),
    st.tuples(st.sampled_from(["hello", "goodbye", "evicted"]), who),
)
BEGINNINGS = {
    "as it is": [],
    "open": [("trip_open", 0, "now", LONG, 1), ("trip_open", 1, "now", LONG, 1)],
    "half-open": [("trip_open", 0, "now", LONG, 1), ("trip_open", 1, "now", 0.0, 2), ("begin_half_open_if_elapsed", 2, "now")],
}
rounds = st.tuples(
    st.lists(st.tuples(st.just("hello"), who), max_size=3),
    st.sampled_from(["as it is", "open", "half-open", "half-open", "half-open"]).map(BEGINNINGS.__getitem__),
    st.lists(probing, max_size=12),
    st.lists(moving, max_size=3),
)
histories = st.lists(rounds, min_size=2, max_size=4).map(lambda some: [step for one in some for part in one for step in part])


def store(client, process, *, service="service", instance=None, quorum=1):
    return RedisStore(client, prefix="test", service=service, instance=instance or process, process=process, quorum=quorum, alive=TRUST)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    binary = find_redis()
    if binary is None:
        pytest.skip("redis-server is not installed: `apt-get install redis-server`, or run `nox -s tests` as root")
    with Redis(folder=tmp_path_factory.mktemp("redis"), binary=binary) as server:
        yield server.url


@pytest.fixture
def client(url):
    with redis.Redis.from_url(url) as client:
        client.flushall()
        yield client


class Side:
    """One of the two stores, with the versions and leases that it has given."""

    def __init__(self, views, name="dep"):
        self.views = views
        self.name = name
        self.versions = [0]
        self.leases = []
        self.in_hand = ["none"]

    def version(self, which):
        if which == "never":
            return -7
        return self.versions[-1] if which == "now" else self.versions[max(0, len(self.versions) - 2)]

    def do(self, what, number, *given):
        view = self.views[number]
        if what == "hello":
            view.hello()
            return None
        if what == "goodbye":
            view.goodbye()
            return None
        if what == "evicted":
            self.evict()
            (seen,) = view.read([self.name])
        else:
            version, *given = given
            call = getattr(view, what)
            seen = call(self.name, self.version(version), **self.arguments(what, given))
        if seen.version != self.versions[-1]:
            self.versions.append(seen.version)
        fresh = [lease for lease in seen.leases if lease not in self.leases]
        self.leases += fresh
        self.in_hand += fresh
        # Versions and times are each store's own; what matters is which of them it is.
        return seen._replace(
            version=self.versions.index(seen.version),
            remaining=seen.remaining > LONG / 2,
            leases=tuple(self.leases.index(lease) for lease in seen.leases),
        )

    def arguments(self, what, given):
        if what == "trip_open":
            return {"duration": given[0], "openings": given[1]}
        if what == "lease_probe":
            return {"limit": given[0], "at_once": given[1], "seconds": given[2], "asked": given[3]}
        if what == "close":
            return {"probed": given[0], "openings": given[1]}
        if what == "keep_probes":
            return {"leases": self.leases[-given[0] :] if given[0] else [], "seconds": LONG}
        if what == "record_probe":
            # Mostly one that was lent and not yet given back.
            lease = self.in_hand.pop() if len(self.in_hand) > given[0] else self.in_hand[0]
            return {"lease": lease, "verdict": given[1], "slow": given[2]}
        return {}


def test_the_scripts_do_what_the_plain_store_does(client):
    """Any order of questions by three processes, of which some are behind: the same answers, and as many messages."""
    count = 0

    @settings(max_examples=80, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(steps=histories, quorum=st.sampled_from([1, 2]))
    def compare(steps, quorum):
        nonlocal count
        count += 1
        shelf = Shelf(ManualClock())
        plain = Side([View(shelf, name, quorum=quorum) for name in PROCESSES])
        real = Side([store(client, name, service=f"s{count}", quorum=quorum) for name in PROCESSES])
        plain.evict = lambda: shelf.circuits.pop("dep", None)
        real.evict = lambda: client.delete(f"test:{{s{count}}}:circuit:dep", f"test:{{s{count}}}:probes:dep")
        for one in steps:
            shelf.clock.advance(1e-6)
            assert real.do(*one) == plain.do(*one), one
        more = int(client.get(f"test:{{s{count}}}:number") or 0) - shelf.number
        # That somebody wants a probe is told five times a second at most, and on one of the two clocks a second may pass.
        assert more == 0 or (more > 0 and any(message.wanted for message in shelf.told))

    compare()


def test_a_write_on_an_old_version_is_refused(client):
    """Each kind of write, by somebody who was asleep while the others went on; the circuit is as it was."""
    awake, asleep = store(client, "awake"), store(client, "asleep")
    old = awake.trip_open("dep", 0, duration=0.0, openings=1).version
    new = awake.begin_half_open_if_elapsed("dep", old)
    assert new.done
    assert new.version > old
    (before,) = awake.read(["dep"])
    for refused in (
        asleep.trip_open("dep", old, duration=60.0, openings=1),
        asleep.begin_half_open_if_elapsed("dep", old),
        asleep.lease_probe("dep", old, limit=3, at_once=3, seconds=60.0, asked=False),
        asleep.record_probe("dep", old, "asleep#1", Outcome.BAD, slow=False),
        asleep.keep_probes("dep", old, ["asleep#1"], seconds=60.0),
        asleep.close("dep", old, probed=False, openings=0),
    ):
        assert refused == before
        assert not refused.done
    assert awake.read(["dep"]) == [before]


def test_a_version_is_never_used_twice(client):
    """Not even by a server that has forgotten everything: who slept through that is still behind."""
    one, two = store(client, "one"), store(client, "two")
    old = one.trip_open("dep", 0, duration=60.0, openings=1).version
    client.flushall()
    new = two.trip_open("dep", 0, duration=60.0, openings=1).version
    assert new > old
    assert not one.close("dep", old, probed=False, openings=0).done
    assert one.read(["dep"])[0].state is State.OPEN


def test_a_lease_ends_by_the_clock_of_the_server(client):
    """Who holds it may be gone."""
    one, two = store(client, "one"), store(client, "two")
    version = one.begin_half_open_if_elapsed("dep", one.trip_open("dep", 0, duration=0.0, openings=1).version).version
    assert len(one.lease_probe("dep", version, limit=1, at_once=1, seconds=0.0, asked=False).leases) == 1
    assert len(two.lease_probe("dep", version, limit=1, at_once=1, seconds=60.0, asked=True).leases) == 1
    assert one.lease_probe("dep", version, limit=1, at_once=1, seconds=60.0, asked=True).leases == ()


def test_what_is_told_is_what_is_stored(client):
    """A message carries the circuit as it is after the step, and its number."""
    one = store(client, "one")
    with client.pubsub() as news:
        news.subscribe(one.channel)
        assert news.get_message(timeout=5.0)["type"] == "subscribe"
        seen = one.trip_open("dep", 0, duration=60.0, openings=2)
        message = parse_message(news.get_message(timeout=5.0)["data"])
    assert (message.number, message.wanted, message.name) == (1, False, "dep")
    assert message.seen._replace(done=True) == seen
    assert one.hello() == 1


def test_nothing_is_left_for_ever(client):
    """Every key that any step makes ends by itself, an hour after it is of no use any more."""
    one = store(client, "one")
    one.hello()
    assert not store(client, "two", quorum=2).trip_open("other", 0, duration=5.0, openings=1).done
    version = one.trip_open("dep", 0, duration=0.0, openings=1).version
    version = one.begin_half_open_if_elapsed("dep", version).version
    lease = one.lease_probe("dep", version, limit=3, at_once=3, seconds=60.0, asked=False).leases[0]
    one.keep_probes("dep", version, [lease], seconds=60.0)
    one.record_probe("dep", version, lease, Outcome.GOOD, slow=True)
    keys = sorted(key.decode() for key in client.keys("*"))
    assert [key.partition("}:")[2] for key in keys] == ["alive", "circuit:dep", "number", "probes:dep", "votes:other"]
    assert all(0 < client.pttl(key) <= 3_600_000 + 61_000 for key in keys)
    one.close("dep", version, probed=True, openings=1)
    one.goodbye()
    assert all(0 < client.pttl(key) <= 3_600_000 + 61_000 for key in client.keys("*"))


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
def test_answers_may_be_decoded_or_not_in_either_protocol(url, decode, protocol):
    """The user's URL may say so."""
    with redis.Redis.from_url(url, decode_responses=decode, protocol=protocol) as client:
        one = store(client, "one", service=f"{decode}-{protocol}", instance="a b")
        assert one.trip_open("dep", 0, duration=60.0, openings=1).done
        assert one.read(["dep", "other"])[0].state is State.OPEN
        assert one.read([]) == []
