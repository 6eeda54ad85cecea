"""What ``somaresil canary`` does, but for ``run``."""

from __future__ import annotations

import json
import sys
import urllib.parse
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.canary_command import URL
from somaresil.clock import SystemClock
from somaresil.errors import ConfigurationError
from somaresil.remote import DONE, IMPOSSIBLE, Impossible, Remote, clean, tell

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from somaresil.typing import Clock

__all__ = ["FAIL", "PASS", "UNKNOWN", "run"]

PASS, FAIL, UNKNOWN = 0, 1, 2
_CODES: Final = {"pass": PASS, "fail": FAIL}
_LONGEST_WAIT: Final = 7 * 86_400.0
_SHORTEST_INTERVAL: Final = 0.1
_OF_SNAPSHOT: Final = ("canary", "version", "checksum", "phase", "weight", "taken", "paused", "baked", "reason", "at")
_COLUMNS: Final = ("canary", "version", "phase", "weight", "verdict", "events", "reason")


def run(arguments: argparse.Namespace, clock: Clock | None = None) -> int:
    """Do it, and give the exit code."""
    try:
        return int(_ACTIONS[arguments.action](arguments, clock or SystemClock()))
    except (Impossible, ConfigurationError) as why:
        print(f"somaresil canary: {_lines_of(why)}", file=sys.stderr)
        return IMPOSSIBLE
    except Exception as defect:  # noqa: BLE001 - whatever it is, it is no reason to go on
        print(f"somaresil canary: {type(defect).__qualname__} in the command itself: {clean(str(defect))[:500]}", file=sys.stderr)
        return IMPOSSIBLE


def _lines_of(why: Exception) -> str:
    return "\n".join(clean(line) for line in str(why).splitlines())


def _remote(arguments: argparse.Namespace) -> Remote:
    return Remote("verdict app", url=arguments.url, url_variable=URL, token_variable=arguments.token_env, timeout=arguments.timeout)


def _path(name: str) -> str:
    return f"/canaries/{urllib.parse.quote(name, safe='/')}"


# -- asking somebody --------------------------------------------------------------------------------------------------------------------


def _status(arguments: argparse.Namespace, _: Clock) -> int:
    if arguments.snapshot is not None:
        return _of_snapshot(arguments)
    remote = _remote(arguments)
    status, said = remote.ask("GET", "/canaries" if arguments.name is None else _path(arguments.name))
    shown = (lambda: _table(said["canaries"])) if arguments.name is None else (lambda: _whole(said))
    return tell(remote, status, said, shown, as_json=arguments.json)


def _act(arguments: argparse.Namespace, _: Clock) -> int:
    remote = _remote(arguments)
    status, said = remote.ask("POST", f"{_path(arguments.name)}/{arguments.action}", {"reason": arguments.reason})
    return tell(remote, status, said, lambda: _whole(said), as_json=arguments.json)


def _verdict(arguments: argparse.Namespace, clock: Clock) -> int:
    for name, value, least, most in (
        ("--wait", arguments.wait, 0.0, _LONGEST_WAIT),
        ("--interval", arguments.interval, _SHORTEST_INTERVAL, _LONGEST_WAIT),
    ):
        # NaN is within no limits.
        if not least <= value <= most:
            raise Impossible(f"{name}: expected {least:g} to {most:g} seconds")
    remote = _remote(arguments)
    query = urllib.parse.urlencode({"canary": arguments.name, "checksum": arguments.checksum})
    until = clock.monotonic() + arguments.wait
    while True:
        trouble, data = "", {}
        try:
            status, said = remote.ask("GET", f"/argo/verdict?{query}")
            found = said.get("data")
            data = found if isinstance(found, dict) else {}
            trouble = _not_ours(arguments, status, data)
        except Impossible as silent:
            # It may be restarting: as long as there is time it is asked again.
            trouble = str(silent)
        code = _CODES.get(str(data.get("verdict")), UNKNOWN) if not trouble else UNKNOWN
        left = until - clock.monotonic()
        if code != UNKNOWN or left <= 0.0:
            break
        _sleep(clock, min(arguments.interval, left))
    if arguments.json:
        print(json.dumps(data or {"verdict": "wait", "reason": trouble}, indent=2))
    else:
        print(clean(f"{data.get('verdict', 'wait') if not trouble else 'wait'}: {trouble or data.get('reason', '')}"))
    return code


def _not_ours(arguments: argparse.Namespace, status: int, data: Mapping[str, Any]) -> str:
    """Why an answer is no verdict on what was asked; empty: it is one."""
    if status != 200 or not data:  # noqa: PLR2004 - HTTP
        return f"the answer is no verdict (status {status})"
    if data.get("canary") != arguments.name:
        return f"the answer is about the canary {data.get('canary')!r}"
    if arguments.checksum and data.get("checksum") != arguments.checksum:
        return f"the answer is about the checksum {data.get('checksum')!r}"
    return ""


