"""Who has had how much, who goes first, and how much is shed: each against a plain reference."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from somaresil.model.priority import OTHERS, Load, Queue, Rank, Shedding, Threshold, Usage

HALF = 60.0
RANKS = st.sampled_from(list(Rank))
TENANTS = st.sampled_from([None, "a", "b", "c"])


# -- usage ----------------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(TENANTS, st.floats(0.0, 50.0), st.sampled_from([0.0, 0.5, 30.0, 90.0, 10_000.0])), max_size=20))
def test_use_counts_half_after_each_half_life(charges):
    """As if each charge were decayed by itself."""
    usage, now, kept = Usage(8, HALF), 50.0, []
    for tenant, amount, pause in charges:
        now += pause
        usage.charge(usage.account(tenant, now), amount, now)
        kept.append((tenant, amount, now))
    for tenant in (None, "a", "b", "c"):
        expected = sum(amount * 0.5 ** ((now - at) / HALF) for name, amount, at in kept if name == tenant)
        assert usage.used(tenant, now) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(TENANTS, st.floats(0.0, 50.0)), min_size=1, max_size=20), st.sampled_from([0.0, 100.0, 1e6]))
def test_the_order_of_tenants_does_not_depend_on_the_time(charges, later):
    """All lose in the same measure, so nobody has to be decayed to be compared."""
    usage = Usage(8, HALF)
    for number, (tenant, amount) in enumerate(charges):
        usage.charge(usage.account(tenant, number), amount, float(number))
    order = sorted((None, "a", "b", "c"), key=lambda tenant: (usage.rank(tenant), str(tenant)))
    used = [usage.used(tenant, len(charges) + later) for tenant in order]
    assert used == sorted(used)


def test_what_was_charged_too_much_is_taken_back():
    """As far as there is something."""
    usage = Usage(8, HALF)
    usage.charge("a", 10.0, 5.0)
    usage.charge("a", -4.0, 5.0)
    assert usage.used("a", 5.0) == pytest.approx(6.0)
    usage.charge("a", -400.0, 5.0)
    assert usage.used("a", 5.0) == 0.0


def test_only_so_many_tenants_are_told_apart():
    """Whoever comes after that shares one account, until somebody's use does not matter any more."""
    usage = Usage(3, HALF)
    for number in range(1_000):
        account = usage.account(f"tenant-{number}", 0.0)
        assert account == (f"tenant-{number}" if number < 3 else OTHERS)
        usage.charge(account, 1.0, 0.0)
        usage.charge(usage.account(None, 0.0), 1.0, 0.0)
    assert usage.tenants == 3
    assert usage.used(OTHERS, 0.0) == pytest.approx(997.0)
    usage.charge("tenant-1", 1_000.0, 600.0)
    assert usage.account("another", 600.0) == "another"
    assert (usage.tenants, usage.used("tenant-0", 600.0)) == (2, 0.0)


def test_forgotten_tenants_leave_nothing_behind():
    """After enough time nobody is kept; it is not looked for at every call."""
    usage = Usage(3, HALF)
    usage.charge(usage.account("a", 0.0), 1.0, 0.0)
    usage.tidy(1.0)
    assert usage.tenants == 1
    usage.tidy(2.0)
    usage.tidy(HALF * 12.0)
    assert usage.tenants == 0


# -- the line -------------------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class One:
    """Somebody in line."""

    rank: int
    account: str | None
    number: int = 0


class Lines(RuleBasedStateMachine):
    """A queue beside a list of those who stand in it."""

    def __init__(self) -> None:
        super().__init__()
        self.usage = Usage(8, HALF)
        self.queue: Queue[One] = Queue(self.usage)
        self.line: list[One] = []
        self.used = {None: 0.0, "a": 0.0, "b": 0.0, "c": 0.0}

    @rule(rank=RANKS, account=TENANTS)
    def come(self, rank, account):
        """Stand in line."""
        one = One(rank, account)
        self.queue.add(one)
        self.line.append(one)

    @rule(account=TENANTS, amount=st.integers(1, 5))
    def use(self, account, amount):
        """Somebody has had something."""
        self.usage.charge(account, float(amount), 0.0)
        self.used[account] += amount

    @rule()
    def serve(self):
        """The highest class, the one who has had least, the first."""
        expected = min(
            self.line, key=lambda one: (-one.rank, self.used[one.account], self.first_of(one), self.line.index(one)), default=None
        )
        assert self.queue.first() is expected
        if expected is not None:
            self.line.remove(expected)

    def first_of(self, one):
        """Where the first of the same class and tenant stands: tenants with equal use are served by that."""
        return next(place for place, other in enumerate(self.line) if (other.rank, other.account) == (one.rank, one.account))

    @rule(rank=RANKS)
    def displace(self, rank):
        """The newest of the lowest class, for somebody higher."""
        lowest = min((one.rank for one in self.line), default=rank)
        expected = [one for one in self.line if one.rank == lowest][-1] if lowest < rank else None
        assert self.queue.displaced(rank) is expected
        if expected is not None:
            self.line.remove(expected)

    @rule(data=st.data())
    def leave(self, data):
        """Somebody gives up; a second time it is nobody any more."""
        if self.line:
            one = data.draw(st.sampled_from(self.line))
            assert self.queue.remove(one)
            assert not self.queue.remove(one)
            self.line.remove(one)

    @invariant()
    def as_long(self):
        """Nobody is lost."""
        assert len(self.queue) == len(self.line)


