"""What is installed: names, versions, licences, where each came from, and what it needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Inventory", "Package", "normalized", "paths_of", "take_inventory"]

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")
_REQUIREMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_LICENCE: Final = 100
_ASK: Final = "import json, sys; print(json.dumps([path for path in sys.path if path]))"
_SLOWEST: Final = 30.0
_CLASSIFIERS: Final = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Zope Public License": "ZPL-2.1",
    "zlib/libpng License": "Zlib",
}
"""Classifiers by the SPDX name that they most likely mean. "BSD License" does not say how many clauses: the stricter is written."""


@dataclass(frozen=True, slots=True)
class Package:
    """One distribution that is installed."""

    name: str
    """Normalized as the index does it (PEP 503)."""
    version: str
    licence: str | None
    """An SPDX expression where one can be told, else what the package says, in short; None: it says nothing."""
    origin: str
    """``index``, or ``folder``, ``vcs``, ``archive`` when it was installed from an address (PEP 610)."""
    needs: tuple[str, ...]
    """Normalized names of what it requires here, extras left out."""
    summary: str = ""

    @property
    def purl(self) -> str:
        """The package URL of it."""
        return f"pkg:pypi/{self.name}@{self.version.replace('+', '%2B')}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was found, and what could not be read."""

    packages: tuple[Package, ...]
    """By name; of several versions of one the first on the path, which is what is imported."""
    unreadable: tuple[str, ...]
    """Distributions without a name or a version that can be told, by the folder of their metadata."""


def normalized(name: str) -> str:
    """A name as the index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def paths_of(python: str) -> list[str]:
    """Where another interpreter looks for packages. Raises ``ValueError`` when it cannot be asked."""
    try:
        said = _asked(python)
    except (OSError, subprocess.SubprocessError, ValueError) as broken:
        raise ValueError(f"{python} cannot be asked where it looks for packages: {broken}") from None
    if not isinstance(said, list) or not all(isinstance(path, str) for path in said):
        raise ValueError(f"{python} did not say where it looks for packages")
    return said


def _asked(python: str) -> Any:
    done = subprocess.run([python, "-I", "-c", _ASK], capture_output=True, text=True, timeout=_SLOWEST, check=False)  # noqa: S603 - the user's own
    if done.returncode:
        raise ValueError(f"it ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return json.loads(done.stdout)


def take_inventory(paths: Sequence[str] | None = None) -> Inventory:
    """What is installed in these folders; None: where this interpreter looks."""
    found: dict[str, Package] = {}
    unreadable: list[str] = []
    for distribution in metadata.distributions(path=list(sys.path if paths is None else paths)):
        package = _package(distribution)
        if package is None:
            unreadable.append(str(getattr(distribution, "_path", distribution)))
        else:
            found.setdefault(package.name, package)
    return Inventory(tuple(found[name] for name in sorted(found)), tuple(sorted(unreadable)))


def _package(distribution: metadata.Distribution) -> Package | None:
    try:
        said: Any = distribution.metadata
        name, version = said.get("Name"), said.get("Version")
        if not name or not version or not _NAME.fullmatch(name) or not version.isprintable():
            return None
        return Package(
            normalized(name),
            version.strip(),
            _licence(said),
            _origin(distribution),
            _needs(distribution.requires or ()),
            (said.get("Summary") or "")[:200],
        )
    except Exception:  # noqa: BLE001 - metadata that raise are metadata that cannot be read, whatever it is
        return None


def _licence(said: Any) -> str | None:
    expression = said.get("License-Expression")
    if expression:
        return str(expression)[:_LONGEST_LICENCE]
    classified = [line.rpartition(" :: ")[2] for line in said.get_all("Classifier") or () if line.startswith("License :: OSI Approved :: ")]
    known = sorted({_CLASSIFIERS[name] for name in classified if name in _CLASSIFIERS})
    if known:
        # Several licences of one package are a choice or a sum: nobody can tell from classifiers, so it is taken for the sum.
        return " AND ".join(known)
    text = " ".join(str(said.get("License") or "").split())
    # Some put the whole text there.
    return text if 0 < len(text) <= _LONGEST_LICENCE else None


def _origin(distribution: metadata.Distribution) -> str:
    text = distribution.read_text("direct_url.json")
    if text is None:
        return "index"
    said = json.loads(text)
    return "vcs" if "vcs_info" in said else "archive" if "archive_info" in said else "folder"


def _needs(requirements: Iterable[str]) -> tuple[str, ...]:
    from packaging.requirements import InvalidRequirement, Requirement

    names = set()
    for line in requirements:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            found = _REQUIREMENT.match(line.strip())
            if found is not None:
                names.add(normalized(found[0]))
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            names.add(normalized(requirement.name))
    return tuple(sorted(names))
