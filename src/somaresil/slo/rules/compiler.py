"""From objectives to files of rules."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.model import slo as model
from somaresil.slo.objective import SLO
from somaresil.slo.rules.checks import SCRAPES, check_objective
from somaresil.slo.rules.options import RuleOptions
from somaresil.slo.rules.promtest import tests_of
from somaresil.slo.rules.source import EVENTS, EXAMPLE, Events, GroupEvents, Queries, source_of
from somaresil.slo.rules.text import duration, number, page_of, quoted, template, yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from somaresil.slo.rules.source import Source

__all__ = ["Compiled", "Rules", "compile_rules"]

_CURRENT: Final = 300.0
_PERIOD_EVERY: Final = "2m"
"""How often the whole period is summed: it is dear, and changes slowly. Prometheus forgets a sample after five minutes."""
_UNSEEN_FOR: Final = "10m"
_SLOTH_WINDOWS: Final = (300.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 86_400.0, 259_200.0)


@dataclass(frozen=True, slots=True)
class Compiled:
    """Files by name, and what is not in them."""

    files: Mapping[str, str]
    """``*.rules.yaml`` for Prometheus, ``*.test.yaml`` for ``promtool test rules``, to stand in one folder."""
    notes: tuple[str, ...]
    """What could not be said in rules, in words."""
    groups: tuple[dict[str, Any], ...] = ()
    """The groups of all files of rules, as data: for objects that hold them all."""


def compile_rules(
    slos: Iterable[SLO],
    options: RuleOptions | None = None,
    *,
    sources: Mapping[str, Source] | None = None,
    services: Mapping[str, str] | None = None,
) -> Compiled:
    """Rules of every objective, each in a file of its own, with tests of them.

    ``sources`` says by name where an objective is counted that is not in our counter, ``services`` whose it is, where that is not the
    ``service`` of the options.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found; paths begin with ``slos.<name>``.
    """
    options = options or RuleOptions()
    check = Checker("slos")
    found: dict[str, Rules] = {}
    given = tuple(slos)
    for slo in given:
        if not isinstance(slo, SLO):
            check.problem("slo", slo, "an SLO")
            continue
        if slo.name in found:
            check.problem(slo.name, slo, "each name once")
        service = (services or {}).get(slo.name, options.service)
        rules = Rules(slo, source_of(slo, (sources or {}).get(slo.name), options.labels), replace(options, service=service))
        check_objective(check.child(slo.name), slo, rules.source, options)
        found[slo.name] = rules
    for what, given_ in (("sources", sources or {}), ("services", services or {})):
        for name in given_:
            if name not in found:
                check.problem(f"{what}.{name}", name, f"an objective ({', '.join(found) or 'there is none'})")
    check.finish()
    files: dict[str, str] = {}
    groups: list[dict[str, Any]] = []
    notes: list[str] = []
    for rules in found.values():
        stem = _stem(rules.slo.name, files)
        name = f"{stem}.rules.yaml"
        groups += (own := list(rules.groups()))
        files[name] = yaml({"groups": own})
        for kind, test in tests_of(rules, name):
            files[f"{stem}.{kind}.test.yaml"] = yaml(test)
        if rules.slo.group_by is not None and isinstance(rules.source, Events):
            grouped, name = GroupRules(rules.slo, rules.options), f"{stem}.groups.rules.yaml"
            groups += (own := list(grouped.groups()))
            files[name] = yaml({"groups": own})
            for kind, test in tests_of(grouped, name):
                files[f"{stem}.groups.{kind}.test.yaml"] = yaml(test)
        notes += rules.notes()
    return Compiled(files, tuple(notes), tuple(groups))


def _stem(name: str, files: Mapping[str, str]) -> str:
    """A name of a file that no other objective has, whatever letters it is made of."""
    # One that begins with a dash would be an option of every command.
    plain = re.sub(r"^-|[^A-Za-z0-9_-]+", "_", name)
    stem, number_ = plain, 1
    while any(file.casefold().startswith(f"{stem}.".casefold()) for file in files):
        number_ += 1
        stem = f"{plain}-{number_}"
    return stem


class Rules:
    """The rules of one objective."""

    prefix = "slo"
    """How the names of what is recorded begin."""
    tells_unseen = True
    """Whether there is an alert for the case that nobody exports anything."""
    example: Mapping[str, str] = MappingProxyType({})
    """Labels that the series in tests have beside :attr:`labels`."""

    def __init__(self, slo: SLO, source: Source, options: RuleOptions) -> None:
        """Compute nothing yet."""
        self.slo = slo
        self.source = source
        self.options = options
        self.policy = slo.burn_policy

    # -- names and labels -------------------------------------------------------------------------------------------------------------

    @property
    def labels(self) -> dict[str, str]:
        """Labels of everything that is recorded."""
        service = {} if self.options.service is None else {"service": self.options.service}
        found = {"slo": self.slo.name, **service}
        if self.options.sloth:
            owner = self.options.service or "somaresil"
            found |= {"sloth_id": f"{owner}-{self.slo.name}", "sloth_service": owner, "sloth_slo": self.slo.name}
        return found

    @property
    def matcher(self) -> str:
        """Which of the recorded series are its own, and not those of an objective of this name in another service."""
        return f"{{slo={quoted(self.slo.name)},service={quoted(self.options.service or '')}}}"

    def alert(self, severity: str) -> str:
        """The name of an alert."""
        return f"ErrorBudgetBurn{severity.capitalize()}"

    @property
    def subject(self) -> str:
        """Whose budget it is, for people."""
        return self.slo.name

    def alert_labels(self, severity: str) -> dict[str, str]:
        """Its labels."""
        sloth = {"sloth_severity": severity} if self.options.sloth else {}
        return {**self.labels, **self.options.alert_labels, "severity": severity, **sloth}

    @property
    def severities(self) -> tuple[str, ...]:
        """Those of its policy, each once."""
        return tuple(dict.fromkeys(window.severity for window in self.policy.windows))

    def windows_of(self, severity: str) -> tuple[model.Window, ...]:
        """The windows of one of them."""
        return tuple(window for window in self.policy.windows if window.severity == severity)

    def limit(self, window: model.Window) -> Decimal:
        """The error ratio above which a window fires."""
        return model.error_limit(window, self.slo.period, self.slo.target_percentage)

    @property
    def budget(self) -> Decimal:
        """What may be bad."""
        return model.budget_ratio(self.slo.target_percentage)

    @property
    def _current(self) -> float:
        return max(_CURRENT, SCRAPES * float(self.options.scrape_interval))  # type: ignore[arg-type]

    @property
    def _kept(self) -> float:
        return float(self.options.retention)  # type: ignore[arg-type]

    def error(self, window: float) -> str:
        """The recorded error ratio of a window."""
        series = f"{self.prefix}:sli_error:ratio_rate{duration(window)}{self.matcher}"
        return f"max without (sloth_window) ({series})" if self.options.sloth else series

    def bad(self, window: float) -> str:
        """The recorded number of bad events."""
        return f"{self.prefix}:bad_events:increase{duration(window)}{self.matcher}"

    def events(self, window: float) -> str:
        """The recorded number of events."""
        return f"{self.prefix}:events:increase{duration(window)}{self.matcher}"

    @property
    def left(self) -> str:
        """The recorded share of the budget that is left."""
        return f"{self.prefix}:period_error_budget_remaining:ratio{self.matcher}"

    # -- groups -----------------------------------------------------------------------------------------------------------------------

    def groups(self) -> Iterator[dict[str, Any]]:
        """Within a group rules are evaluated one after the other at one instant: what is alerted on is not a round late."""
        windows = {seconds for window in self.policy.windows for seconds in (window.long, window.short)} | {self._current}
        if self.options.sloth:
            # Its dashboards let choose among these, whatever the alerts look at.
            windows |= {seconds for seconds in _SLOTH_WINDOWS if self._current <= seconds < self.slo.period and seconds <= self._kept}
        rolls = self.slo.calendar is None
        # A period that is a window as well is summed once, and what is left of it with it.
        apart = rolls and self.slo.period not in windows
        yield {
            "name": f"{self.prefix}-{self.slo.name}",
            "rules": [
                *(rule for window in sorted(windows) for rule in self._recorded(window)),
                *self._facts(),
                *(() if apart or not rolls else self._left()),
                *(self._alerting(severity) for severity in self.severities),
                *((self._unseen(),) if self.tells_unseen else ()),
            ],
        }
        if apart:
            rules = [*self._recorded(self.slo.period), *self._left()]
            yield {"name": f"{self.prefix}-{self.slo.name}-period", "interval": _PERIOD_EVERY, "rules": rules}

    def _record(self, name: str, expression: str, **labels: str) -> dict[str, Any]:
        return {"record": name, "expr": expression, "labels": {**self.labels, **labels}}

    def _recorded(self, window: float) -> Iterator[dict[str, Any]]:
        text = duration(window)
        yield self._record(f"{self.prefix}:bad_events:increase{text}", self.source.bad(window))
        yield self._record(f"{self.prefix}:events:increase{text}", self.source.total(window))
        sloth = {"sloth_window": text} if self.options.sloth else {}
        # Without events there is no ratio, and no NaN that would stay in every sum.
        yield self._record(f"{self.prefix}:sli_error:ratio_rate{text}", f"{self.bad(window)} / ({self.events(window)} > 0)", **sloth)

    def _facts(self) -> Iterator[dict[str, Any]]:
        objective = model.objective_ratio(self.slo.target_percentage)
        yield self._record("slo:objective:ratio", f"vector({number(objective)})")
        yield self._record("slo:error_budget:ratio", f"vector({number(self.budget)})")
        yield self._record("slo:time_period:days", f"vector({number(_ratio(self.slo.period, model.DAY))})")
        yield self._current_burn()
        if self.options.sloth:
            yield self._record(
                "sloth_slo_info",
                "vector(1)",
                sloth_version="somaresil",
                sloth_mode="somaresil",
                sloth_spec="somaresil",
                sloth_objective=number(Decimal(str(self.slo.target_percentage))),
            )

    def _current_burn(self) -> dict[str, Any]:
        return self._record(f"{self.prefix}:current_burn_rate:ratio", f"{self.error(self._current)} / {number(self.budget)}")

    def _left(self) -> Iterator[dict[str, Any]]:
        burn = f"{self.prefix}:period_burn_rate:ratio"
        yield self._record(burn, f"{self.error(self.slo.period)} / {number(self.budget)}")
        yield self._record(f"{self.prefix}:period_error_budget_remaining:ratio", f"1 - {burn}{self.matcher}")

    def _alerting(self, severity: str) -> dict[str, Any]:
        return {
            "alert": self.alert(severity),
            "expr": "\nor\n".join(self._condition(window) for window in self.windows_of(severity)),
            **_templates(self.alert_labels(severity), self.annotations(severity)),
        }

    def _condition(self, window: model.Window) -> str:
        limit = self.limit(window)
        parts = [f"{self.error(window.long)} > {number(limit)}", f"{self.error(window.short)} > {number(limit)}"]
        if self.policy.minimum_bad:
            parts.append(f"round({self.bad(window.long)}) >= {self.policy.minimum_bad}")
        sure = model.certainty(self.policy.confidence)
        if sure:
            excess = f"({self.bad(window.long)} - {number(limit)} * {self.events(window.long)})"
            spread = number(sure * limit * (1 - limit))
            parts.append(f"{excess} ^ 2 > {spread} * {self.events(window.long)}")
        return "(\n  " + "\n  and ".join(parts) + "\n)"

    def annotations(self, severity: str) -> dict[str, str]:
        """What whoever is woken reads. Nothing in it changes while the alert fires, or it would be another one each time."""
        slo = self.slo
        pace = "; ".join(self._pace(window) for window in self.windows_of(severity))
        about = f"{slo.description.strip()} " if slo.description.strip() else ""
        target = f"{number(Decimal(str(slo.target_percentage)))} % in {slo.calendar or duration(slo.period)}"
        return self._annotated(
            self.alert(severity),
            f"The error budget of {self.subject} burns too fast",
            f"{about}Objective: {target}. It fires at any of: {pace}.",
        )

    def _pace(self, window: model.Window) -> str:
        share, errors = number(Decimal(str(window.budget_share)) * 100), number(self.limit(window) * 100)
        long, short = duration(window.long), duration(window.short)
        return f"more than {share} % of the budget within {long}, and still so in the last {short} (errors above {errors} %)"

    def _annotated(self, alert: str, summary: str, description: str) -> dict[str, str]:
        found = {"summary": summary, "description": description}
        if self.options.runbook_url is not None:
            found["runbook_url"] = self.options.runbook_url.replace("{alert}", page_of(alert)).replace("{slo}", self.slo.name)
        return found

    def _unseen(self) -> dict[str, Any]:
        return {
            "alert": "ObjectiveUnseen",
            "expr": self.source.absent,
            "for": _UNSEEN_FOR,
            **_templates(self.alert_labels("ticket"), self.unseen_annotations),
        }

    @property
    def unseen_annotations(self) -> dict[str, str]:
        """What is said when there are no data."""
        name = self.slo.name
        return self._annotated(
            "ObjectiveUnseen",
            f"Nothing is known of {name}",
            f"Nobody has exported events of {name} for {_UNSEEN_FOR}: no alert of it can fire.",
        )

    def notes(self) -> Iterator[str]:
        """What is not in the rules."""
        name = self.slo.name
        if self.slo.calendar is not None:
            yield f"{name}: what is left of the {self.slo.calendar} is not recorded, for PromQL knows only windows that roll"
        if self.slo.group_by is not None and not isinstance(self.source, Events):
            yield f"{name}: its groups have no series; the rules are about all of them together"
        if self.source.series is None:
            yield f"{name}: no tests are made for events that are not in {EVENTS}"
        if isinstance(self.source, Queries) and self.options.labels:
            yield f"{name}: labels are not added to queries of one's own"


class GroupRules(Rules):
    """The rules of the groups of one objective: of each by itself, as its label ``group`` says."""

    prefix = "slo_group"
    tells_unseen = False
    example = MappingProxyType({"group": EXAMPLE})

    def __init__(self, slo: SLO, options: RuleOptions) -> None:
        """Read from the counter of groups. Sloth knows none, and would take each for the whole."""
        super().__init__(slo, GroupEvents(slo.name, options.labels), replace(options, sloth=False))

    def alert(self, severity: str) -> str:
        """The name of an alert."""
        return f"Group{super().alert(severity)}"

    @property
    def subject(self) -> str:
        """Whose budget it is."""
        return f"a group of {self.slo.name}"

    def _facts(self) -> Iterator[dict[str, Any]]:
        # What was promised is promised to all of them.
        yield self._current_burn()


def _templates(labels: Mapping[str, str], annotations: Mapping[str, str]) -> dict[str, Any]:
    """Both as an alerting rule has them, where they are templates."""
    both = {"labels": labels, "annotations": annotations}
    return {what: {name: template(text) for name, text in texts.items()} for what, texts in both.items()}


def _ratio(seconds: float, unit: float) -> Decimal:
    return round(Decimal(str(seconds)) / Decimal(str(unit)), 9)
