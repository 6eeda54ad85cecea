"""Judges and steers where nginx is the router: both versions tell what they have seen, and nginx gets its weights from a file.

No request comes through this process.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

from somaresil import CanaryConfig, CanaryController, Resilience
from somaresil.canary.fleet import FleetJudge
from somaresil.demo.nginx import CANDIDATE, CONTROL, commands, weights_in
from somaresil.demo.services.pilot import ALPHA, EVERY, LOOK_SECONDS, MINIMUM_EVENTS, OBJECTIVES, STEPS, TOLD, operator_of
from somaresil.integrations.evidence import ScrapeSource
from somaresil.integrations.nginx import NginxWeights

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from somaresil.demo.settings import CanarySettings

__all__ = ["TOKEN", "build"]

TOKEN: Final = "SOMARESIL_DEMO_TOKEN"  # noqa: S105 - the name of a variable
PATIENCE: Final = 1.0
STALE: Final = 10.0


def build(settings: CanarySettings) -> ASGIApp:
    """The application."""
    resilience = Resilience("steering", environment="demo", seed=settings.seed)
    resilience.slos.add(*OBJECTIVES)
    config = CanaryConfig(
        name="gateway", bad=TOLD, steps=STEPS, bake=settings.bake, minimum_events=MINIMUM_EVENTS, alpha=ALPHA, interval=LOOK_SECONDS
    )
    judge = FleetJudge(
        resilience,
        name="gateway",
        bad=TOLD,
        sources=[
            ScrapeSource(f"{settings.control}/evidence", role="control", every=EVERY, token_env=TOKEN),
            ScrapeSource(f"{settings.candidate}/evidence", role="candidate", every=EVERY, token_env=TOKEN),
        ],
        levels=config.levels(resilience.slos),
        minimum_events=MINIMUM_EVENTS,
        every=EVERY,
        patience=PATIENCE,
        stale=STALE,
    )
    test, reload = commands(settings.nginx, Path(settings.folder))
    router = NginxWeights(
        weights_in(Path(settings.folder)), stable=CONTROL, candidate=CANDIDATE, test=test, reload=reload, probe=settings.probe
    )
    controller = CanaryController(resilience, config, judge=judge, router=router)
    judge.start()

    async def end() -> None:
        await asyncio.to_thread(controller.stop)
        judge.stop()

    return operator_of(resilience, controller, settings.token, end)
