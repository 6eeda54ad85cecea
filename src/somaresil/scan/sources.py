"""Where advisories come from: a service that speaks OSV's API, or a copy of its database in a folder or an archive.

Nothing that is answered is trusted to be small, whole or to the point. What cannot be read ends the lookup: a record that was left out may
be the one that matters.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from somaresil.scan.advisories import ID, Advisory, affects, parse_advisory
from somaresil.scan.inventory import normalized

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from somaresil.scan.inventory import Package

__all__ = ["DEFAULT_SERVICE", "Database", "Found", "LookupFailedError", "Service", "Source"]

DEFAULT_SERVICE: Final = "https://api.osv.dev"
_LARGEST_ANSWER: Final = 64 * 1024 * 1024
_LARGEST_RECORD: Final = 8 * 1024 * 1024
_MOST_RECORDS: Final = 1_000_000
_MOST_PAGES: Final = 100
_AT_ONCE: Final = 500
_TOLD: Final = 5


class LookupFailedError(Exception):
    """Nothing is known: what happened, and what to do."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a source knows about packages."""

    advisories: dict[str, tuple[Advisory, ...]]
    """By the name of a package; an empty tuple says that it was looked up."""
    where: str
    newest: datetime | None
    """When the newest record of a database was changed; None: a service, whose age nobody can tell."""
    records: int | None = None


class Source(Protocol):
    """Who knows."""

    def look_up(self, packages: Sequence[Package]) -> Found:
        """What is known about each of them. Raises :class:`LookupFailedError`."""
        ...


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Service:
    """A service with OSV's API, version 1: ``/v1/querybatch`` and ``/v1/vulns/ID``."""

    def __init__(self, url: str = DEFAULT_SERVICE, *, timeout: float = 30.0) -> None:
        """Raises :class:`LookupFailedError` for what is no address. Plain http is for loopback: an answer on the way can be emptied."""
        parts = urllib.parse.urlsplit(url)
        loopback = parts.hostname in {"localhost", "127.0.0.1", "::1"}
        if parts.scheme not in ({"http", "https"} if loopback else {"https"}) or not parts.hostname or parts.username:
            raise LookupFailedError(f"{url}: expected https://host (http:// for this machine alone), without a password in it")
        self._url, self._timeout = url.rstrip("/"), timeout

    def look_up(self, packages: Sequence[Package]) -> Found:
        """See :class:`Source`."""
        known: dict[str, Advisory] = {}
        advisories: dict[str, tuple[Advisory, ...]] = {}
        for start in range(0, len(packages), _AT_ONCE):
            some = packages[start : start + _AT_ONCE]
            for package, names in zip(some, self._ids(some), strict=True):
                for name in names:
                    if name not in known:
                        known[name] = self._advisory(name)
                advisories[package.name] = tuple(known[name] for name in sorted(names) if not known[name].withdrawn)
        return Found(advisories, self._url, None)

    def _ids(self, packages: Sequence[Package]) -> list[set[str]]:
        names: list[set[str]] = [set() for _ in packages]
        open_queries = {number: self._query(package) for number, package in enumerate(packages)}
        for _ in range(_MOST_PAGES):
            if not open_queries:
                return names
            numbers = list(open_queries)
            said = self._ask("/v1/querybatch", {"queries": list(open_queries.values())})
            results = said.get("results")
            if not isinstance(results, list) or len(results) != len(numbers):
                raise LookupFailedError(f"{self._url} was asked about {len(numbers)} packages and did not answer for each")
            for number, result in zip(numbers, results, strict=True):
                found, token = self._of(result)
                names[number] |= found
                if token is None:
                    del open_queries[number]
                else:
                    open_queries[number] = {**open_queries[number], "page_token": token}
        raise LookupFailedError(f"{self._url} goes on after {_MOST_PAGES} pages of one answer")

    @staticmethod
    def _query(package: Package) -> dict[str, Any]:
        return {"package": {"name": package.name, "ecosystem": "PyPI"}, "version": package.version}

    def _of(self, result: Any) -> tuple[set[str], str | None]:
        entries = result.get("vulns") or [] if isinstance(result, dict) else None
        if not isinstance(entries, list):
            raise LookupFailedError(f"{self._url} gave an answer that is none of OSV")
        names = [entry.get("id") if isinstance(entry, dict) else None for entry in entries]
        if not all(isinstance(name, str) and ID.fullmatch(name) for name in names):
            raise LookupFailedError(f"{self._url} gave advisories without ids")
        token = result.get("next_page_token")
        return {str(name) for name in names}, token if isinstance(token, str) and token else None

    def _advisory(self, name: str) -> Advisory:
        try:
            found = parse_advisory(self._ask(f"/v1/vulns/{name}"))
        except ValueError as broken:
            raise LookupFailedError(f"{self._url}/v1/vulns/{name}: {broken}") from None
        return found

    def _ask(self, path: str, data: Any = None) -> dict[str, Any]:
        body = None if data is None else json.dumps(data).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "somaresil"}
        request = urllib.request.Request(self._url + path, body, headers)  # noqa: S310 - the scheme was looked at
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self._timeout) as answer:
                text = answer.read(_LARGEST_ANSWER + 1)
            if len(text) > _LARGEST_ANSWER:
                raise LookupFailedError(f"{self._url}{path}: more than {_LARGEST_ANSWER} bytes")
            said = json.loads(text)
        except urllib.error.HTTPError as refused:
            refused.close()
            raise LookupFailedError(f"{self._url}{path}: status {refused.code}") from None
        except (OSError, ValueError, RecursionError) as broken:
            reason = getattr(broken, "reason", broken)
            raise LookupFailedError(f"{self._url}{path}: {type(broken).__name__}: {str(reason)[:200]}") from None
        if not isinstance(said, dict):
            raise LookupFailedError(f"{self._url}{path}: the answer is none of OSV")
        return said


