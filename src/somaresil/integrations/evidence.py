"""How the evidence of pods comes to a judge over HTTP: it asks them, or they tell it.

    ScrapeSource("http://gateway-canary:8080/evidence", role="candidate", token_env="EVIDENCE_TOKEN")
    ScrapeSource("http://gateway-primary:8080/metrics", role="control", form="prometheus")
    EvidenceTeller(resilience, bad="availability", to=[EvidencePush("http://judge/canary/evidence/gateway", token_env="EVIDENCE_TOKEN")])

Each address behind a name is one pod, looked up at each reading. With several worker processes behind one address each answer is of another
of them, and nothing of that is ever counted: let these push, or write to Redis.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from somaresil.canary.fleet import MOST_PODS, Absent, Reading, Told
from somaresil.canary.telling import EVERY, Mark, Telling, check_every
from somaresil.clock import SystemClock
from somaresil.config import Checker
from somaresil.integrations._pods import ask_pods
from somaresil.integrations._prometheus_api import Authorization, check_url

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from datetime import timedelta

    from somaresil.canary.telling import Role
    from somaresil.typing import Clock

__all__ = ["EvidencePush", "ScrapeSource"]

_MOST_URLS: Final = 64
_HIGHEST: Final = 2**53
_LATE: Final = 0.25
"""Share of ``every`` after a mark until which counters of Prometheus' text are those of the mark."""
_EVENTS: Final = re.compile(r"somaresil_sli_events_total\{([^}\n]*)\}\s+([0-9.eE+]{1,40})(?:\s+[0-9.]+)?(?:\s+#.*)?")
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\.)*)"')
_STARTED: Final = re.compile(r"^process_start_time_seconds(?:\{[^}\n]*\})?\s+([0-9.eE+]{1,40})", re.MULTILINE)


