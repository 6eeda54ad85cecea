"""What ``somaresil scan`` does, in the order in which it is told."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from somaresil.errors import ConfigurationError
from somaresil.safefile import replace_with
from somaresil.scan.inventory import Inventory, paths_of, take_inventory
from somaresil.scan.policy import Policy, findings_of, read_policy
from somaresil.scan.report import GOOD, UNKNOWN, Report, as_data, as_sarif, as_text
from somaresil.scan.sources import DEFAULT_SERVICE, Database, Found, LookupFailedError, Service

if TYPE_CHECKING:
    import argparse

__all__ = ["run", "scan"]

_TOLD: Final = 5


def run(arguments: argparse.Namespace) -> int:
    """Do it and print it. Returns the exit code."""
    now = datetime.now(UTC)
    try:
        inventory = _inventory(arguments)
        policy = Policy() if arguments.policy is None else read_policy(arguments.policy, today=now.date())
        if arguments.sbom is not None:
            from somaresil.scan.sbom import bill_of_materials

            _write(arguments.sbom, bill_of_materials(inventory.packages, name=arguments.name))
        if arguments.sbom_only:
            return _only_the_bill(arguments, inventory)
        report = scan(inventory, policy, arguments, now)
        if arguments.sarif is not None:
            _write(arguments.sarif, as_sarif(report, file=arguments.sarif_location))
    except (ConfigurationError, LookupFailedError, OSError, ValueError) as wrong:
        print(f"somaresil scan: {wrong}", file=sys.stderr)
        return UNKNOWN
    except ImportError as absent:
        print(f"somaresil scan: {absent.name or absent} is not installed: pip install 'somaresil[scan]'", file=sys.stderr)
        return UNKNOWN
    print(json.dumps(as_data(report), indent=2) if arguments.json else as_text(report))
    return report.code


def _inventory(arguments: argparse.Namespace) -> Inventory:
    if arguments.path is not None:
        missing = [path for path in arguments.path if not Path(path).is_dir()]
        if missing:
            raise ValueError(f"--path {missing[0]}: there is no such folder, and nothing in it can be looked up")
        return take_inventory(arguments.path)
    if arguments.python is not None:
        return take_inventory(paths_of(arguments.python))
    return take_inventory()


def _only_the_bill(arguments: argparse.Namespace, inventory: Inventory) -> int:
    if arguments.sbom is None:
        raise ValueError("--sbom-only needs --sbom FILE: otherwise there is nothing to do")
    for folder in inventory.unreadable[:_TOLD]:
        print(f"somaresil scan: cannot tell what {folder} is", file=sys.stderr)
    print(f"{len(inventory.packages)} packages in {arguments.sbom}; nothing was looked up")
    return UNKNOWN if inventory.unreadable else GOOD


def scan(inventory: Inventory, policy: Policy, arguments: argparse.Namespace, now: datetime) -> Report:
    """Look everything up and decide. What is not known is part of the report, and not an exception."""
    unknown = [f"what is {folder}? Its name or version cannot be read" for folder in inventory.unreadable]
    if not inventory.packages:
        unknown.append("no package was found: nothing was looked up")
    found = Found({}, "", None)
    try:
        found = _source(arguments).look_up(inventory.packages)
    except LookupFailedError as failed:
        unknown.append(str(failed))
    else:
        unknown += _doubts(found, inventory, arguments.max_age, now)
    findings = findings_of(inventory.packages, found.advisories, policy, fail_on=arguments.fail_on, today=now.date())
    used = {finding.waiver for finding in findings}
    return Report(
        inventory=inventory,
        where=found.where,
        newest=found.newest,
        records=found.records,
        findings=findings,
        unused=tuple(waiver for waiver in policy.waivers if waiver not in used),
        licences=tuple((package, wrong) for package in inventory.packages if (wrong := policy.licence_problem(package)) is not None),
        unknown=tuple(unknown),
        fail_on=arguments.fail_on,
    )


def _source(arguments: argparse.Namespace) -> Service | Database:
    if not math.isfinite(arguments.max_age) or arguments.max_age <= 0.0:
        raise LookupFailedError(f"--max-age {arguments.max_age}: expected days, more than 0")
    if arguments.database is not None:
        return Database(arguments.database)
    return Service(arguments.osv_url or DEFAULT_SERVICE, timeout=arguments.timeout)


def _doubts(found: Found, inventory: Inventory, days: float, now: datetime) -> list[str]:
    doubts = [f"{package.name} was not looked up" for package in inventory.packages if package.name not in found.advisories]
    if found.records is not None:
        if found.newest is None:
            doubts.append(f"{found.where}: no record says when it was changed, so nobody knows how old it is")
        elif found.newest < now - timedelta(days=days):
            old = (now - found.newest) / timedelta(days=1)
            doubts.append(f"{found.where}: the newest record is {old:.0f} days old, more than --max-age {days:g}: get a newer copy")
    return doubts


def _write(path: str, text: str) -> None:
    try:
        replace_with(Path(path), text.encode())
    except OSError as broken:
        raise ValueError(f"{path} cannot be written: {broken}") from None