TestLines = Lines.TestCase
TestLines.settings = settings(max_examples=60, stateful_step_count=40)


# -- shedding -------------------------------------------------------------------------------------------------------------------------


def load(arrived: int = 100, refused: int = 0, waiting: int = 0, room: int = 10, **ranks: int) -> Load:
    """What a limiter went through."""
    return Load(arrived, refused, waiting, room, tuple(ranks.get(rank.word, 0) for rank in Rank))


NOBODY = (0, 0, 0, 0, 0)
OF_ALL = {"background": 20, "low": 20, "normal": 40, "high": 10, "critical": 10}


def shedding(*loads: Load, times: int = 1, shed: tuple[int, ...] = NOBODY) -> Shedding:
    """After so many intervals like this."""
    model = Shedding(0.5, 0.25)
    for _ in range(times):
        model.observe(loads, shed)
    return model


def test_nothing_is_shed_while_all_is_well():
    """Nor when nobody was asked."""
    assert shedding(load(**OF_ALL), times=20).rate == 0.0
    assert Shedding(0.5, 0.25).threshold == Threshold(Rank.BACKGROUND, 0.0)
    model = Shedding(0.5, 0.25)
    model.observe((), NOBODY)
    assert model.rate == 0.0


@pytest.mark.parametrize("bad", [load(refused=60, **OF_ALL), load(waiting=8, **OF_ALL)])
def test_overload_anywhere_is_overload(bad):
    """One limiter that refuses, or whose line is more than half full, among many that do well."""
    model = shedding(*[load(**OF_ALL)] * 5, bad)
    assert model.rate > 0.2
    assert model.threshold.rank >= Rank.BACKGROUND


def test_half_of_what_is_missing_is_shed_at_once():
    """Of a refused share of 0.6: 0.3, then half of the rest."""
    model = shedding(load(refused=60, **OF_ALL))
    assert model.rate == pytest.approx(0.3)
    model.observe([load(refused=60, **OF_ALL)], NOBODY)
    assert model.rate == pytest.approx(0.3 + 0.5 * (1.0 - 0.7 * 0.4 - 0.3))


def test_a_limiter_with_few_calls_says_little():
    """One refused call of one is a tenth, not all."""
    assert shedding(load(arrived=1, refused=1)).rate == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.0, Threshold(Rank.BACKGROUND, 0.0)),
        (0.1, Threshold(Rank.BACKGROUND, 0.5)),
        (0.3, Threshold(Rank.LOW, 0.5)),
        (0.6, Threshold(Rank.NORMAL, 0.5)),
        (0.85, Threshold(Rank.HIGH, 0.5)),
        (0.9, Threshold(Rank.CRITICAL, 0.0)),
        (1.0, Threshold(Rank.CRITICAL, 0.0)),
    ],
)
def test_the_share_is_laid_on_the_classes_from_the_lowest(rate, expected):
    """Whole classes, and a part of the last; critical calls never."""
    model = shedding(load(**OF_ALL))
    model.rate = rate
    assert model.threshold == (expected.rank, pytest.approx(expected.share))


def test_calls_that_are_shed_are_still_among_those_who_come():
    """Or the classes that are let in would seem to be all there are, and be shed next."""
    model = shedding(load(refused=50, normal=40, critical=10), times=8, shed=(50, 0, 0, 0, 0))
    assert model.threshold.rank is Rank.NORMAL
    model.rate = 0.4
    assert model.threshold == (Rank.BACKGROUND, pytest.approx(0.8))


def test_who_called_before_is_remembered_for_a_while():
    """An interval in which only critical calls came says little about who comes next."""
    model = shedding(load(refused=60, **OF_ALL))
    model.observe([load(arrived=10, critical=10)], NOBODY)
    assert model.rate == pytest.approx(0.3)
    assert model.threshold == (Rank.LOW, pytest.approx(0.3 * 60 / 10 - 1.0))


