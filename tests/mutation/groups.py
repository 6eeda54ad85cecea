"""What is changed in which group, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["GROUPS", "ROOT", "Group"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Group:
    """Files of ``src/somaresil``, or patterns of them, and tests."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]

    def files(self) -> list[Path]:
        """Give all that is changed, in one order."""
        found = {file for each in self.sources for file in (ROOT / "src" / "somaresil").glob(each) if file.name != "__init__.py"}
        return sorted(found)


_CHAOS = (
    "test_blast_radius",
    "test_bounds",
    "test_conditions",
    "test_config",
    "test_injection",
    "test_killswitch",
    "test_labels",
    "test_lease",
    "test_machine",
    "test_permission",
    "test_plan",
    "test_plan_run",
    "test_process",
    "test_request_plans",
    "test_requests",
    "test_safety",
    "test_switch_files",
    "test_token",
    "test_triggers",
    "test_trip",
    "test_uses",
    "test_vetting",
)

GROUPS: dict[str, Group] = {
    # Whether a pipeline may release.
    "gate": Group(("gate/*.py",), ("tests/unit/gate",)),
    # Who may look and who may steer: bearer tokens, how often one may be wrong, tokens of pages, and where they are asked for.
    "tokens": Group(
        ("mounted/auth.py", "mounted/request.py", "control/app.py", "dashboard/people.py", "dashboard/tokens.py"),
        (
            "tests/unit/control",
            "tests/unit/dashboard_app/test_controls.py",
            "tests/unit/dashboard_app/test_people.py",
            "tests/unit/mounted",
        ),
    ),
    # Whether, where, when and how much may be injected, by whom, and what ends it.
    "chaos": Group(
        tuple(
            f"chaos/{name}.py"
            for name in (
                "arming",
                "bounds",
                "conditions",
                "killswitch",
                "overlap",
                "permission",
                "safety",
                "token",
                "triggers",
                "uses",
                "vetting",
            )
        ),
        (*(f"tests/unit/chaos/{name}.py" for name in _CHAOS), "tests/unit/gameday/test_groups.py"),
    ),
    # All the arithmetic that decides: pure, and without a clock of its own.
    "model": Group(
        ("model/*.py",), ("tests/unit/model", "tests/property/test_ledger_tracks.py", "tests/property/test_ratelimit_ledger.py")
    ),
}
