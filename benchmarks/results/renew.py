"""Measures anew and writes docs/performance.md, whose tables are made from the JSON files beside this script.

python benchmarks/results/renew.py                 measures everything that the page shows, and writes the page; wants an idle machine
python benchmarks/results/renew.py overhead slo    only these
python benchmarks/results/renew.py --quick         briefly: the page then says that its figures are rough
python benchmarks/results/renew.py --page          measures nothing, writes the page from the files
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent
ROOT = RESULTS.parents[1]
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->"
SHOWN = ("overhead", "scale", "slo", "asgi", "half_open", "pool", "logs")
"""What the page shows, in its order; of each that has a file."""


def measured(name: str, *, quick: bool) -> dict[str, Any]:
    """Run a benchmark, and give its figures with when and by which command they came about."""
    command = ["python", f"benchmarks/{name}.py", "--json", *(["--quick"] if quick else [])]
    done = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return {"date": datetime.now(UTC).date().isoformat(), "command": " ".join(command), **json.loads(done.stdout)}


def stored() -> dict[str, dict[str, Any]]:
    """The results that there are, in the order of the page."""
    files = {name: RESULTS / f"{name}.json" for name in SHOWN}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}


def figures(results: dict[str, dict[str, Any]]) -> str:
    """The part of the page between its markers."""
    return "\n".join(section for name, result in results.items() for section in _section(name, result))


def _section(name: str, result: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{package} {version}" for package, version in result["versions"].items() if version != "not installed")
    machine = ", ".join(f"{value} {key}" if key == "cores" else f"{key} {value}" for key, value in result["machine"].items())
    lines = [f"### {name}", "", result["title"], ""]
    lines += [f"{result['date']}, `{result['command']}`; {machine}; {versions}.", ""]
    if result["quick"]:
        lines += ["**Rough**: measured briefly, on a machine that did other work too. The ratios are of more worth than the figures.", ""]
    for title, rows in result["tables"].items():
        columns = list(next(iter(rows.values()), {}))
        lines += [f"| {title} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
        lines += [f"| {row} | {' | '.join(shown(cells[column]) for column in columns)} |" for row, cells in rows.items()]
        lines += [""]
    if result["ratios"]:
        lines += ["| ratio | seen | limit | |", "|---|---:|---:|---|"]
        for ratio in result["ratios"]:
            verdict = "met" if ratio["met"] else "could not be measured" if ratio["value"] is None else "**not met**"
            lines += [f"| {ratio['name']} | {shown(ratio['value'])} {ratio['unit']} | {shown(ratio['limit'])} | {verdict} |"]
        lines += [""]
    if result["missing"]:
        missing = ", ".join(result["missing"])
        lines += [f"Not there to be measured: {missing}.", ""]
    return lines


def shown(value: float | str | None) -> str:
    """A figure with as many digits as it is worth."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value or "-"
    if value and abs(value) < 0.01:
        return f"{value:.1g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def written(page: str, results: dict[str, dict[str, Any]]) -> str:
    """The page with these figures in it."""
    before, begin, rest = page.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"no place for the figures, {len(inside)} characters after the first marker")
    return before + begin + "\n" + figures(results) + "\n" + end + after


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure anew, and write docs/performance.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(SHOWN)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="measure briefly")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(SHOWN):
        parser.error(f"not on the page: {', '.join(sorted(unknown))}")
    for name in () if arguments.page else arguments.names or SHOWN:
        print(name, flush=True)
        text = json.dumps(measured(name, quick=arguments.quick), indent=2)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), stored()), encoding="utf-8")


if __name__ == "__main__":
    main()
