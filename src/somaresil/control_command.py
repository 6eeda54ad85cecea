"""The command ``somaresil chaos``: the control app of a running service, or the kill switch of a host, from a terminal.

Exit codes: 0 done; 1 refused by the service; 2 it could not be done (wrong arguments, no answer, not the control app, a wrong token).

With ``--host SERVICE`` no service is asked: the file is written that every process of it looks at (:mod:`somaresil.chaos.killswitch`),
so it works when nothing answers any more.

The token comes from a variable of the environment, for arguments are seen by everybody on the machine. No redirect is followed, so the
token goes where it was sent.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["DONE", "IMPOSSIBLE", "REFUSED", "TOKEN", "URL", "add_to"]

DONE, REFUSED, IMPOSSIBLE = 0, 1, 2
URL: Final = "SOMARESIL_CHAOS_URL"
TOKEN: Final = "SOMARESIL_CHAOS_TOKEN"  # noqa: S105 - the name of the variable
_LARGEST: Final = 4_000_000
_LARGEST_PLAN: Final = 65_536
_PROBLEM: Final = "application/problem+json"
_COLUMNS: Final = ("id", "state", "target", "rate", "remaining", "injected", "by")


class _ImpossibleError(Exception):
    """It could not be done."""


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
    except _ImpossibleError as why:
        print(f"somaresil chaos: {_clean(str(why))}", file=sys.stderr)
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
        raise _ImpossibleError(str(wrong)) from None
    except OSError as broken:
        raise _ImpossibleError(f"the kill switch: {broken}") from None
    said = {
        "service": arguments.host,
        "engaged": (found.by or "somebody") if found.engaged else None,
        "last_stop": found.stamp / 1e9 or None,
    }
    if arguments.json:
        print(json.dumps({**said, "switch": where or None}, indent=2))
    elif action == "stop":
        print(f"stopped: every experiment of {_clean(arguments.host)} on this host; what starts from now on may run ({where})")
    elif found.engaged:
        print(f"engaged by {_clean(str(said['engaged']))}: nothing of {_clean(arguments.host)} may start on this host")
    else:
        print(f"released: experiments of {_clean(arguments.host)} may start on this host")
    return DONE


def _stop(arguments: argparse.Namespace) -> int:
    if arguments.host is not None:
        if arguments.ids:
            raise _ImpossibleError("stop --host ends everything: it takes no ids")
        return _by_file(arguments, "stop")
    if bool(arguments.ids) == arguments.all:
        raise _ImpossibleError("stop needs the ids of experiments, or --all")
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
        except ValueError:
            raise _ImpossibleError(f"--option {option}: expected NAME=JSON, text in quotes") from None
        if not separator or not name:
            raise _ImpossibleError(f"--option {option}: expected NAME=JSON")
    if arguments.plan is None:
        missing = [f"--{name}" for name in ("target", "kind", "duration") if name not in window]
        if missing:
            raise _ImpossibleError(f"start needs a plan, or {', '.join(missing)}")
        return window
    if window:
        raise _ImpossibleError("start takes a plan or options, not both")
    try:
        if arguments.plan == "-":
            text = sys.stdin.read(_LARGEST_PLAN + 1)
        else:
            with Path(arguments.plan).open(encoding="utf-8") as file:
                text = file.read(_LARGEST_PLAN + 1)
        if len(text) > _LARGEST_PLAN:
            raise _ImpossibleError(f"{arguments.plan}: more than {_LARGEST_PLAN} characters")
        json.loads(text)
    except (OSError, ValueError, RecursionError) as broken:
        raise _ImpossibleError(f"{arguments.plan}: {broken}") from None
    # As it stands there: what stands twice is for the service to refuse.
    return text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other, and not the right one."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _ask(arguments: argparse.Namespace, method: str, path: str, data: Any = None) -> tuple[int, Any]:
    """Status and data of an answer of the control app. Raises when something else answers, or nothing."""
    url = arguments.url or os.environ.get(URL)
    token = os.environ.get(arguments.token_env)
    if not url:
        raise _ImpossibleError(f"where is the control app? --url, or {URL}")
    if not token or not token.isascii() or not token.isprintable():
        raise _ImpossibleError(f"the variable {arguments.token_env} holds no token")
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise _ImpossibleError(f"{url}: expected http:// or https://")
    if not 0.0 < arguments.timeout <= 600.0:  # noqa: PLR2004 - ten minutes
        raise _ImpossibleError("--timeout: expected more than 0 and at most 600 seconds")
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    body = None
    if method == "POST":
        headers["Content-Type"] = "application/json"
        body = (data if isinstance(data, str) else json.dumps(data)).encode()
    try:
        request = urllib.request.Request(url.rstrip("/") + path, body, headers, method=method)  # noqa: S310 - the scheme was looked at
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=arguments.timeout) as answer:
            return _read(answer.status, answer.headers, answer.read(_LARGEST + 1))
    except urllib.error.HTTPError as answer:
        with answer:
            return _read(answer.code, answer.headers, answer.read(_LARGEST + 1))
    except (OSError, ValueError) as broken:
        reason = getattr(broken, "reason", broken)
        raise _ImpossibleError(f"{url}: {type(broken).__name__}: {reason}") from None
    except Exception as broken:  # noqa: BLE001 - http.client.HTTPException: something else speaks there
        raise _ImpossibleError(f"{url}: {type(broken).__name__}: {broken}") from None


def _read(status: int, headers: Any, body: bytes) -> tuple[int, Any]:
    kind = (headers.get("content-type") or "").partition(";")[0].strip()
    if kind not in {"application/json", _PROBLEM} or len(body) > _LARGEST:
        hint = ": a wrong URL, or a token that is not known there" if status == 404 else ""  # noqa: PLR2004
        raise _ImpossibleError(f"the answer is not one of the control app (status {status}{hint})")
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise _ImpossibleError(f"the answer is not one of the control app (status {status})")
    if status >= 500:  # noqa: PLR2004
        raise _ImpossibleError(f"the control app has failed: {said.get('detail')}")
    return status, said


def _told(arguments: argparse.Namespace, status: int, said: Any, text: Any) -> int:
    """Print an answer, and give the exit code."""
    refused = not 200 <= status < 300  # noqa: PLR2004
    if arguments.json:
        print(json.dumps(said, indent=2))
    elif refused:
        print(f"refused ({status}): {_clean(str(said.get('detail')))}", file=sys.stderr)
        for each in said.get("problems", ()):
            hint = f" ({each.get('hint')})" if each.get("hint") else ""
            print(_clean(f"  {each.get('path')} = {each.get('value')}: expected {each.get('allowed')}{hint}"), file=sys.stderr)
    else:
        try:
            print(text())
        except (KeyError, TypeError, AttributeError):
            raise _ImpossibleError("the answer is not one of the control app") from None
    return REFUSED if refused else DONE


def _table(experiments: Sequence[Mapping[str, Any]]) -> str:
    rows = [_COLUMNS, *(tuple(_cell(each[name]) for name in _COLUMNS) for each in experiments)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _lines(said: Mapping[str, Any]) -> str:
    lines = []
    for name, value in said.items():
        if name == "problems":
            lines += [f"{'problem':<24} {_clean(str(each['path']))}: expected {_clean(str(each['allowed']))}" for each in value]
        else:
            shown = (
                ", ".join(map(str, value)) if isinstance(value, list) else json.dumps(value) if isinstance(value, dict) else _cell(value)
            )
            lines.append(f"{_clean(name):<24} {_clean(shown)}")
    return "\n".join(lines)


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else _clean(str(value))


def _clean(text: str) -> str:
    """Without what a terminal would obey: a service may be in other hands than the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
