"""A bill of materials in CycloneDX 1.6: the same environment gives the same bytes."""

from __future__ import annotations

import json
import os
import uuid
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from somaresil._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from somaresil.scan.inventory import Package

__all__ = ["bill_of_materials"]

_OURS: Final = uuid.UUID("6b3c1f0e-6a54-5c1e-9a0e-2f1f0b7f0b5d")
"""Of which serial numbers of bills are made, by what stands in them."""


def bill_of_materials(packages: Iterable[Package], *, name: str, version: str | None = None) -> str:
    """The bill as JSON, with what each package needs of the others. ``name`` is what the environment is for.

    A time stands in it only when ``SOURCE_DATE_EPOCH`` says one. Raises ``ImportError`` without ``cyclonedx-python-lib``.
    """
    # Its classes are made by decorators that type checkers do not see through.
    bom: Any = import_module("cyclonedx.model.bom")
    parts: Any = import_module("cyclonedx.model.component")
    output: Any = import_module("cyclonedx.output.json")
    purls: Any = import_module("packageurl")
    component, kind = parts.Component, parts.ComponentType
    listed = sorted(packages, key=lambda package: package.name)
    serial = uuid.uuid5(_OURS, "\n".join([name, version or "", *(package.purl for package in listed)]))
    bill = bom.Bom(serial_number=serial)
    root = component(name=name, version=version, type=kind.APPLICATION, bom_ref=f"environment:{name}")
    tool = component(name="somaresil", version=__version__, type=kind.APPLICATION, bom_ref="tool:somaresil")
    bill.metadata.component = root
    bill.metadata.tools.components.add(tool)
    components = {
        package.name: component(
            name=package.name,
            version=package.version,
            type=kind.LIBRARY,
            bom_ref=package.purl,
            purl=purls.PackageURL("pypi", None, package.name, package.version),
            description=package.summary or None,
            licenses=_licences(package),
        )
        for package in listed
    }
    bill.components.update(components.values())
    needed = {name for package in listed for name in package.needs}
    bill.register_dependency(root, [each for name, each in components.items() if name not in needed])
    for package in listed:
        bill.register_dependency(components[package.name], [components[name] for name in package.needs if name in components])
    said: dict[str, Any] = json.loads(output.JsonV1Dot6(bill).output_as_string())
    said["metadata"].pop("timestamp", None)
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch.isdigit():
        said["metadata"]["timestamp"] = datetime.fromtimestamp(int(epoch), UTC).isoformat()
    return json.dumps(said, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _licences(package: Package) -> list[Any]:
    licences: Any = import_module("cyclonedx.model.license")
    spdx: Any = import_module("cyclonedx.spdx")
    if package.licence is None:
        return []
    known = spdx.fixup_id(package.licence)
    if known is not None:
        return [licences.DisjunctiveLicense(id=known)]
    if spdx.is_expression(package.licence):
        return [licences.LicenseExpression(package.licence)]
    return [licences.DisjunctiveLicense(name=package.licence)]
