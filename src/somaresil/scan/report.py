"""What the scan says: for people, for programs, and as SARIF 2.1.0 for sites that show findings beside the code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil._version import __version__
from somaresil.eventtext import harmless

if TYPE_CHECKING:
    from datetime import datetime

    from somaresil.scan.inventory import Inventory, Package
    from somaresil.scan.policy import Finding, Waiver

__all__ = ["FOUND", "GOOD", "UNKNOWN", "Report", "as_data", "as_sarif", "as_text"]

GOOD, FOUND, UNKNOWN = 0, 1, 2
"""Exit codes."""
_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS: Final = {"low": "note", "medium": "warning", "high": "error", "critical": "error"}
_LONGEST: Final = 160


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found, and what is decided."""

    inventory: Inventory
    where: str
    newest: datetime | None
    records: int | None
    findings: tuple[Finding, ...]
    unused: tuple[Waiver, ...]
    """Waivers that let nothing pass: expired, or for what is not there."""
    licences: tuple[tuple[Package, str], ...]
    """Packages with licences that are not allowed, and what is wrong."""
    unknown: tuple[str, ...]
    """Why it is not known whether all is well."""
    fail_on: str

    @property
    def code(self) -> int:
        """What was found goes before what is not known: both keep the gate closed."""
        if self.licences or any(finding.counts for finding in self.findings):
            return FOUND
        return UNKNOWN if self.unknown else GOOD


def as_text(report: Report) -> str:
    """For people. What comes from advisories and packages cannot steer a terminal."""
    verdict = {GOOD: "good", FOUND: "found", UNKNOWN: "not known"}[report.code]
    counted = sum(finding.counts for finding in report.findings)
    packages = len(report.inventory.packages)
    lines = [f"{verdict}: {packages} packages, {counted} advisories that count, {len(report.findings) - counted} that do not"]
    if report.where:
        age = f", newest record of {report.newest:%Y-%m-%d}" if report.newest is not None else ""
        records = f" ({report.records} records{age})" if report.records is not None else ""
        lines.append(f"looked up at {report.where}{records}; fails from {report.fail_on} on; what nobody has rated counts as the worst")
    for finding in report.findings:
        lines += ["", *_finding(finding)]
    for package, wrong in report.licences:
        lines += ["", f"licence: {package.name} {package.version}: {harmless(wrong, _LONGEST)}"]
    for waiver in report.unused:
        lines += ["", f"waiver {waiver.id} (until {waiver.until}) lets nothing pass: it is over, or for what is not here"]
    for why in report.unknown:
        lines += ["", f"not known: {harmless(why, 600)}"]
    return "\n".join(lines)


def _finding(finding: Finding) -> list[str]:
    advisory, package = finding.advisory, finding.package
    rating = "not rated" if advisory.level is None else advisory.level + ("" if advisory.score is None else f" {advisory.score:g}")
    others = f" ({', '.join(advisory.aliases[:3])})" if advisory.aliases else ""
    mark = "counts" if finding.counts else "waived" if finding.waiver is not None else "below the limit"
    lines = [f"{package.name} {package.version}: {advisory.id}{others}, {rating}: {mark}", f"  {harmless(advisory.summary, _LONGEST)}"]
    fixed = advisory.fixed_in(package.name)
    lines.append(
        f"  mended in {', '.join(harmless(version, 40) for version in fixed[-3:])}" if fixed else "  no version is known that mends it"
    )
    if finding.waiver is not None:
        lines.append(f"  waived until {finding.waiver.until}: {harmless(finding.waiver.reason, _LONGEST)}")
    return lines


def as_data(report: Report) -> dict[str, Any]:
    """For programs."""
    return {
        "version": 1,
        "verdict": {GOOD: "good", FOUND: "found", UNKNOWN: "unknown"}[report.code],
        "fail_on": report.fail_on,
        "source": {
            "where": report.where,
            "newest": None if report.newest is None else report.newest.isoformat(),
            "records": report.records,
        },
        "packages": [
            {"name": each.name, "version": each.version, "licence": each.licence, "origin": each.origin}
            for each in report.inventory.packages
        ],
        "findings": [
            {
                "package": finding.package.name,
                "installed": finding.package.version,
                "id": finding.advisory.id,
                "aliases": list(finding.advisory.aliases),
                "severity": finding.advisory.level,
                "score": finding.advisory.score,
                "summary": finding.advisory.summary,
                "fixed_in": list(finding.advisory.fixed_in(finding.package.name)),
                "counts": finding.counts,
                "waiver": None if finding.waiver is None else {"reason": finding.waiver.reason, "until": finding.waiver.until.isoformat()},
            }
            for finding in report.findings
        ],
        "licences": [{"package": package.name, "licence": package.licence, "problem": wrong} for package, wrong in report.licences],
        "unused_waivers": [{"id": waiver.id, "until": waiver.until.isoformat()} for waiver in report.unused],
        "unknown": list(report.unknown),
    }


def as_sarif(report: Report, *, file: str) -> str:
    """SARIF 2.1.0; ``file`` is the file that findings are shown beside, for packages have no line. What is not known is a failed run."""
    rules = {finding.advisory.id: _rule(finding) for finding in report.findings}
    results = [_result(finding, sorted(rules).index(finding.advisory.id), file) for finding in report.findings]
    run = {
        "tool": {
            "driver": {
                "name": "somaresil scan",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [rules[name] for name in sorted(rules)],
            }
        },
        "invocations": [
            {
                "executionSuccessful": not report.unknown,
                "toolExecutionNotifications": [{"level": "error", "message": {"text": why}} for why in report.unknown],
            }
        ],
        "results": results,
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, sort_keys=True) + "\n"


def _rule(finding: Finding) -> dict[str, Any]:
    advisory = finding.advisory
    # Without a score the worst is assumed here too.
    score = (
        {"low": 3.9, "medium": 6.9, "high": 8.9, "critical": 10.0, None: 10.0}[advisory.level] if advisory.score is None else advisory.score
    )
    return {
        "id": advisory.id,
        "shortDescription": {"text": advisory.summary or advisory.id},
        "helpUri": f"https://osv.dev/vulnerability/{advisory.id}",
        "properties": {"security-severity": f"{score:.1f}", "tags": ["security", *advisory.aliases]},
    }


def _result(finding: Finding, index: int, file: str) -> dict[str, Any]:
    advisory, package = finding.advisory, finding.package
    fixed = advisory.fixed_in(package.name)
    advice = f"mended in {fixed[-1]}" if fixed else "no version is known that mends it"
    told: dict[str, Any] = {
        "ruleId": advisory.id,
        "ruleIndex": index,
        "level": _LEVELS.get(advisory.level or "critical", "error"),
        "message": {"text": f"{package.name} {package.version}: {advisory.summary or advisory.id}; {advice}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": file}, "region": {"startLine": 1}}}],
        "partialFingerprints": {"package/v1": hashlib.sha256(f"{advisory.id} {package.name}".encode()).hexdigest()},
    }
    if finding.waiver is not None:
        text = f"until {finding.waiver.until}: {finding.waiver.reason}"
        told["suppressions"] = [{"kind": "external", "status": "accepted", "justification": text}]
    return told