def _sleep(clock: Clock, seconds: float) -> None:
    from threading import Event

    clock.wait(Event(), seconds)


def _of_snapshot(arguments: argparse.Namespace) -> int:
    """How it stands by the file alone, as of the last look of whoever writes it."""
    from somaresil.canary.store import CanaryFile

    try:
        said = CanaryFile(arguments.snapshot).read()
    except (OSError, ValueError) as broken:
        raise Impossible(f"{arguments.snapshot}: {broken}") from None
    if said is None:
        raise Impossible(f"{arguments.snapshot}: there is no such file")
    if not isinstance(said.get("canary"), str) or not isinstance(said.get("phase"), str):
        raise Impossible(f"{arguments.snapshot}: it is no snapshot of a canary")
    if arguments.name not in {None, said["canary"]}:
        raise Impossible(f"{arguments.snapshot}: it is about the canary {said['canary']!r}")
    ledger = said.get("ledger")
    counts = ledger.get("counts") if isinstance(ledger, dict) else None
    shown = {
        name: said.get(name) for name in ("canary", "version", "checksum", "phase", "weight", "taken", "paused", "baked", "reason", "at")
    }
    if isinstance(counts, list) and len(counts) == 4:  # noqa: PLR2004 - both sides, good and bad
        shown |= dict(zip(("candidate_good", "candidate_bad", "control_good", "control_bad"), counts, strict=True))
    shown = {name: None if isinstance(value, float) and not isfinite(value) else value for name, value in shown.items()}
    print(json.dumps(shown, indent=2) if arguments.json else _whole(shown))
    return DONE


def _table(canaries: list[Mapping[str, Any]]) -> str:
    rows = [_COLUMNS, *(tuple(_cell(each.get(name)) for name in _COLUMNS) for each in canaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _whole(said: Mapping[str, Any]) -> str:
    lines: list[str] = []
    for name, value in said.items():
        if isinstance(value, dict):
            lines += [f"{clean(str(inner)):<16} {_cell(each)}" for inner, each in value.items()]
        else:
            lines.append(f"{clean(name):<16} {', '.join(map(_cell, value)) if isinstance(value, list) else _cell(value)}")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "" or (isinstance(value, float) and not isfinite(value)):
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else clean(str(value))


# -- judging and writing ----------------------------------------------------------------------------------------------------------------


def _judge(arguments: argparse.Namespace, _: Clock) -> int:
    from somaresil.canary import kayenta

    try:
        if arguments.file == "-":
            raw = sys.stdin.buffer.read(kayenta.MOST_BYTES + 1)
        else:
            with Path(arguments.file).open("rb") as file:
                raw = file.read(kayenta.MOST_BYTES + 1)
    except OSError as broken:
        raise Impossible(f"{arguments.file}: {broken}") from None
    result = kayenta.answer(kayenta.parse(raw))
    score = result["score"]
    if arguments.json:
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        for each in result["results"]:
            print(clean(f"{each['classification']:<10} {each['name']}  {each.get('classificationReason') or ''}".rstrip()))
        print(clean(f"{score['classification']}: {score['score']:g} of 100; {score.get('classificationReason') or ''}".rstrip("; ")))
    return _CODES.get(str(score["classification"]).lower(), UNKNOWN)


def _render(arguments: argparse.Namespace, _: Clock) -> int:
    from somaresil.canary.render import RenderOptions, render
    from somaresil.canary_command.file import read_rollout

    file = read_rollout(arguments.file, rendered=True)
    options: dict[str, Any] = dict(file.render or {})
    known = tuple(RenderOptions.__dataclass_fields__)
    strange = [name for name in options if name not in known]
    if strange:
        raise Impossible(f"{arguments.file}: render.{strange[0]}: expected one of {', '.join(known)}")
    options.setdefault("name", file.config.name)
    text = render(arguments.kind, file.config, RenderOptions(**options))
    if arguments.out is None:
        if arguments.check:
            raise Impossible("--check needs --out: the file to compare with")
        sys.stdout.write(text)
        return DONE
    out = Path(arguments.out)
    try:
        if arguments.check:
            there = out.read_text(encoding="utf-8") if out.is_file() else None
            if there == text:
                return DONE
            print(f"{out}: {'is not there' if there is None else 'differs'}", file=sys.stderr)
            return FAIL
        out.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as broken:
        raise Impossible(f"{out}: {broken}") from None
    print(out)
    return DONE


def _run(arguments: argparse.Namespace, clock: Clock) -> int:
    from somaresil.canary_command.rolling import roll

    return roll(arguments, clock)


_ACTIONS: Final = {
    "run": _run,
    "status": _status,
    "promote": _act,
    "rollback": _act,
    "pause": _act,
    "resume": _act,
    "verdict": _verdict,
    "judge": _judge,
    "render": _render,
}
