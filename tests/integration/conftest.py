"""Fixtures around real servers; each skips by name when its server is not installed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.integration.servers import Alertmanager, Prometheus, Redis, find_alertmanager, find_prometheus, find_redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[..., Prometheus]]:
    """Give a factory: `prometheus(["127.0.0.1:9000"])` is a running server that scrapes there, stopped after the test."""
    binary = find_prometheus()
    if binary is None:
        pytest.skip("prometheus is not installed: `apt-get install prometheus`, or run `nox -s tests` as root")
    with ExitStack() as running:
        count = 0

        def start(targets: object, **options: object) -> Prometheus:
            nonlocal count
            count += 1
            return running.enter_context(Prometheus(targets, folder=tmp_path / f"prometheus-{count}", binary=binary, **options))

        yield start


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Callable[..., Alertmanager]]:
    """Give a factory: `alertmanager("http://127.0.0.1:9000")` is a running server that tells that webhook, stopped after the test."""
    binary = find_alertmanager()
    if binary is None:
        pytest.skip("prometheus-alertmanager is not installed: `apt-get install prometheus-alertmanager`, or run `nox -s tests` as root")
    with ExitStack() as running:

        def start(webhook: str, **options: str) -> Alertmanager:
            return running.enter_context(Alertmanager(webhook, folder=tmp_path / "alertmanager", binary=binary, **options))

        yield start


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Redis]:
    """Give a running Redis that is empty, stopped after the test."""
    binary = find_redis()
    if binary is None:
        pytest.skip("redis-server is not installed: `apt-get install redis-server`, or run `nox -s tests` as root")
    with Redis(folder=tmp_path / "redis", binary=binary) as server:
        yield server
