"""Orders for routers that keep them in a file: what is written, what is refused, what hostile words become. No router runs here."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil import ConfigurationError
from somaresil.canary.render.proxies import UNITS, split_clients
from somaresil.canary.router import RouterError
from somaresil.integrations._weights import Order, Refused, WeightFile, share_of, written
from somaresil.integrations.haproxy import HAProxyWeights
from somaresil.integrations.nginx import NginxWeights


def nginx(path, **options):
    return NginxWeights(path, **{"stable": "old", "candidate": "new", "test": ("true",), "reload": ("true",), **options})


@given(st.builds(Order, st.integers(0, UNITS), st.text(), st.text(), st.booleans(), st.text(), st.integers(0)))
def test_an_order_is_one_line_of_a_comment_and_is_read_back(order):
    """Whatever stands in a version or a reason."""
    line = order.line()
    assert line.startswith("#")
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert written(line + "\nrest") == order


@given(st.floats(0.0, 1.0))
def test_a_share_is_told_to_a_hundredth_of_a_percent_or_refused(share):
    """Nothing that is more than nothing is rounded to nothing, and nothing short of everything to everything."""
    try:
        units = share_of(share)
    except RouterError:
        assert 0.0 < share < 0.0001 or 0.9999 < share < 1.0
    else:
        assert abs(units / UNITS - share) <= 0.5 / UNITS + 1e-12
        assert (units > 0, units < UNITS) == (share > 0.0, share < 1.0)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_what_is_no_share_is_refused(share, tmp_path):
    """And the file is not touched."""
    with pytest.raises(RouterError, match="no share"):
        nginx(tmp_path / "w").set_weight(share)
    assert not (tmp_path / "w").exists()


@given(st.integers(0, UNITS))
def test_the_block_says_the_share(units):
    """nginx reads two decimals, refuses 0 % and wants the rest to be a star."""
    block = split_clients(units, "old", "new", None, "", "somaresil")
    rows = dict(reversed(row.split()) for row in re.findall(r"^    (.*);$", block, re.MULTILINE))
    assert rows == {0: {"old": "*"}, UNITS: {"new": "*"}}.get(units, {"new": f"{units / 100:.2f}%", "old": "*"})


def test_a_version_cannot_break_out_of_its_line(tmp_path):
    """A line end, a quote, a variable: they stay in the comment."""
    router = nginx(tmp_path / "w")
    version = "v2\n}; load_module /evil.so; $uri \" ' \u2028"
    router.start(version)
    lines = (tmp_path / "w").read_text(encoding="utf-8").split("\n")
    assert [line for line in lines if "evil" in line] == [lines[0]]
    assert router.status().version == version


def test_a_file_of_somebody_else_is_left_alone(tmp_path):
    """Not ours, broken, writable by others, a link: refused with what is wrong, and still there."""
    path = tmp_path / "w"
    for content in (
        "server { }\n",
        "# somaresil {}x\n",
        '# somaresil {"units": 1}\n',
        '# somaresil {"units": 20000}\n',
        '# somaresil {"u": 1}\n',
    ):
        path.write_text(content, encoding="utf-8")
        path.chmod(0o600)
        if '"units": 1}' in content:
            assert nginx(path).status().weight == 0.0001
            continue
        with pytest.raises(RouterError, match="left alone: it was not written by somaresil"):
            nginx(path).set_weight(0.5)
        assert path.read_text(encoding="utf-8") == content
    path.unlink()
    nginx(path).start("v2")
    path.chmod(0o666)
    with pytest.raises(RouterError, match="others may write"):
        nginx(path).promote()
    # To take the traffic away is right whoever wrote it, and makes the file ours again.
    nginx(path).abort("it fails")
    assert nginx(path).status().phase == "Aborted"
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(RouterError, match="symbolic link"):
        nginx(tmp_path / "link").promote()


def test_the_end_of_a_candidate_is_the_end(tmp_path):
    """After abort it gets nothing until it is started anew; after promote nothing less; start of the same version begins at nothing."""
    router = nginx(tmp_path / "w")
    with pytest.raises(RouterError, match=r"start\(\) writes it"):
        router.status()
    router.start("v2")
    router.set_weight(0.3)
    router.abort("it fails")
    router.set_weight(0.0)
    with pytest.raises(RouterError, match="was aborted"):
        router.set_weight(0.1)
    router.start("v2")
    assert router.status().weight == 0.0
    router.set_weight(0.5)
    router.suspend()
    assert (router.status().phase, router.status().weight) == ("Paused", 0.5)
    router.promote()
    router.set_weight(1.0)
    with pytest.raises(RouterError, match="was promoted"):
        router.set_weight(0.5)
    router.abort("after all")
    assert router.status().weight == 0.0


def test_a_test_that_fails_puts_the_former_file_back(tmp_path):
    """Also one that took traffic away: nginx could not be reloaded with it."""
    path = tmp_path / "w"
    nginx(path).start("v2")
    nginx(path).set_weight(0.5)
    before = path.read_bytes()
    refusing = nginx(path, test=("sh", "-c", "echo 'broken in line 7' >&2; exit 1"))
    with pytest.raises(RouterError, match="broken in line 7"):
        refusing.abort("it fails")
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(RouterError, match="broken in line 7"):
        refusing.start("v2")
    # Without the file nginx could not start any more.
    assert "* old;" in path.read_text(encoding="utf-8")


class Unreliable(WeightFile):
    """A router that takes the file, or does not, or takes it and says that it did not."""

    def __init__(self, path, running):
        super().__init__(path)
        self.running = running
        self.moods = iter(())

    def _text(self, order):
        return f"{order.units}\n"

    def _take(self, order):
        mood = next(self.moods, "well")
        if mood == "refused":
            raise Refused("it would not start with that")
        if mood != "deaf":
            self._tell(order)
        if mood != "well":
            raise RouterError(mood)

    def _tell(self, order):
        self.running.append(int(self._path.read_text(encoding="utf-8").splitlines()[1]))

    def _taken(self, order):
        return order


ORDERS = st.one_of(
    st.tuples(st.just("set_weight"), st.integers(0, UNITS).map(lambda units: units / UNITS)),
    st.sampled_from([("start", "v2"), ("start", "v3"), ("suspend",), ("resume",), ("promote",), ("abort", "it fails")]),
)
MOODS = st.sampled_from(["well", "well", "deaf", "lying", "refused"])


@settings(max_examples=150)
@given(st.lists(st.tuples(ORDERS, MOODS), max_size=20))
def test_whatever_fails_the_file_never_gives_more_than_was_taken(orders):
    """An order that failed never leaves a larger share behind than before, nor does the router go on with one that it had taken; one that
    took traffic away stands in the file, unless the router would not start with it; an aborted candidate gets nothing but by start."""
    with tempfile.TemporaryDirectory() as folder:
        running = [0]
        router = Unreliable(Path(folder) / "w", running)
        router.start("v1")
        for (name, *arguments), mood in orders:
            before = router.status()
            router.moods = iter([mood])
            try:
                getattr(router, name)(*arguments)
            except RouterError:
                after = router.status()
                assert after.weight <= before.weight
                if name == "abort" and mood != "refused":
                    assert (after.weight, after.phase) == (0.0, "Aborted")
                if mood == "lying" and next(router.moods, None) is None:
                    assert running[-1] == round(after.weight * UNITS)
            else:
                after = router.status()
                assert {"set_weight": arguments and arguments[0], "promote": 1.0, "abort": 0.0}.get(name, after.weight) == after.weight
            if before.phase == "Aborted" and name not in {"start", "promote"}:
                assert after.weight == 0.0
            kept = router.status()
            assert written((Path(folder) / "w").read_text(encoding="utf-8")).share == kept.weight


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    """With the path and the reason."""
    with pytest.raises(RouterError, match="cannot be written: No such file"):
        nginx(tmp_path / "absent" / "w").start("v2")


def test_a_command_that_hangs_ends(tmp_path):
    """After its patience."""
    with pytest.raises(RouterError, match=r"took longer than 0\.1 s"):
        nginx(tmp_path / "w", test=("sleep", "30"), patience=0.1).start("v2")


def test_all_problems_are_told_at_once():
    """With their paths; nothing is written."""
    with pytest.raises(ConfigurationError) as refused:
        NginxWeights(
            "w",
            stable="a; }",
            candidate="a; }",
            key="user",
            salt='"',
            variable="$x",
            test=[],
            reload="nginx",
            probe="file:///x",
            patience=0,
        )
    found = [problem.path.removeprefix("NginxWeights.") for problem in refused.value.problems]
    assert found == ["stable", "candidate", "candidate", "key", "salt", "variable", "test", "reload", "probe", "patience"]
    with pytest.raises(ConfigurationError) as refused:
        HAProxyWeights("a b", name="x;y", socket=None, patience=-1)
    assert [problem.path for problem in refused.value.problems] == [f"HAProxyWeights.{name}" for name in ("name", "map_file", "patience")]
    assert not Path("w").exists()
