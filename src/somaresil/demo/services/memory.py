"""The memory store: SQLite behind HTTP. A write carries an idempotency key, so writing twice stores once and retrying is safe."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

    from somaresil.demo.settings import Settings

__all__ = ["build"]


def build(settings: Settings) -> Starlette:
    """The application."""
    store = sqlite3.connect(settings.database, isolation_level=None)
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("PRAGMA synchronous = NORMAL")
    store.execute("CREATE TABLE memory (key TEXT PRIMARY KEY, session TEXT NOT NULL, text TEXT NOT NULL, answer TEXT NOT NULL)")
    repeated = 0

    async def write(request: Request) -> Response:
        nonlocal repeated
        entry = await request.json()
        # On the event loop, because one insert into a local file is quicker than the way to a thread and back.
        cursor = store.execute(
            "INSERT OR IGNORE INTO memory VALUES (?, ?, ?, ?)",
            (request.headers["idempotency-key"], entry["session"], entry["text"], entry["answer"]),
        )
        repeated += cursor.rowcount == 0
        return JSONResponse({"stored": True, "repeated": cursor.rowcount == 0})

    async def keys(_: Request) -> Response:
        rows = store.execute("SELECT key FROM memory").fetchall()
        return JSONResponse({"keys": [row[0] for row in rows], "repeated": repeated})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            store.close()

    return Starlette(
        routes=[Route("/entries", write, methods=["POST"]), Route("/keys", keys), Route("/health", health)],
        lifespan=lifespan,
    )
