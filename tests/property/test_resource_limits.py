"""How much of a resource may be taken: the lowest bound decides, and a reserve is always kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from somaresil.chaos.resources.limits import (
    DESCRIPTORS_KEPT,
    MIB,
    Bound,
    chosen,
    core_bounds,
    descriptor_bounds,
    descriptor_plan,
    disk_bounds,
    lowest,
    memory_bounds,
)

BYTES = st.integers(0, 1 << 44)
AMOUNTS = st.none() | st.integers(1, 1 << 44)
BOUNDS = st.lists(st.builds(Bound, st.integers(-100, 100), st.just("why")), min_size=1)


@given(AMOUNTS, st.integers(1, 200), BOUNDS)
def test_who_names_an_amount_gets_that_or_a_refusal(amount, usual, bounds):
    """Nothing above any bound is ever taken, and a named amount is never changed."""
    taken, refused = chosen(amount, usual, bounds)
    if amount is not None:
        assert taken == amount
    assert (refused is None) == (0 < taken <= min(bound.most for bound in bounds))


@given(AMOUNTS, BYTES, BYTES, BYTES, st.lists(st.tuples(BYTES, BYTES)), st.none() | st.tuples(BYTES, BYTES))
def test_memory_that_is_taken_leaves_a_reserve_everywhere(amount, most, available, total, groups, space):
    bounds = memory_bounds(most, 0, available=available, total=total, groups=groups, address_space=space)
    taken, refused = chosen(amount, 64 * MIB, bounds)
    if refused is None:
        assert taken <= most
        assert available - taken >= max(64 * MIB, total / 20)
        assert all(limit - used - taken >= max(64 * MIB, limit / 20) for limit, used in groups)
        assert space is None or space[0] - space[1] - taken >= 64 * MIB


@given(BYTES, BYTES, BYTES, st.none() | BYTES)
def test_disk_space_that_is_taken_leaves_a_reserve(most, free, total, largest):
    taken, refused = chosen(None, 64 * MIB, disk_bounds(most, 0, free=free, total=total, largest_file=largest))
    if refused is None:
        assert taken <= most
        assert free - taken >= max(256 * MIB, total / 20)
        assert largest is None or taken <= largest


@given(BYTES, st.integers(0, 1 << 40))
def test_a_ceiling_is_for_all_experiments_together(most, held):
    assert lowest(disk_bounds(most, held, free=1 << 60, total=0)).most == most - held


@given(st.floats(0.1, 1000), st.floats(0.1, 1000))
def test_a_tenth_of_the_cores_stays_free(most, cores):
    assert lowest(core_bounds(most, 0, cores=cores)).most == min(most, cores * 0.9)


@st.composite
def tables(draw):
    """A soft limit, and which numbers are in use; some may lie above it, for limits may be lowered."""
    soft = draw(st.integers(1, 200))
    used = draw(st.sets(st.integers(0, 250), min_size=1))
    return soft, used


@given(tables(), st.data())
def test_so_many_descriptors_are_gone_as_were_asked_for(table, data):
    soft, used = table
    free = soft - sum(number < soft for number in used)
    take = data.draw(st.integers(0, free))
    plan = descriptor_plan(soft, max(used), take)
    left = plan.soft - sum(number < plan.soft for number in used) - plan.copies
    assert left == free - take
    assert plan.copies >= 0
    assert plan.soft <= soft


@given(st.none() | st.integers(0, 300), st.integers(1, 300), st.integers(0, 300))
def test_some_descriptors_always_stay_free(most, soft, used):
    taken, refused = chosen(None, float("inf"), descriptor_bounds(most, soft=soft, used=used))
    if refused is None:
        assert soft - used - taken >= DESCRIPTORS_KEPT
        assert most is None or taken <= most
