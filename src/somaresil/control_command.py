"""The command ``somaresil chaos``: the control app of a running service, or the kill switch of a host, from a terminal.

Exit codes: 0 done; 1 refused by the service; 2 it could not be done (wrong arguments, no answer, not the control app, a wrong token).

With ``--host SERVICE`` no service is asked: the file is written that every process of it looks at (:mod:`somaresil.chaos.killswitch`),
so it works when nothing answers any more.

See :mod:`somaresil.remote` for the token.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import ConfigurationError
from somaresil.remote import DONE, IMPOSSIBLE, REFUSED, Impossible, Remote, clean, tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["DONE", "IMPOSSIBLE", "REFUSED", "TOKEN", "URL", "add_to"]

URL: Final = "SOMARESIL_CHAOS_URL"
TOKEN: Final = "SOMARESIL_CHAOS_TOKEN"  # noqa: S105 - the name of the variable
_LARGEST_PLAN: Final = 65_536
_COLUMNS: Final = ("id", "state", "target", "rate", "remaining", "injected", "by")


def add_to(commands: Any) -> None:
    """Register the command with a parser."""
    chaos = commands.add_parser(
        "chaos",
        help="start, list and stop experiments of a running service",
        description="Talks to the control app that a service has mounted (somaresil.control.chaos_control).",
        epilog="exit codes: 0 done; 1 refused by the service; 2 it could not be done",
    )
    actions = chaos.add_subparsers(dest="action", title="actions", metavar="ACTION", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", default=None, help=f"where the control app is, as http://host:port/_soma/chaos (default: {URL})")
    common.add_argument("--token-env", default=TOKEN, metavar="NAME", help="the variable that holds the token (default: %(default)s)")
    common.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="longest wait for an answer (default: %(default)g)")
    common.add_argument("--json", action="store_true", help="print what the service answers")
    by_file = argparse.ArgumentParser(add_help=False)
    by_file.add_argument(
        "--host", default=None, metavar="SERVICE", help="every process of this service on this host, by the file of its kill switch"
    )
    by_file.add_argument("--switch", default=None, metavar="PATH", help="that file, where it is not in the usual place")
    actions.add_parser("list", parents=[common], help="experiments that run, that will, and the last that have ended")
    actions.add_parser("status", parents=[common, by_file], help="where this is and what may be done there")
    start = actions.add_parser("start", parents=[common], help="start a fault plan, or one fault")
    start.add_argument(
        "plan", nargs="?", default=None, metavar="PLAN", help="a JSON file with a plan or a window of one; - for standard input"
    )
    start.add_argument("--target", default=None, metavar="PATTERN", help="guards, or http:/path/*")
    start.add_argument("--kind", default=None, help="latency, error, ...")
    start.add_argument("--duration", type=float, default=None, metavar="SECONDS")
    start.add_argument("--rate", type=float, default=None, metavar="SHARE", help="share of the calls that are struck (default: 1)")
    start.add_argument("--delay", type=float, default=None, metavar="SECONDS")
    start.add_argument("--error", default=None, metavar="NAME", help="an error that the service allows")
    start.add_argument("--status", type=int, default=None, help="what http: targets answer")
    start.add_argument(
        "--option", action="append", default=[], metavar="NAME=JSON", help="any other field of a window; may be given several times"
    )
    stop = actions.add_parser("stop", parents=[common, by_file], help="end experiments")
    stop.add_argument("ids", nargs="*", metavar="ID")
    stop.add_argument("--all", action="store_true", help="the kill switch: everything, in every process of the service on its host")
    engage = actions.add_parser("engage", parents=[common, by_file], help="end everything, and let nothing start until disengage")
    disengage = actions.add_parser("disengage", parents=[common, by_file], help="let experiments start again")
    for action in (stop, engage, disengage):
        action.add_argument("--reason", default=None, help="goes to the audit log")
    chaos.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it, and give the exit code."""
    try:
        return _ACTIONS[arguments.action](arguments)
    except Impossible as why:
        print(f"somaresil chaos: {clean(str(why))}", file=sys.stderr)
        return IMPOSSIBLE


def _list(arguments: argparse.Namespace) -> int:
    status, said = _ask(arguments, "GET", "/experiments")
    return _told(arguments, status, said, lambda: _table(said["experiments"]))


def _status(arguments: argparse.Namespace) -> int:
    if arguments.host is not None:
        return _by_file(arguments, "status")
    status, said = _ask(arguments, "GET", "/status")
    return _told(arguments, status, said, lambda: _lines(said))


def _start(arguments: argparse.Namespace) -> int:
    status, said = _ask(arguments, "POST", "/experiments", _wanted(arguments))
    return _told(arguments, status, said, lambda: _table(said["experiments"]))


def _engage(arguments: argparse.Namespace) -> int:
    if arguments.host is not None:
        return _by_file(arguments, "engage")
    status, said = _ask(arguments, "POST", "/engage", {} if arguments.reason is None else {"reason": arguments.reason})
    return _told(arguments, status, said, lambda: f"engaged by {said['engaged']}; {_reach(said)}")


def _disengage(arguments: argparse.Namespace) -> int:
    if arguments.host is not None:
        return _by_file(arguments, "disengage")
    status, said = _ask(arguments, "POST", "/disengage", {} if arguments.reason is None else {"reason": arguments.reason})
    return _told(arguments, status, said, lambda: f"still engaged by {said['engaged']}" if said["engaged"] else f"released; {_reach(said)}")


