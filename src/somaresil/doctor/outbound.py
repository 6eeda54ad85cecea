"""Calls that leave the process: which libraries make them, without a guard, and without an end."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final, NamedTuple

from somaresil.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.doctor.source import Source

__all__ = ["GUARDED_BY", "look_for_calls", "look_for_timeouts"]

_VERBS: Final = frozenset({"get", "post", "put", "patch", "delete", "head", "options", "request", "stream", "send"})
_ANY: Final = frozenset({"*"})

_FUNCTIONS: Final[dict[str, frozenset[str]]] = {
    "httpx": _VERBS,
    "requests": _VERBS,
    "aiohttp": frozenset({"request"}),
    "urllib.request": frozenset({"urlopen"}),
    "urllib3": frozenset({"request"}),
    "litellm": frozenset({"completion", "acompletion", "embedding", "aembedding"}),
}
"""Functions of modules."""
_CLIENTS: Final[dict[str, frozenset[str]]] = {
    "httpx.Client": _VERBS,
    "httpx.AsyncClient": _VERBS,
    "requests.Session": _VERBS,
    "requests.session": _VERBS,
    "aiohttp.ClientSession": _VERBS | {"ws_connect"},
    "urllib3.PoolManager": frozenset({"request", "urlopen"}),
    "openai.OpenAI": frozenset({"create", "parse", "stream", "retrieve", "list"}),
    "openai.AsyncOpenAI": frozenset({"create", "parse", "stream", "retrieve", "list"}),
    "anthropic.Anthropic": frozenset({"create", "stream"}),
    "anthropic.AsyncAnthropic": frozenset({"create", "stream"}),
    "boto3.client": _ANY,
    "redis.Redis": _ANY,
    "redis.from_url": _ANY,
    "redis.asyncio.Redis": _ANY,
    "redis.asyncio.from_url": _ANY,
    "asyncpg.connect": frozenset({"execute", "executemany", "fetch", "fetchrow", "fetchval"}),
    "asyncpg.create_pool": frozenset({"execute", "executemany", "fetch", "fetchrow", "fetchval", "acquire"}),
    "psycopg.connect": frozenset({"execute"}),
    "aiokafka.AIOKafkaProducer": frozenset({"send", "send_and_wait"}),
    "smtplib.SMTP": frozenset({"send_message", "sendmail"}),
}
"""Methods of what is made by these."""
_QUIET: Final = frozenset({"close", "aclose", "start", "stop", "__enter__", "__aenter__", "pipeline", "pubsub", "ping"})
"""Methods that no guard is needed for, of clients of which any other one calls."""

GUARDED_BY: Final[dict[str, str]] = {
    "somaresil.integrations.httpx": "httpx",
    "somaresil.integrations.aiohttp": "aiohttp",
    "somaresil.integrations.redispy": "redis",
    "somaresil.integrations.sqlalchemy": "sqlalchemy",
    "somaresil.integrations.grpc": "grpc",
}
"""Hooks that guard a whole client, and the library whose calls they guard."""


class _Rule(NamedTuple):
    """A call that needs an argument for it to end."""

    argument: str
    position: int | None = None
    """Where it may stand without its name."""
    absent: bool = True
    """Whether it is missing when it is not said: some libraries have one by default."""


_TIMEOUTS: Final[dict[str, _Rule]] = {
    **{f"requests.{verb}": _Rule("timeout") for verb in _VERBS - {"stream", "send"}},
    **{f"requests.{made}.{verb}": _Rule("timeout") for made in ("Session", "session") for verb in _VERBS - {"stream"}},
    **{f"httpx.{verb}": _Rule("timeout", absent=False) for verb in _VERBS - {"send"}},
    **{f"httpx.{made}": _Rule("timeout", absent=False) for made in ("Client", "AsyncClient")},
    **{f"httpx.{made}.{verb}": _Rule("timeout", absent=False) for made in ("Client", "AsyncClient") for verb in _VERBS - {"send"}},
    "urllib.request.urlopen": _Rule("timeout", 2),
    "aiohttp.ClientSession": _Rule("timeout", absent=False),
    "socket.create_connection": _Rule("timeout", 1),
    "smtplib.SMTP": _Rule("timeout"),
    "redis.Redis": _Rule("socket_timeout"),
    "redis.from_url": _Rule("socket_timeout"),
    "redis.asyncio.Redis": _Rule("socket_timeout"),
    "redis.asyncio.from_url": _Rule("socket_timeout"),
    "psycopg.connect": _Rule("connect_timeout"),
    "asyncpg.create_pool": _Rule("command_timeout"),
}


def look_for_calls(source: Source, guarded: frozenset[str]) -> Iterator[Finding]:
    """Calls without a guard; ``guarded``: libraries whose clients a hook guards somewhere in the project."""
    for call in source.calls:
        name = source.name_of(call.func)
        if name is None or not _leaves(name) or name.partition(".")[0] in guarded or source.guarded(call):
            continue
        yield Finding(source.path, call.lineno, call.col_offset + 1, "SR101", name)


def _leaves(name: str) -> bool:
    owner, _, method = name.rpartition(".")
    if method in _FUNCTIONS.get(owner, ()):
        return True
    for client, methods in _CLIENTS.items():
        # openai.OpenAI.chat.completions.create is one of its methods too.
        if name.startswith(f"{client}.") and (method in methods or (methods is _ANY and method not in _QUIET)):
            return True
    return False


def look_for_timeouts(source: Source) -> Iterator[Finding]:
    """Calls that may never end."""
    for call in source.calls:
        name = source.name_of(call.func)
        rule = _TIMEOUTS.get(name or "")
        if rule is None or name is None or any(keyword.arg is None for keyword in call.keywords):
            # With ** nobody can tell.
            continue
        given = next((keyword.value for keyword in call.keywords if keyword.arg == rule.argument), None)
        if given is None and rule.position is not None and len(call.args) > rule.position:
            given = call.args[rule.position]
        if given is None:
            if rule.absent and not _cut_by_guard(source, call):
                yield Finding(source.path, call.lineno, call.col_offset + 1, "SR201", f"{name}({rule.argument}=...)")
        elif _is_off(given):
            yield Finding(source.path, call.lineno, call.col_offset + 1, "SR202", f"{name}({rule.argument}={ast.unparse(given)})")


def _is_off(given: ast.expr) -> bool:
    """``None``, or a ``ClientTimeout(total=None)``."""
    if isinstance(given, ast.Constant):
        return given.value is None
    if isinstance(given, ast.Call):
        totals = [keyword.value for keyword in given.keywords if keyword.arg == "total"]
        return bool(totals) and _is_off(totals[0]) and not any(keyword.arg != "total" for keyword in given.keywords)
    return False


def _cut_by_guard(source: Source, call: ast.Call) -> bool:
    """Whether a guard around it ends it: one with a timeout around a coroutine function. A thread cannot be cut off."""
    function = source.function_of(call)
    if not isinstance(function, ast.AsyncFunctionDef):
        return False
    guards = [decorator for decorator in function.decorator_list if isinstance(decorator, ast.Call) and source.is_guard(decorator)]
    return any(keyword.arg == "timeout" for guard in guards for keyword in guard.keywords)
