"""What type checkers make of chaos, game days and the control surface, as a service uses them. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import assert_type

from somaresil import ChaosCeilings, ChaosConfig, ChaosExperiment, FaultWindow, Resilience
from somaresil.chaos.audit import AuditEntry
from somaresil.chaos.capabilities import Capability
from somaresil.chaos.conditions import BurnRateAbove
from somaresil.chaos.killswitch import HostSwitch, Reading, read_host, stop_host
from somaresil.chaos.run import ExperimentRun
from somaresil.control import BearerToken, ControlApp, chaos_control
from somaresil.gameday import Experiment, GameDay, GameDayReport, Probe, Remote, to_html
from somaresil.toolkit import ToolkitGameDay, from_toolkit, to_toolkit

resilience = Resilience("typing")
chaos = resilience.chaos

# -- starting and stopping ------------------------------------------------------------------------------------------------------------

chaos.opt_in(ChaosCeilings(duration=timedelta(minutes=5), rate=0.2), switch="off")
run = chaos.arm(ChaosConfig(ChaosExperiment.ERROR_INJECTION, "llm.*", 0.1, 60.0, stop_when=("burning",), dry_run=True), actor="alice")
assert_type(run, ExperimentRun)
assert_type(run.would_have_injected, int)
assert_type(chaos.stop_all(), bool)
assert_type(chaos.engage("incident", actor="alice"), bool)
assert_type(chaos.engaged, str | None)
assert_type(chaos.audit.entries, tuple[AuditEntry, ...])
assert_type(chaos.capabilities(), Mapping[str, Capability])
assert_type(stop_host("gateway"), HostSwitch)
assert_type(read_host("gateway"), Reading)
chaos.condition("burning", BurnRateAbove("api", 14.4))
chaos.register_pool("db", object(), reserve=1)
chaos.arm("llm.*")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# -- control --------------------------------------------------------------------------------------------------------------------------

assert_type(chaos_control(resilience, auth=BearerToken({"alice": "x" * 32})), ControlApp)
chaos_control(resilience)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

# -- game days ------------------------------------------------------------------------------------------------------------------------

probe = Probe("burn_rate", "api", maximum=14.4, when=("before", "after"))
fault = FaultWindow("llm.*", "error", 0, 30, blast_radius="single_instance", candidates=("a", "b"))
day = GameDay(
    "quarterly",
    [Experiment("errors", [fault], hypothesis=[probe])],
    targets=[Remote("https://gateway.internal/_soma/chaos", token_env="TOKEN")],
)
assert_type(GameDay.from_toml("..."), GameDay)


async def played() -> None:
    """What comes of it."""
    report = await day.run(resilience)
    assert_type(report, GameDayReport)
    assert_type(report.exit_code, int)
    assert_type(to_html(report), str)


exported = to_toolkit(day, service="gateway:resilience", omit=True)
assert_type(exported, ToolkitGameDay)
assert_type(exported.omitted, tuple[str, ...])
assert_type(from_toolkit(exported.experiments), GameDay)


def conditions(ask: Callable[[], bool]) -> None:
    """A function is a condition too."""
    chaos.stop_when(ask, "burning")
