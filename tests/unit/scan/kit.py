"""Folders of installed packages and databases of advisories, made for a test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
LOW = "CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N"


def install(folder: Path, name: str, version: str, *more: str, direct: dict[str, Any] | None = None) -> None:
    """Put the metadata of a package there, as an installer does."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *more]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if direct is not None:
        (info / "direct_url.json").write_text(json.dumps(direct), encoding="utf-8")


def advisory(name: str, about: str, *events: dict[str, str], vector: str | None = CRITICAL, **more: Any) -> dict[str, Any]:
    """A record of OSV."""
    said: dict[str, Any] = {
        "id": name,
        "modified": "2026-11-27T00:00:00Z",
        "summary": f"something bad in {about}",
        "affected": [
            {"package": {"name": about, "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": list(events)}]},
        ],
        **more,
    }
    if vector is not None:
        said["severity"] = [{"type": "CVSS_V3", "score": vector}]
    return said


def database(folder: Path, *records: dict[str, Any]) -> Path:
    """Write records as a database has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        (folder / f"{record['id']}.json").write_text(json.dumps(record), encoding="utf-8")
    return folder