def test_it_falls_only_when_all_have_been_calm_for_two_intervals():
    """Between the two bounds nothing changes, and one quiet interval is none."""
    model = shedding(load(refused=60, **OF_ALL))
    before = model.rate
    for between in (load(waiting=4, **OF_ALL), load(**OF_ALL), load(waiting=3, **OF_ALL), load(**OF_ALL)):
        model.observe([load(**OF_ALL), between], NOBODY)
        assert model.rate == before
    model.observe([load(**OF_ALL)], NOBODY)
    assert model.rate == pytest.approx(0.9 * before)
    for _ in range(60):
        model.observe([load(**OF_ALL)], NOBODY)
    assert model.rate == 0.0


def test_a_long_silence_counts_for_as_many_intervals_as_it_had():
    """Nobody came, so nobody was asked; the first after that is not shed for what was an hour ago."""
    model = shedding(load(refused=60, **OF_ALL))
    model.observe([load(arrived=0)], NOBODY, intervals=3_600)
    assert model.rate == 0.0


@given(
    st.lists(
        st.lists(
            st.builds(
                Load,
                arrived=st.integers(0, 500),
                refused=st.integers(0, 600),
                waiting=st.integers(0, 20),
                room=st.integers(0, 10),
                ranks=st.tuples(*[st.integers(0, 100)] * 5),
            ),
            max_size=3,
        ),
        max_size=8,
    )
)
def test_the_rate_is_a_share_and_critical_calls_are_let_in(history):
    """Whatever the limiters went through, in any order."""
    model = Shedding(0.5, 0.25)
    for loads in history:
        model.observe(loads, NOBODY)
        assert 0.0 <= model.rate <= 1.0
        rank, share = model.threshold
        assert 0.0 <= share < 1.0
        assert rank <= Rank.CRITICAL
        assert rank is not Rank.CRITICAL or share == 0.0


@given(st.floats(1.2, 5.0), st.integers(20, 200))
def test_it_settles_where_what_is_let_in_can_be_done(excess, capacity):
    """A limiter that refuses what is above its capacity: after a while about as much is shed as is too much, and it stays there."""
    model, coming, rates = Shedding(0.5, 0.25), int(excess * capacity), []
    for _ in range(120):
        shed = round(model.rate * coming)
        arrived = coming - shed
        model.observe([load(arrived=arrived, refused=max(0, arrived - capacity), normal=arrived)], (0, 0, shed, 0, 0))
        rates.append(model.rate)
    needed = 1.0 - 1.0 / excess
    assert abs(sum(rates[-40:]) / 40 - needed) < 0.12


# -- by hand ----------------------------------------------------------------------------------------------------------------------------


def test_names_of_ranks_are_written_small():
    assert [rank.word for rank in Rank] == ["background", "low", "normal", "high", "critical"]


def test_use_of_long_ago_is_nothing_and_breaks_nothing():
    """After more than 64 half-lives the numbers begin anew, and a clock that goes back behind that finds what was there then."""
    usage = Usage(8, HALF)
    usage.charge("a", 8.0, 0.0)
    assert usage.used("a", HALF) == 4.0
    assert usage.used("a", HALF * 64.0) == pytest.approx(8.0 * 2.0**-64)
    assert usage.used("a", HALF * 65.0) == pytest.approx(8.0 * 2.0**-65)
    usage.charge("b", 2.0, HALF * 66.0)
    assert usage.used("b", HALF * 67.0) == 1.0
    assert usage.used("b", HALF * 60.0) == usage.used("b", HALF * 65.0) == 4.0
    assert 0.0 <= usage.used("b", HALF * 1e6) < 1e-300
    assert usage.used("nobody", 0.0) == 0.0
    assert usage.rank("nobody") == 0.0


def test_accounts_that_are_nobody_s_are_no_tenants():
    """Calls without a tenant, and those that share an account."""
    usage = Usage(1, HALF)
    for account in (None, OTHERS, "a"):
        usage.charge(account, 1.0, 0.0)
    assert usage.tenants == 1
    assert (usage.account(None, 0.0), usage.account("a", 0.0), usage.account("b", 0.0)) == (None, "a", OTHERS)
    assert usage.account("c", 0.0) == OTHERS


@pytest.mark.parametrize(("amount", "kept"), [(0.0009, False), (0.001, True), (0.0011, True)])
def test_accounts_are_kept_from_a_thousandth_on(amount, kept):
    """Which is nothing, whatever is charged."""
    usage = Usage(8, HALF)
    usage.charge("a", amount, 0.0)
    usage.tidy(0.0)
    assert usage.tenants == kept


