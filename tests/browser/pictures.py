"""Pictures made up from the contract of the dashboard: what a page may be sent, from nothing at all to far too much."""

from __future__ import annotations

import math
import time

HOSTILE = "<img src=x onerror=alert(1)>"
BIDI = "safe\u202egnp.exe\u2066\u200b"
LONG = "a.very.long.name." * 30
COLUMNS = 120
STEP = 5.0
BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]
EVERYTHING = ["stop", "engage", "experiment", "breaker", "canary"]


def _wave(place: int, base: float, depth: float, length: float = 17.0) -> float:
    return base + depth * math.sin(place / length)


def guard(name: str, *, state: str | None = "closed", rate: float = 12.5, bad: int = 20, injected: int = 0, **more: object) -> dict:
    calls = [max(0, round(_wave(place, rate * STEP, rate * 1.5))) for place in range(COLUMNS)]
    wrong = [0 if place < 100 else round(bad * (place - 99) / 60) for place in range(COLUMNS)]
    rejected = 40 if state in {"open", "forced_open"} else 0
    good = round(rate * 60)
    return {
        "name": name,
        "pipeline": ["retry", "breaker", "timeout"],
        "worst_case": 31.5,
        "state": state,
        "states": {} if state is None else ({state: 1, "closed": 3} if state != "closed" else {"closed": 4}),
        "held_by": ["breaker"] if state not in {None, "closed"} else [],
        "window": 60.0,
        "rate": rate,
        "counts": {"good": good, "bad": bad, "rejected": rejected, "abandoned": 1, "ignored": 0, "injected": injected},
        "totals": {"good": good * 90, "bad": bad * 7, "rejected": rejected, "abandoned": 12, "ignored": 0, "injected": injected},
        "error_share": bad / (good + bad) if good + bad else None,
        "injected_share": injected / (good + bad) if good + bad else None,
        "p50": 0.12,
        "p95": 0.8,
        "p99": None,
        "keys": {},
        "throttled": None,
        "budget_scale": None,
        "series": {
            "calls": calls,
            "bad": wrong,
            "rejected": [0] * (COLUMNS - 8) + [rejected // 8] * 8,
            "injected": [0] * COLUMNS,
            "p95": [None if place % 31 == 0 else _wave(place, 0.4, 0.2) for place in range(COLUMNS)],
        },
        **more,
    }


def objective(name: str, *, left: float | None = 0.42, burn: float = 1.2, now: float, alerts: tuple[str, ...] = ()) -> dict:
    windows = ("300", "1800", "3600", "7200", "21600", "86400", "259200")
    return {
        "name": name,
        "target": 0.999,
        "period": 2592000.0,
        "kind": "availability",
        "policy": "fast_burn_alert",
        "good": 123456,
        "bad": 71,
        "compliance": None if left is None else 0.99942,
        "budget_left": left,
        "burn": {window: None if left is None or window == "7200" else burn / (place + 1) for place, window in enumerate(windows)},
        "exhausted_in": 86400.0 * 3.4 if left and left > 0 else None,
        "alerts": [{"severity": severity, "since": now - 240} for severity in alerts],
        "blocks": left is not None and left <= 0,
        "budget_series": {
            "at": [now - 3600 + 60 * place for place in range(60)],
            "left": [None if left is None else left + 0.2 * (1 - place / 59) for place in range(60)],
        },
    }


def experiment(number: int, *, state: str = "running", kind: str = "latency", target: str = "llm.*", now: float) -> dict:
    return {
        "id": f"e{number}",
        "kind": kind,
        "target": target,
        "rate": 0.2,
        "duration": 60.0,
        "state": state,
        "starts_at": now - 18.8 if state != "scheduled" else now + 300,
        "remaining": 41.2 if state == "running" else None,
        "end_reason": "expired" if state == "ended" else None,
        "injected": 10 if state != "scheduled" else 0,
        "absorbed": 8 if state != "scheduled" else 0,
        "struck": {"llm.invoke": 10} if state != "scheduled" else {},
        "by": "alice",
        "sources": ["gateway-4711", "gateway-4712"],
    }


def canary(*, now: float, weight: float = 0.1) -> dict:
    at = [now - 600 + 10 * place for place in range(60)]
    return {
        "name": "llm",
        "version": "2",
        "phase": "ramp_10",
        "weight": weight,
        "outcome": None,
        "reason": "",
        "paused": False,
        "began": now - 600,
        "evidence": [
            {"slo": "api_availability", "against": "worse", "e_value": 3.0, "threshold": 100.0, "bad": 2, "events": 40},
            {"slo": "api_availability", "against": "not_much_worse", "e_value": 0.4, "threshold": 20.0, "bad": 2, "events": 40},
            {"slo": "api_latency", "against": "objective", "e_value": 0.4, "threshold": 100.0, "bad": 0, "events": 40},
        ],
        "evidence_series": {
            "at": at,
            "log10": {
                "worse": [0.5 * place / 60 + 0.1 * math.sin(place / 5) for place in range(60)],
                "not_much_worse": [-0.4 * place / 60 for place in range(60)],
            },
        },
    }


def picture(**more: object) -> dict:
    """Give a service on an ordinary bad day: one breaker open, an experiment, a release, a worker that is gone."""
    now = time.time()
    end = math.floor(now / STEP) * STEP
    sources = [
        {
            "name": f"gateway-{4711 + number}",
            "kind": "worker" if number else "self",
            "state": "live",
            "at": now - 0.2,
            "why": "",
            "process": 4711 + number,
            "address": "",
        }
        for number in range(4)
    ]
    sources[3] |= {"state": "missing", "at": now - 31, "why": "it does not answer"}
    return {
        "version": 1,
        "service": "gateway",
        "environment": "demo",
        "at": now,
        "step": STEP,
        "columns": [end - STEP * (COLUMNS - place) for place in range(COLUMNS)],
        "sources": sources,
        "guards": [
            guard("llm.invoke", state="open", bad=96, injected=31),
            guard("memory.recall", rate=8.2, bad=3),
            guard("memory.store", state="half_open", rate=3.1, bad=6),
            guard("session.load", rate=22.4, bad=0),
            guard("tools.search", state="ramping", rate=1.2, bad=1),
            guard("billing.charge", rate=0.8, bad=0, keys={"open": 2, "closed": 31}),
            guard("mail.send", state="disabled", rate=0.2, bad=0),
            guard("embed.text", state=None, rate=5.5, bad=0),
        ],
        "routes": [
            {key: value for key, value in guard(name, rate=rate, bad=bad).items() if key not in {"pipeline", "state", "states", "held_by"}}
            for name, rate, bad in (("/v1/session/message", 20.0, 12), ("/v1/session", 2.0, 0), ("/v1/memory/{id}", 4.0, 1))
        ],
        "objectives": [
            objective("api_availability", left=0.42, burn=7.4, now=now, alerts=("page",)),
            objective("api_latency", left=0.87, burn=0.4, now=now),
            objective("memory_availability", left=-0.08, burn=2.2, now=now, alerts=("ticket",)),
            objective("mail_delivery", left=None, now=now),
        ],
        "incidents": [
            {
                "id": "i1",
                "subject": "llm.invoke",
                "kind": "guard",
                "began": now - 95,
                "ended": None,
                "recovered": None,
                "injected": True,
                "experiment": "e1",
                "detected_after": 0.1,
                "mitigated_after": None,
            },
            {
                "id": "i2",
                "subject": "memory_availability",
                "kind": "objective",
                "began": now - 5000,
                "ended": now - 4100,
                "recovered": True,
                "injected": False,
                "experiment": None,
                "detected_after": 42.0,
                "mitigated_after": 300.0,
            },
        ],
        "experiments": [
            experiment(1, now=now),
            experiment(2, state="scheduled", kind="error", target="memory.*", now=now),
            experiment(3, state="ended", kind="blackhole", target="mail.send", now=now - 900),
        ],
        "chaos": {"allowed": True, "problems": [], "engaged": None, "environment": "demo"},
        "plans": [
            {"name": "slow model", "about": "800 ms on a fifth of the calls", "windows": 1},
            {"name": "memory is cut off", "about": "no answer from the memory service for 30 s", "windows": 2},
        ],
        "canaries": [canary(now=now)],
        "pools": [
            {"name": "models", "endpoints": [{"name": "a", "state": "in", "weight": 1.0}, {"name": "b", "state": "out", "weight": 0.0}]}
        ],
        "limit": {"limit": 100, "active": 3, "waiting": 0},
        **more,
    }


def nothing() -> dict:
    """Give a service that has just started: no guard, no objective, nothing seen, every figure not known."""
    empty: dict = {
        key: [] for key in ("columns", "guards", "routes", "objectives", "incidents", "experiments", "plans", "canaries", "pools")
    }
    return picture(
        **empty, chaos={"allowed": False, "problems": ["environment demo does not allow chaos"], "engaged": None, "environment": None}
    )


def unknown() -> dict:
    """Give a service of which the names are known and not one figure."""
    blank = dict.fromkeys(
        ("worst_case", "state", "rate", "error_share", "injected_share", "p50", "p95", "p99", "throttled", "budget_scale")
    )
    one = guard("idle") | blank | {"states": {}, "counts": None, "totals": None, "series": None, "keys": None, "pipeline": []}
    slo = objective("idle_up", left=None, now=time.time()) | {
        "good": None,
        "bad": None,
        "exhausted_in": None,
        "burn": {},
        "budget_series": None,
    }
    return picture(
        guards=[one],
        routes=[],
        objectives=[slo],
        canaries=[canary(now=time.time()) | {"weight": None, "began": None, "evidence": [], "evidence_series": {"at": [], "log10": {}}}],
    )


def many(number: int = 1000) -> dict:
    """Give a service with more guards than anybody reads."""
    states = ["closed"] * 97 + ["open", "half_open", "ramping"]
    guards = [guard(f"guard.{place:04d}", state=states[place % 100], rate=1 + place % 40, bad=place % 7) for place in range(number)]
    now = time.time()
    return picture(guards=guards, objectives=[objective(f"slo.{place:02d}", left=1 - place / 40, now=now) for place in range(40)])


def hostile() -> dict:
    """Give a service whose names were chosen to harm whoever reads them."""
    whole = picture()
    now = whole["at"]
    for place, name in enumerate((HOSTILE, BIDI, LONG, "javascript:alert(1)", "../../api/stop?x=#&y", "__proto__", "%E0%A4%A")):
        whole["guards"].append(guard(name, state="open" if place == 0 else "closed"))
        whole["objectives"].append(objective(name, now=now))
    whole["service"] = whole["environment"] = HOSTILE
    whole["sources"][0] |= {"name": HOSTILE, "state": "stale", "why": HOSTILE, "address": "javascript:alert(1)"}
    whole["experiments"].append(experiment(9, kind=HOSTILE, target=HOSTILE, now=now) | {"by": HOSTILE, "struck": {HOSTILE: 3, BIDI: 1}})
    whole["plans"].append({"name": HOSTILE, "about": HOSTILE + BIDI, "windows": 1})
    whole["canaries"].append(canary(now=now) | {"name": HOSTILE, "version": BIDI, "reason": HOSTILE, "phase": HOSTILE})
    whole["incidents"].append(whole["incidents"][0] | {"id": "i9", "subject": HOSTILE, "experiment": HOSTILE})
    whole["chaos"] = {"allowed": True, "problems": [HOSTILE], "engaged": HOSTILE, "environment": HOSTILE}
    whole["pools"].append({"name": HOSTILE, "endpoints": [{"name": LONG, "state": HOSTILE, "weight": None}]})
    return whole


def event(
    number: int,
    *,
    text: str = "breaker of llm.invoke: closed -> open, error share 0.62",
    about: str = "llm.invoke",
    at: float | None = None,
    level: str = "warning",
    kind: str = "BreakerChanged",
) -> dict:
    return {
        "id": number,
        "source": "gateway-4711",
        "at": time.time() if at is None else at,
        "kind": kind,
        "level": level,
        "about": about,
        "text": text,
        "facts": {"error_share": 0.62, "calls": 40},
    }


def events(count: int = 30) -> list[dict]:
    now = time.time()
    told = [
        ("BreakerChanged", "warning", "llm.invoke", "breaker of llm.invoke: closed -> open, 62 % of 40 calls failed"),
        ("ExperimentStarted", "warning", "llm.*", "experiment e1 started: latency on llm.*, 20 % of the calls, for 60 s"),
        ("BreakerChanged", "info", "memory.store", "breaker of memory.store: open -> half_open, the open time is over"),
        ("AlertBegan", "error", "api_availability", "objective api_availability burns 7.4 times too fast: page"),
        ("RetryBudgetSpent", "warning", "memory.recall", "retry budget of memory.recall is spent: retries wait"),
    ]
    chosen = [(number, *told[number % len(told)]) for number in range(count)]
    return [
        event(number + 1, kind=kind, level=level, about=about, text=text, at=now - 7 * (count - number))
        for number, kind, level, about, text in chosen
    ]


def detail(whole: dict, name: str) -> dict | None:
    """Give what the page asks about one guard."""
    found = next((one for one in whole["guards"] if one["name"] == name), None)
    if found is None:
        return None
    now, columns = whole["at"], whole["columns"]
    if found["series"] is None:
        blank = dict.fromkeys(("options", "stages", "timeline", "tally", "rejections", "heat", "recent", "findings", "changed"))
        return found | blank
    cells = [
        [round(60 * math.exp(-(((bucket - _wave(place, 4.5, 1.2, 23)) / 1.1) ** 2))) for bucket in range(len(BOUNDS) + 1)]
        for place in range(len(columns))
    ]
    return found | {
        "options": ["opens at 50 % of 20 calls", "open for 10 s"],
        "stages": [
            {"name": "retry", "says": "3 attempts, full jitter from 100 ms", "worst_case": 31.5},
            {"name": "breaker", "says": "50 % of the last 60 s, at least 20 calls", "worst_case": None},
            {"name": "timeout", "says": "10 s an attempt", "worst_case": 10.0},
        ],
        "timeline": [
            {"at": now - 400, "source": "gateway-4711", "before": "closed", "after": "open", "cause": "exceeded"},
            {"at": now - 390, "source": "gateway-4711", "before": "open", "after": "half_open", "cause": "elapsed"},
            {"at": now - 388, "source": "gateway-4711", "before": "half_open", "after": "closed", "cause": "recovered"},
            {"at": now - 95, "source": "gateway-4711", "before": "closed", "after": "open", "cause": "exceeded"},
            {"at": now - 210, "source": "gateway-4712", "before": "closed", "after": "forced_open", "cause": "forced"},
            {"at": now - 120, "source": "gateway-4712", "before": "forced_open", "after": "closed", "cause": "reset"},
        ],
        "tally": {"calls": 40, "failed": 25, "error_share": 0.625},
        "rejections": {"circuit_open": 35, "bulkhead_full": 5},
        "heat": {"bounds": BOUNDS, "columns": columns, "cells": cells},
        "recent": events(5),
    }
