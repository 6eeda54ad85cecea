"""The arguments of ``somaresil scan``. What it does is loaded when it is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add ``scan`` to the subcommands of argparse."""
    scan = commands.add_parser(
        "scan",
        help="look up what is installed: advisories, licences, a bill of materials",
        description=(
            "Takes stock of what is installed, looks every package up at a service with OSV's API or in a copy of its database, and closes "
            "the gate for what is found. What could not be looked up is not passed: the answer is 2."
        ),
        epilog="exit codes: 0 everything was looked up, and nothing counts; 1 something was found; 2 not known, or it could not be done",
    )
    what = scan.add_mutually_exclusive_group()
    what.add_argument("--python", metavar="FILE", help="the interpreter whose packages are meant (default: this one)")
    what.add_argument("--path", action="append", metavar="DIR", help="a folder of installed packages; may be given several times")
    where = scan.add_mutually_exclusive_group()
    where.add_argument("--osv-url", metavar="URL", help="a service with OSV's API, or a mirror (default: https://api.osv.dev)")
    where.add_argument("--database", metavar="PATH", help="a copy of OSV's database: a folder, or a .zip such as all.zip of PyPI")
    where.add_argument("--sbom-only", action="store_true", help="look nothing up, and say so: only --sbom is written")
    scan.add_argument("--max-age", type=float, default=7.0, metavar="DAYS", help="an older --database is not known (default: %(default)g)")
    scan.add_argument(
        "--fail-on",
        choices=("low", "medium", "high", "critical"),
        default="low",
        help="the least severity that counts (default: %(default)s); what nobody has rated always does",
    )
    scan.add_argument("--policy", metavar="FILE", help="waivers with reasons and ends, and allowed licences, as .toml or .yaml")
    scan.add_argument("--sbom", metavar="FILE", help="write a bill of materials (CycloneDX 1.6, JSON)")
    scan.add_argument("--sarif", metavar="FILE", help="write the findings as SARIF 2.1.0")
    scan.add_argument(
        "--sarif-location", default="pyproject.toml", metavar="FILE", help="the file they are shown beside (default: %(default)s)"
    )
    scan.add_argument("--name", default="environment", help="what the environment is for, in the bill (default: %(default)s)")
    scan.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="for each answer (default: %(default)g)")
    scan.add_argument("--json", action="store_true", help="print JSON")
    scan.set_defaults(run=_run, parser=scan)


def _run(arguments: argparse.Namespace) -> int:
    from somaresil.scan.command import run

    return run(arguments)
