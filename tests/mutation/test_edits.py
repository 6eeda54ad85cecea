"""The small wrong changes: each is one, each is undone, and they come in the same order every time."""

from __future__ import annotations

import ast

from tests.mutation.edits import mutants
from tests.mutation.groups import GROUPS, ROOT
from tests.mutation.run import SURVIVED, table

SOURCE = '''
LIMIT = 3

class Door:
    @property
    def open(self) -> "bool":
        """Never changed."""
        return self.tries < 3 and not self.shut

def knock(door, times: int = 2):
    if door.open:
        raise ValueError("it is open already")
    door.tries += times
    return f"{door.tries + 1} tries"  # pragma: no cover
'''


def made():
    tree = ast.parse(SOURCE)
    return [(mutant.name, ast.unparse(tree)) for mutant in mutants(tree, SOURCE)]


def test_each_change_is_another_program_and_the_names_differ():
    names, programs = zip(*made(), strict=True)
    whole = ast.unparse(ast.parse(SOURCE))
    assert len(set(names)) == len(names)
    assert len(set(programs)) == len(programs)
    assert whole not in programs
    assert all(compile(program, "x", "exec") for program in programs)


def test_what_is_changed_is_what_decides_and_not_what_people_read():
    names = [name for name, _ in made()]
    assert names == [
        "Door.open: return self.tries < 3 and (not self.shut) -> return None",
        "Door.open: self.tries < 3 and (not self.shut) -> self.tries < 3 or not self.shut",
        "Door.open: self.tries < 3 -> self.tries <= 3",
        "Door.open: 3 -> 4",
        "Door.open: not self.shut -> self.shut",
        "knock: door.open -> not door.open",
        "knock: raise ValueError('it is open already') -> pass",
        "knock: door.tries += times -> door.tries -= times",
    ]


def test_they_come_in_the_same_order_and_leave_the_tree_as_it_was():
    tree = ast.parse(SOURCE)
    before = ast.dump(tree)
    list(mutants(tree, SOURCE))
    assert ast.dump(tree) == before
    assert made() == made()


def test_every_group_has_files_and_tests_that_are_there():
    for name, group in GROUPS.items():
        assert group.files(), name
        for test in group.tests:
            assert (ROOT / test).exists(), (name, test)


def test_a_group_below_the_floor_is_not_good_and_says_what_was_missed(capsys):
    good = [("gate/x.py", 1, f"f: {number} -> 0", "killed") for number in range(19)]
    assert table("gate", [*good, ("gate/x.py", 7, "f: a -> b", SURVIVED)], 95.0, 3.0)
    assert not table("gate", [*good[:9], ("gate/x.py", 7, "f: a -> b", SURVIVED)], 95.0, 3.0)
    assert "gate/x.py:7: f: a -> b (survived)" in capsys.readouterr().out
    assert not table("gate", [], 95.0, 3.0)