class ScrapeSource:
    """Asks pods for what they have seen.

    ``urls``: one or several, up to 256 pods behind them. ``role`` and ``checksum`` go before what a pod says of itself: it does not always
    know. ``form``: ``evidence`` is what :func:`~somaresil.verdict.pod.evidence_app` answers; ``prometheus`` the metrics of a pod, of which
    ``somaresil_sli_events_total`` counts. Those have no marks, so they are taken for the mark that was just before they were asked, and a
    reading that is late is none; the role is needed then. ``every`` is that of the judge. ``timeout`` is for all pods together.
    ``token_env`` and ``token_file`` name a bearer token. Raises :class:`~somaresil.errors.ConfigurationError`.
    """

    instant = True

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        role: Role = "",
        checksum: str | None = None,
        form: str = "evidence",
        every: float = EVERY,
        timeout: float | timedelta = 2.0,
        token_env: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Nobody is asked yet."""
        check = Checker("ScrapeSource")
        self._urls = (urls,) if isinstance(urls, str) else tuple(urls)
        if not 0 < len(self._urls) <= _MOST_URLS:
            check.problem("urls", urls, f"1 to {_MOST_URLS} addresses")
        for url in self._urls:
            check_url(check, url)
        self.role: str = check.one_of("role", role, ("", "candidate", "control"))
        if checksum is not None and not (isinstance(checksum, str) and len(checksum) <= 120 and checksum.isprintable()):  # noqa: PLR2004
            check.problem("checksum", checksum, "at most 120 printable characters")
        check.one_of("form", form, ("evidence", "prometheus"))
        if form == "prometheus" and not role:
            check.problem("role", role, "candidate | control", "metrics do not say of which side a pod is")
        self._every = check_every(check, every)
        self._timeout = check.seconds("timeout", timeout, maximum=60.0)
        self._authorization = Authorization.given(check, token_env=token_env, token_file=token_file)
        check.finish()
        self._checksum = checksum
        self._metrics = form == "prometheus"
        self._clock = SystemClock() if clock is None else clock
        self._before: dict[str, tuple[int, Mark]] = {}
        """For each pod whose metrics are read: as how many processes it was seen, and the last mark."""

    def __repr__(self) -> str:
        """Whom it asks."""
        return f"<ScrapeSource of {', '.join(self._urls[:3])}{' ...' if len(self._urls) > 3 else ''}>"  # noqa: PLR2004

    def read(self) -> Reading:
        """Ask all of them at once."""
        asked = self._clock.time()
        answers = ask_pods(self._urls, MOST_PODS, self._timeout, {"accept": "*/*", **self._authorization.header()})
        told: list[Told] = []
        absent: list[Absent] = []
        for name, said in answers.items():
            try:
                if isinstance(said, str):
                    raise ValueError(said)  # noqa: TRY301, TRY004 - a reason, told as those below
                told.append(Told(self._of_metrics(name, said, asked) if self._metrics else self._of_json(said), name))
            except (ValueError, RecursionError) as wrong:
                absent.append(Absent(name, str(wrong)[:200], self.role))
        self._before = {name: before for name, before in self._before.items() if name in answers}
        return Reading(tuple(told), tuple(absent))

    def _of_json(self, text: bytes) -> Any:
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("its answer is no JSON") from None
        if not isinstance(said, dict):
            raise ValueError("its answer is no evidence")  # noqa: TRY004 - as above
        own = {"role": self.role} if self.role else {}
        return {**said, **own, **({} if self._checksum is None else {"checksum": self._checksum})}

    def _of_metrics(self, name: str, text: bytes, asked: float) -> Telling:
        page = text.decode("utf-8", "replace")
        counts: dict[str, list[int]] = {}
        for labels, value in _EVENTS.findall(page):
            given = dict(_LABEL.findall(labels))
            number = float(value) if re.fullmatch(r"[0-9]+(\.[0-9]+)?([eE]\+?[0-9]{1,3})?", value) else math.nan
            if not 0.0 <= number <= _HIGHEST or number % 1.0:
                raise ValueError("its counts are none")
            if given.get("outcome") in {"good", "bad"}:
                counts.setdefault(given.get("slo", ""), [0, 0])[given["outcome"] == "bad"] += int(number)
        mark = Mark(math.floor(asked / self._every) * self._every, {slo: (good, bad) for slo, (good, bad) in list(counts.items())[:16]})
        generation, before = self._before.get(name, (0, None))
        if before is not None and any(
            good > mark.counts.get(slo, (-1, -1))[0] or bad > mark.counts.get(slo, (-1, -1))[1]
            for slo, (good, bad) in before.counts.items()
        ):
            # A restart that its metrics do not tell of.
            generation += 1
        late = asked - mark.at > self._every * _LATE or (before is not None and before.at == mark.at)
        self._before[name] = generation, before if late and before is not None else mark
        started = _STARTED.search(page)
        instance = f"{name} {started[1] if started else ''} {generation}"[:120]
        return Telling(
            pod=name,
            instance=instance,
            role=self.role,
            version="",
            checksum=self._checksum or "",
            time=asked,
            age=None,
            every=self._every,
            marks=() if late else (mark,),
        )


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


class EvidencePush:
    """Sends each telling of a pod to the verdict app of a judge: one of the functions of ``EvidenceTeller(to=)``.

    Raises :class:`~somaresil.errors.ConfigurationError`; when it is called, ``OSError`` when the judge does not take it.
    """

    def __init__(
        self,
        url: str,
        *,
        token_env: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        timeout: float | timedelta = 2.0,
    ) -> None:
        """Nothing is sent yet."""
        check = Checker("EvidencePush")
        check_url(check, url)
        self._timeout = check.seconds("timeout", timeout, maximum=60.0)
        self._authorization = Authorization.given(check, token_env=token_env, token_file=token_file)
        check.finish()
        self._url = url
        # Neither what is told nor the token goes anywhere else.
        self._opener = build_opener(ProxyHandler({}), _NoRedirects())

    def __call__(self, telling: dict[str, Any]) -> None:
        """Send it."""
        headers = {"content-type": "application/json", "user-agent": "somaresil", **self._authorization.header()}
        request = Request(self._url, json.dumps(telling, allow_nan=False).encode(), headers, method="POST")  # noqa: S310 - checked: http
        with self._opener.open(request, timeout=self._timeout) as answer:
            answer.read(1_024)
