"""Places are even, always the same, and those of two canaries have nothing to do with each other."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from hashlib import blake2b
from zlib import crc32

import pytest

from somaresil.model.mix import WHOLE, Draws, Mixer

USERS = [f"user-{number}" for number in range(20_000)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("salt", ["answer", "search", "a", ""])
def test_a_share_of_the_users_is_a_share_of_the_places(share, salt):
    """Within five standard deviations of what chance would give."""
    place = Mixer(salt)
    there = sum(place(user) < share * WHOLE for user in USERS)
    assert abs(there - share * len(USERS)) < 5.0 * (len(USERS) * share * (1.0 - share)) ** 0.5


def test_two_canaries_do_not_share_their_users():
    """A tenth of a tenth is with both candidates."""
    for one, other in itertools.combinations([Mixer(salt) for salt in ("answer", "search", "rank", "embed")], 2):
        both = sum(one(user) < WHOLE // 10 and other(user) < WHOLE // 10 for user in USERS)
        assert 100 < both < 300


def test_places_by_chance_are_even_and_do_not_hang_together():
    """Neither one by one nor with the one before."""
    draw = Draws("seed")
    places = [draw() for _ in range(20_000)]
    assert all(0 <= place < WHOLE for place in places)
    low = [place < WHOLE // 10 for place in places]
    assert 1_790 < sum(low) < 2_210
    for lag in (1, 2, 3, 7, 10, 100):
        assert 130 < sum(a and b for a, b in zip(low, low[lag:], strict=False)) < 270


def test_a_place_is_the_same_in_every_process():
    """Whatever its hash seed is."""
    code = "from somaresil.model.mix import Draws, Mixer; print(Mixer('answer')('ada'), Draws('seed')())"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment | {"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {f"{Mixer('answer')('ada')} {Draws('seed')()}\n"}
    assert Mixer("answer")("\ud800") < WHOLE


def test_places_are_pinned():
    """Replicas of different releases must send the same user to the same side; and a seed repeats its draws."""
    digest = blake2b(b"answer", digest_size=16).digest()
    factor, add = int.from_bytes(digest[:8], "big") | 1, int.from_bytes(digest[8:], "big")
    for user in ("ada", "", "grace"):
        assert Mixer("answer")(user) == (crc32(user.encode()) * factor + add) % 2**64 // 2**32
    draw = Draws("seed")
    places = [draw() for _ in range(40)]
    blocks = [blake2b(b"seed" + number.to_bytes(8, "little")).digest() for number in range(3)]
    assert places == [int.from_bytes(block[at : at + 4], "little") for block in blocks for at in range(0, 64, 4)][:40]


def test_what_is_no_text_has_its_place_as_well():
    """Lone surrogates come in with broken headers: as salt, key and seed."""
    assert 0 <= Mixer("\ud800")("a") < WHOLE
    assert Mixer("\ud800")("a") != Mixer("\ud801")("a")
    assert 0 <= Draws("\ud800")() < WHOLE