@pytest.mark.parametrize(("amount", "kept"), [(9.5, False), (10.0, True), (11.0, True)])
def test_accounts_are_kept_from_a_hundredth_of_the_largest_on(amount, kept):
    """The largest has 1,000."""
    usage = Usage(8, HALF)
    usage.charge("large", 1_000.0, 0.0)
    usage.charge("a", amount, 0.0)
    usage.tidy(0.0)
    assert usage.tenants == 1 + kept


def test_accounts_are_looked_through_once_in_an_eighth_of_a_half_life():
    """Not before, and then again."""
    usage = Usage(8, HALF)
    usage.tidy(0.0)
    usage.charge("a", 0.0001, 0.0)
    usage.tidy(HALF / 8.0 - 0.001)
    assert usage.tenants == 1
    usage.tidy(HALF / 8.0)
    assert usage.tenants == 0


def test_a_line_of_nobody_serves_and_displaces_nobody():
    """And whoever never stood in it cannot leave it."""
    queue = Queue(Usage(8, HALF))
    assert (queue.first(), queue.displaced(Rank.CRITICAL), len(queue)) == (None, None, 0)
    one, other = One(Rank.LOW, "a"), One(Rank.LOW, "b")
    queue.add(one)
    assert not queue.remove(other)
    assert not queue.remove(One(Rank.HIGH, "a"))
    assert queue.displaced(Rank.LOW) is None
    assert queue.displaced(Rank.NORMAL) is one
    assert len(queue) == 0


def test_whoever_comes_is_numbered():
    """From one on: tenants with equal use are served by that."""
    queue, ones = Queue(Usage(8, HALF)), [One(Rank.LOW, name) for name in ("b", "a", None)]
    for one in ones:
        queue.add(one)
    assert [one.number for one in ones] == [1, 2, 3]
    assert queue.displaced(Rank.HIGH) is ones[2]
    assert [queue.first(), queue.first(), queue.first()] == [ones[0], ones[1], None]


def test_a_full_line_and_an_empty_one():
    """Just at the start nothing is shed; a full line is all of an overload, and half between them half; no room is no line."""
    assert shedding(load(waiting=5)).rate == 0.0
    assert shedding(load(waiting=10)).rate == 0.5
    assert shedding(load(waiting=20)).rate == 0.5
    assert shedding(load(waiting=6, room=8)).rate == 0.25
    assert shedding(load(waiting=6, room=0)).rate == 0.0
    assert shedding(load(arrived=100, refused=100), load(waiting=6, room=8)).rate == 0.5


def test_with_a_smaller_scale_shedding_begins_earlier_and_ends_later():
    """Both bounds are multiplied by it."""
    model = Shedding(0.5, 0.25)
    model.scale = 0.5
    model.observe([load(waiting=5, room=8)], NOBODY)
    assert model.rate == pytest.approx(0.25)
    for waiting in (2, 2, 2):
        model.observe([load(waiting=waiting, room=10)], NOBODY)
    assert model.rate == pytest.approx(0.25)
    for waiting in (1, 1):
        model.observe([load(waiting=waiting, room=8)], NOBODY)
    assert model.rate == pytest.approx(0.225)


def test_one_refused_call_is_no_calm():
    """The count begins anew, though it is hardly an overload."""
    model = shedding(load(refused=60))
    for refused in (0, 1, 0):
        model.observe([load(arrived=10_000_000, refused=refused)], NOBODY)
    assert model.rate == pytest.approx(0.3, abs=1e-6)
    model.observe([load()], NOBODY)
    assert model.rate == pytest.approx(0.27, abs=1e-6)


def test_a_rate_below_a_hundredth_is_none():
    """And one of just that is one; a long silence is as many steps as it had intervals, and calm from two on."""
    model = Shedding(0.5, 0.25)
    model.rate = 0.0125
    model.observe([load()], NOBODY, intervals=1)
    assert model.rate == 0.0125
    model.observe([load()], NOBODY, intervals=1)
    assert model.rate == pytest.approx(0.01125)
    model.observe([load()], NOBODY, intervals=2)
    assert model.rate == 0.0
    model.rate = 0.5
    model.observe([load()], NOBODY, intervals=3)
    assert model.rate == pytest.approx(0.5 * 0.9**3)


def test_loads_and_shed_calls_name_every_rank():
    """Fewer would be laid on the wrong classes."""
    with pytest.raises(ValueError, match="zip"):
        Shedding(0.5, 0.25).observe([load()], (0, 0, 0, 0))
