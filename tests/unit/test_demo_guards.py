"""The demo shows guards as they should be."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from somaresil import PipelineWarning
from somaresil.resilience import alive

pytest.importorskip("fastapi")
pytest.importorskip("httpx")


def test_the_guards_of_the_demo_have_no_findings():
    """None of its services warns, and each has guards to speak of."""
    from somaresil.demo.services import gateway, worker
    from somaresil.demo.settings import Settings

    before = set(alive())

    async def main():
        fields = dict.fromkeys(Settings.__dataclass_fields__, "http://127.0.0.1:9")
        settings = Settings(**{**fields, "seed": 7})
        return [service.build(settings) for service in (gateway, worker)]

    with warnings.catch_warnings():
        warnings.simplefilter("error", PipelineWarning)
        apps = asyncio.run(main())
    guards = [guard for resilience in set(alive()) - before for guard in resilience.guards.values()]
    assert len(apps) == 2
    assert {"worker.call", "llm.stream", "memory.write", "llm.invoke"} <= {guard.name for guard in guards}
    assert [finding for guard in guards for finding in guard.description().findings] == []