class Database:
    """A copy of OSV's database: a folder of ``.json`` or ``.yaml`` records, however deep, or a ``.zip`` of them."""

    def __init__(self, path: str | Path) -> None:
        """Nothing is read yet."""
        self._path = Path(path)

    def look_up(self, packages: Sequence[Package]) -> Found:
        """See :class:`Source`."""
        wanted = {package.name: package for package in packages}
        found: dict[str, list[Advisory]] = {package.name: [] for package in packages}
        newest: datetime | None = None
        records = 0
        broken: list[str] = []
        for name, text in self._records():
            records += 1
            if records > _MOST_RECORDS:
                raise LookupFailedError(f"{self._path}: more than {_MOST_RECORDS} records")
            try:
                advisory = parse_advisory(_load(name, text))
            except (ValueError, RecursionError) as wrong:
                broken.append(f"{name}: {str(wrong)[:120]}")
                continue
            if advisory.modified is not None:
                newest = advisory.modified if newest is None else max(newest, advisory.modified)
            for about in _about(advisory):
                if about in wanted and advisory not in found[about] and affects(advisory, wanted[about]):
                    found[about].append(advisory)
        if broken:
            more = f" and {len(broken) - _TOLD} more" if len(broken) > _TOLD else ""
            raise LookupFailedError(f"{self._path}: records that cannot be read: {'; '.join(broken[:_TOLD])}{more}")
        if not records:
            raise LookupFailedError(f"{self._path}: no record of OSV (.json, .yaml) in it")
        ordered = {name: tuple(sorted(each, key=lambda advisory: advisory.id)) for name, each in found.items()}
        return Found(ordered, str(self._path), newest, records)

    def _records(self) -> Iterator[tuple[str, bytes]]:
        try:
            if self._path.is_dir():
                for path in sorted(self._path.rglob("*")):
                    if path.suffix in _ENDINGS and path.is_file():
                        if path.stat().st_size > _LARGEST_RECORD:
                            raise LookupFailedError(f"{path}: more than {_LARGEST_RECORD} bytes")
                        yield str(path.relative_to(self._path)), path.read_bytes()
                return
            with zipfile.ZipFile(self._path) as archive:
                for entry in archive.infolist():
                    if Path(entry.filename).suffix in _ENDINGS:
                        if entry.file_size > _LARGEST_RECORD:
                            raise LookupFailedError(f"{self._path}: {entry.filename}: more than {_LARGEST_RECORD} bytes")
                        yield entry.filename, _unpacked(archive, entry)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as unreadable:
            raise LookupFailedError(f"{self._path}: {type(unreadable).__name__}: {str(unreadable)[:200]}") from None


_ENDINGS: Final = frozenset({".json", ".yaml", ".yml"})


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(entry)
    except Exception as damaged:  # noqa: BLE001 - each way of packing has errors of its own (zlib.error, LZMAError, EOFError)
        raise zipfile.BadZipFile(f"{entry.filename}: {damaged}") from None


def _load(name: str, text: bytes) -> Any:
    if name.endswith(".json"):
        return json.loads(text)
    try:
        yaml: Any = import_module("yaml")
    except ImportError:
        raise LookupFailedError("records in YAML need PyYAML: pip install 'somaresil[yaml]'") from None
    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as broken:
        raise ValueError(" ".join(str(broken).split())) from None


def _about(advisory: Advisory) -> set[str]:
    """Names of the packages that it is about."""
    packages = [entry.get("package") for entry in advisory.affected]
    return {normalized(str(each.get("name", ""))) for each in packages if isinstance(each, dict)}