def _reach(said: Mapping[str, Any]) -> str:
    return "every process of the service was told" if said["everywhere"] else "only this process was told: its kill switch cannot be thrown"


def _by_file(arguments: argparse.Namespace, action: str) -> int:
    """Throw or read the kill switch of this host. The service is not asked, and need not be there."""
    from somaresil.chaos.audit import acting_here
    from somaresil.chaos.killswitch import disengage_host, engage_host, read_host, stop_host

    who = acting_here()
    by = f"{who}: {getattr(arguments, 'reason', None)}" if getattr(arguments, "reason", None) else who
    try:
        if action == "stop":
            where = stop_host(arguments.host, path=arguments.switch).where
        elif action == "engage":
            where = engage_host(arguments.host, by, path=arguments.switch).where
        elif action == "disengage":
            where = disengage_host(arguments.host, by, path=arguments.switch).where
        else:
            where = ""
        found = read_host(arguments.host, path=arguments.switch)
    except ConfigurationError as wrong:
        raise Impossible(str(wrong)) from None
    except OSError as broken:
        raise Impossible(f"the kill switch: {broken}") from None
    said = {
        "service": arguments.host,
        "engaged": (found.by or "somebody") if found.engaged else None,
        "last_stop": found.stamp / 1e9 or None,
    }
    if arguments.json:
        print(json.dumps({**said, "switch": where or None}, indent=2))
    elif action == "stop":
        print(f"stopped: every experiment of {clean(arguments.host)} on this host; what starts from now on may run ({where})")
    elif found.engaged:
        print(f"engaged by {clean(str(said['engaged']))}: nothing of {clean(arguments.host)} may start on this host")
    else:
        print(f"released: experiments of {clean(arguments.host)} may start on this host")
    return DONE


def _stop(arguments: argparse.Namespace) -> int:
    if arguments.host is not None:
        if arguments.ids:
            raise Impossible("stop --host ends everything: it takes no ids")
        return _by_file(arguments, "stop")
    if bool(arguments.ids) == arguments.all:
        raise Impossible("stop needs the ids of experiments, or --all")
    why = {} if arguments.reason is None else {"reason": arguments.reason}
    if arguments.all:
        status, said = _ask(arguments, "POST", "/stop", why)
        return _told(arguments, status, said, lambda: f"stopped: {', '.join(said['stopped']) or 'there was nothing to stop'}")
    worst = DONE
    for identity in arguments.ids:
        status, said = _ask(arguments, "POST", f"/experiments/{urllib.parse.quote(identity, safe='')}/stop", why)
        worst = max(worst, _told(arguments, status, said, lambda said=said: _table([said])))
    return worst


_ACTIONS: Final = {"list": _list, "status": _status, "start": _start, "stop": _stop, "engage": _engage, "disengage": _disengage}


def _wanted(arguments: argparse.Namespace) -> Any:
    """The plan or window to start."""
    named = {name: getattr(arguments, name) for name in ("target", "kind", "duration", "rate", "delay", "error", "status")}
    window: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    for option in arguments.option:
        name, separator, text = option.partition("=")
        try:
            window[name] = json.loads(text)
        except (ValueError, RecursionError):
            raise Impossible(f"--option {option}: expected NAME=JSON, text in quotes") from None
        if not separator or not name:
            raise Impossible(f"--option {option}: expected NAME=JSON")
    if arguments.plan is None:
        missing = [f"--{name}" for name in ("target", "kind", "duration") if name not in window]
        if missing:
            raise Impossible(f"start needs a plan, or {', '.join(missing)}")
        return window
    if window:
        raise Impossible("start takes a plan or options, not both")
    try:
        if arguments.plan == "-":
            text = sys.stdin.read(_LARGEST_PLAN + 1)
        else:
            with Path(arguments.plan).open(encoding="utf-8") as file:
                text = file.read(_LARGEST_PLAN + 1)
        if len(text) > _LARGEST_PLAN:
            raise Impossible(f"{arguments.plan}: more than {_LARGEST_PLAN} characters")
        json.loads(text)
    except (OSError, ValueError, RecursionError) as broken:
        raise Impossible(f"{arguments.plan}: {broken}") from None
    # As it stands there: what stands twice is for the service to refuse.
    return text


def _ask(arguments: argparse.Namespace, method: str, path: str, data: Any = None) -> tuple[int, Any]:
    return _remote(arguments).ask(method, path, data)


def _remote(arguments: argparse.Namespace) -> Remote:
    return Remote("control app", url=arguments.url, url_variable=URL, token_variable=arguments.token_env, timeout=arguments.timeout)


def _told(arguments: argparse.Namespace, status: int, said: Any, text: Any) -> int:
    return tell(_remote(arguments), status, said, text, as_json=arguments.json)


def _table(experiments: Sequence[Mapping[str, Any]]) -> str:
    rows = [_COLUMNS, *(tuple(_cell(each[name]) for name in _COLUMNS) for each in experiments)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _lines(said: Mapping[str, Any]) -> str:
    lines = []
    for name, value in said.items():
        if name == "problems":
            lines += [f"{'problem':<24} {clean(str(each['path']))}: expected {clean(str(each['allowed']))}" for each in value]
        else:
            shown = (
                ", ".join(map(str, value)) if isinstance(value, list) else json.dumps(value) if isinstance(value, dict) else _cell(value)
            )
            lines.append(f"{clean(name):<24} {clean(shown)}")
    return "\n".join(lines)


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else clean(str(value))
