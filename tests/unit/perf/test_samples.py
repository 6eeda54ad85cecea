"""Series, results and machines: what they accept, and how they are put together."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from somaresil.errors import ConfigurationError
from somaresil.perf import Machine, RunResult, Series, merge, this_machine
from somaresil.perf.samples import UNITS, base_unit, better_of


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"name": ""}, "Series.name"),
        ({"name": "a\x1bb"}, "Series.name"),
        ({"name": "x" * 501}, "Series.name"),
        ({"unit": "ms"}, "Series.unit"),
        ({"unit": ""}, "Series.unit"),
        ({"values": ()}, "Series.values"),
        ({"values": (1.0, math.nan)}, "Series.values[1]"),
        ({"values": (math.inf,)}, "Series.values[0]"),
        ({"values": (-1.0,)}, "Series.values[0]"),
        ({"values": (True,)}, "Series.values[0]"),
        ({"better": "smaller"}, "Series.better"),
        ({"metric": "a b"}, "Series.metric"),
        ({"rounding": -1.0}, "Series.rounding"),
    ],
)
def test_what_is_no_series_is_named(wrong, path):
    """Each mistake is one problem with its place."""
    given = {"name": "a", "unit": "seconds", "values": (1.0,), **wrong}
    with pytest.raises(ConfigurationError) as refused:
        Series(**given)
    assert [problem.path for problem in refused.value.problems] == [path]


def test_a_result_is_not_empty_and_names_each_series_once():
    """An empty result would compare as equal to anything."""
    with pytest.raises(ConfigurationError, match="an empty result proves nothing"):
        RunResult((), "out.json")
    one = Series("a", "seconds", (1.0,))
    with pytest.raises(ConfigurationError, match="it is there twice"):
        RunResult((one, one), "out.json")
    assert RunResult((one, Series("a", "seconds", (1.0,), metric="p95")), "out.json").get("a", "p95").values == (1.0,)


def test_runs_are_merged_by_name_and_metric():
    """Values follow one another in the order of the runs."""
    runs = [RunResult((Series("a", "seconds", (value,), rounding=value / 10),), "f") for value in (1.0, 3.0, 2.0)]
    merged = merge(runs)[("a", "duration")]
    assert merged.values == (1.0, 3.0, 2.0)
    assert merged.rounding == 0.3


def test_mixed_units_are_refused_with_their_source():
    """Seconds and bytes are never in one sample."""
    runs = [RunResult((Series("a", unit, (1.0,)),), unit) for unit in ("seconds", "bytes")]
    with pytest.raises(ConfigurationError, match=r"bytes: a \(duration\) = 'bytes, lower is better': expected seconds"):
        merge(runs)


def test_every_unit_that_others_write_leads_to_a_base_unit():
    """And a base unit is itself."""
    for unit in UNITS:
        assert base_unit(unit) == (unit, 1.0)
    assert base_unit("ms") == ("seconds", 1e-3)
    assert base_unit("parsec") is None
    assert (better_of("throughput"), better_of("p95")) == ("higher", "lower")


def test_a_time_is_shown_in_utc_if_it_is_one():
    """A time that no calendar has is not shown."""
    one = (Series("a", "seconds", (1.0,)),)
    assert RunResult(one, "f", at=0.0).when == "1970-01-01T00:00:00Z"
    assert RunResult(one, "f", at=1e300).when == RunResult(one, "f").when == ""


def test_machines_differ_in_what_both_know():
    """An unknown processor is no difference, and control characters are not kept."""
    one = Machine("Xeon\x1b[1m", 2, "CPython 3.11.7", "Linux x86_64")
    assert one.cpu == "Xeon [1m"
    assert one.differences(Machine("", 4, "CPython 3.11.7")) == ("cores: 2 and 4",)
    assert one.fingerprint == Machine("Xeon [1m", 2, "CPython 3.11.7", "Linux x86_64").fingerprint != Machine().fingerprint
    assert str(Machine("", 1)) == "1 core"
    assert str(Machine()) == "not known"


def test_this_machine_says_nothing_of_whose_it_is():
    """No host name is in it."""
    import socket

    machine = this_machine()
    assert machine.cores >= 1
    assert machine.python.endswith(".".join(map(str, sys.version_info[:3])))
    assert socket.gethostname() not in str(machine)


def test_perf_is_imported_in_no_time():
    """No numbers library, no network, no processes: importing the models of results costs next to nothing."""
    program = "import sys, somaresil.perf; print([m for m in ('numpy', 'scipy', 'asyncio', 'subprocess', 'ssl') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
