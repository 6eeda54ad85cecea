"""Small projects in which a pytest of their own runs: what test modules of the pytest plugin share."""

from __future__ import annotations

import somaresil
import somaresil.testing

# A pytest run in this process forgets what it imported for the first time, while what was there before it keeps the objects of it.
for package in (somaresil, somaresil.testing):
    for public in package.__all__:
        getattr(package, public)

INI = """
[pytest]
addopts = --strict-markers --strict-config -p no:cacheprovider
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
SERVICE = """
    import asyncio
    from somaresil import CircuitBreaker, Resilience

    resilience = Resilience("service", environment="test")

    @resilience.guard("llm.invoke", breaker=CircuitBreaker(minimum_calls=3, open_jitter=0.0), timeout=2.0)
    async def invoke():
        await asyncio.sleep(0.1)
        return "answer"

    @resilience.guard("memory.write")
    def write():
        return "row"
"""


def ini(project, *lines: str) -> None:
    """Add lines to the ini file."""
    project.makefile(".ini", pytest=INI + "\n".join(lines))


def service(project) -> None:
    """A service that is made when it is imported, and an ini file that names it."""
    project.makepyfile(service=SERVICE)
    ini(project, "pythonpath = .", "somaresil_resilience = service:resilience")


def run(project, *options: str):
    """Run pytest: in this process, unless xdist is to start others."""
    return (project.runpytest_subprocess if "-n" in options else project.runpytest_inprocess)(*options)
