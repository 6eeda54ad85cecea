"""Many pods asked at once: one GET each, within a time and a size, in one thread.

No redirects, no proxies of the environment, no connection that is kept. A name is looked up at each reading, and each of its addresses is a
pod: so it is with the headless services of Kubernetes. What a pod says in words is not passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

__all__ = ["LARGEST", "Address", "ask_pods"]

LARGEST: Final = 262_144
"""Bytes of an answer that are read."""
_LONGEST_HEAD: Final = 16_384
_AT_ONCE: Final = 64
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


@dataclass(frozen=True, slots=True)
class Address:
    """One pod."""

    url: str
    """As it was configured; its host is the name that is asked for."""
    ip: str
    """Where that was found."""

    @property
    def name(self) -> str:
        """For people."""
        parts = urlsplit(self.url)
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{host}:{_port(self.url)}{parts.path}"


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def ask_pods(urls: tuple[str, ...], most: int, timeout: float, headers: dict[str, str]) -> dict[str, bytes | str]:
    """Bodies by the names of pods; a text says why there is none.

    Takes no longer than twice ``timeout``, once for the names and once for the pods; but the lookup of a name that hangs has the timeout of
    the system. To be called in a thread that has no loop.
    """
    return asyncio.run(_ask_all(urls, most, timeout, headers))


async def _ask_all(urls: tuple[str, ...], most: int, seconds: float, headers: dict[str, str]) -> dict[str, bytes | str]:
    answers: dict[str, bytes | str] = {}
    found: list[Address] = []
    for url, resolved in zip(urls, await asyncio.gather(*(_resolve(url, seconds) for url in urls)), strict=True):
        if isinstance(resolved, str):
            answers[urlsplit(url).hostname or url] = resolved
        else:
            found += resolved
    if len(found) > most:
        answers["too many"] = f"{len(found)} pods, and {most} are asked at most"
    limit = asyncio.Semaphore(_AT_ONCE)
    tasks = {address.name: asyncio.create_task(_ask(address, headers, limit)) for address in found[:most]}
    if tasks:
        await asyncio.wait(tasks.values(), timeout=seconds)
    for name, task in tasks.items():
        if not task.done():
            task.cancel()
            answers[name] = f"no answer within {seconds:g} s"
        else:
            error = task.exception()
            answers[name] = task.result() if error is None else _why(error)
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    return answers


def _why(error: BaseException) -> str:
    return str(error) if type(error) is ValueError else f"{type(error).__name__}: {getattr(error, 'strerror', None) or 'no answer'}"


async def _resolve(url: str, seconds: float) -> list[Address] | str:
    loop = asyncio.get_running_loop()
    host = urlsplit(url).hostname or ""
    try:
        async with asyncio.timeout(seconds):
            found = await loop.getaddrinfo(host, _port(url), type=socket.SOCK_STREAM)
    except TimeoutError:
        return f"its name was not found within {seconds:g} s"
    except (OSError, UnicodeError):
        return "its name was not found"
    return [Address(url, ip) for ip in dict.fromkeys(str(address[0]) for *_, address in found)]


async def _ask(address: Address, headers: dict[str, str], limit: asyncio.Semaphore) -> bytes:
    parts = urlsplit(address.url)
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    async with limit:
        reader, writer = await asyncio.open_connection(
            address.ip, _port(address.url), ssl=secure, server_hostname=parts.hostname if secure else None, limit=_LONGEST_HEAD
        )
        try:
            lines = [f"GET {parts.path or '/'} HTTP/1.0", f"host: {parts.netloc}", "connection: close", "user-agent: somaresil"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            await writer.drain()
            return await _answer(reader)
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise ValueError("its answer is no HTTP") from None
    status = _STATUS.match(head)
    if status is None:
        raise ValueError("its answer is no HTTP")
    if status[1] != b"200":
        raise ValueError(f"it answers {int(status[1])}")
    if b"\r\ntransfer-encoding:" in head.lower() or b"\r\ncontent-encoding:" in head.lower():
        raise ValueError("its answer is encoded, which was not asked for")
    length = re.search(rb"\r\ncontent-length: *([0-9]{1,12}) *\r\n", head, re.IGNORECASE)
    body = bytearray()
    while chunk := await reader.read(65_536):
        body += chunk
        if len(body) > LARGEST:
            raise ValueError(f"its answer has more than {LARGEST} bytes")
    if length is not None and len(body) != int(length[1]):
        raise ValueError("its answer was cut off")
    return bytes(body)
