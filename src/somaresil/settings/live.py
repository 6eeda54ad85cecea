"""Options from outside at work: laid over what the code says when a guard is made, and changed while the service runs.

Precedence, highest first: a live change, an environment variable, ``SOMARESIL_CONFIG``, the file that the code reads (in each file the
overlay of the environment before the rest), the code. Every change is all or nothing: it is worked out and made ready for every guard
before the first of them takes it over.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError, PipelineWarning
from somaresil.guard.assembly import configuring
from somaresil.guard.change import Change, Setting, changed, changes_between, settings_of, tell
from somaresil.guard.lint import findings
from somaresil.model.selector import matches
from somaresil.settings.entries import Entry, entries_of, folded, is_pattern
from somaresil.settings.variables import CONFIG, entries_of_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from somaresil.errors import Problem
    from somaresil.guard.assembly import Prepared
    from somaresil.guard.core import Guard
    from somaresil.guard.lint import Finding
    from somaresil.guard.options import GuardOptions
    from somaresil.listeners import Listeners
    from somaresil.settings.origins import Origin
    from somaresil.typing import Clock

__all__ = ["Settings", "Unused", "read_entries", "warn"]

_log = logging.getLogger("somaresil")


@dataclass(frozen=True, slots=True)
class Unused:
    """Something that was set for a guard that no code has made."""

    where: str
    """File, line and path, or the name of the variable."""
    guard: str
    """The name or pattern."""
    hint: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.where}: no guard is called that" + (f" ({self.hint})" if self.hint else "")


class Settings:
    """What was said about guards outside the code, and the changes that follow from it. One for each :class:`Resilience`."""

    def __init__(
        self,
        guards: Callable[[], Mapping[str, Guard]],
        lock: AbstractContextManager[object],
        entries: tuple[Entry, ...],
        *,
        environment: str | None,
        strict: bool,
        listeners: Listeners,
        clock: Clock,
    ) -> None:
        """``guards`` gives those that are there, ``lock`` is held while one is made, ``entries`` is what was said already."""
        self._guards = guards
        self._lock = lock
        self._environment = environment
        self._strict = strict
        self._listeners = listeners
        self._clock = clock
        self.entries = entries
        """What was read, lowest precedence first."""

    # -- when a guard is made ---------------------------------------------------------------------------------------------------------

    def settled(self, name: str, coded: GuardOptions) -> tuple[GuardOptions, tuple[Finding, ...]]:
        """The options of a new guard, with what was said outside laid over those of the code, and what is surely wrong with them.

        Raises :class:`~somaresil.errors.ConfigurationError` for what does not go together, and for findings in a process that is strict.
        """
        check = Checker()
        options = _settled(self.entries, name, coded, check, self._guards()) if self.entries else coded
        found = self._judge(name, options, check)
        check.finish()
        return options, found

    def unused(self) -> tuple[Unused, ...]:
        """What was set for guards that no code has made. Ask when the service is up."""
        names = tuple(self._guards())
        found = [entry for entry in self.entries if not any(entry.is_for(name) for name in names)]
        near = {folded(name): name for name in names}
        return tuple(Unused(entry.where, entry.guard, did_you_mean(entry.guard, near if entry.folded else names)) for entry in found)

    def origins(self, guard: Guard) -> dict[str, Origin]:
        """Where each option of a guard and each field of it comes from: see :mod:`somaresil.settings.origins`."""
        from somaresil.settings.origins import origins  # not for every service that starts

        with self._lock:
            entries, guards = self.entries, self._guards()
        return origins(guard, entries, _settled(entries, guard.name, guard.coded, Checker(), guards))

    # -- while the service runs -------------------------------------------------------------------------------------------------------

    def reconfigure(self, changes: Mapping[str, Any], *, by: str = "", dry_run: bool = False) -> tuple[Change, ...]:
        """See :meth:`Resilience.reconfigure`."""
        check = Checker()
        _check_words(check, by, dry_run)
        with configuring:
            guards = self._guards()
            wanted = _by_guard(changes, guards, check)
            targets = {name: changed(guards[name].options, settings, check) for name, settings in wanted.items()}
            ready, done, found = self._prepared(guards, targets, check, dry_run=dry_run)
            for guard, prepared in ready:
                guard.commit(prepared)
        self._tell(done, found, by, dry_run=dry_run)
        return done

    def configure_from(self, source: Any, *, environment: str | None = None, by: str = "", dry_run: bool = False) -> tuple[Change, ...]:
        """See :meth:`Resilience.configure_from`."""
        check = Checker()
        _check_words(check, by, dry_run)
        if environment is not None:
            check.name("environment", environment)
        entries = read_entries(source, self._environment if environment is None else environment, check)
        with configuring:
            with self._lock:
                guards = self._guards()
                targets = {name: _settled(entries, name, guard.coded, check, guards) for name, guard in guards.items()}
                ready, done, found = self._prepared(guards, targets, check, dry_run=dry_run)
                if not dry_run:
                    # Guards that are made from here on are made with it.
                    self.entries = entries
                    self._environment = self._environment if environment is None else environment
            for guard, prepared in ready:
                guard.commit(prepared)
        self._tell(done, found, by or _named(source), dry_run=dry_run)
        return done

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _judge(self, name: str, options: GuardOptions, check: Checker, before: GuardOptions | None = None) -> tuple[Finding, ...]:
        """What is surely wrong with a pipeline and was not so before; noted as problems when this process is strict."""
        known = () if before is None else findings(before)
        found = tuple(finding for finding in findings(options) if finding not in known)
        if self._strict:
            for finding in found:
                policy, _, field = finding.path.partition(".")
                value = getattr(options, policy, None)
                value = getattr(value, field, None) if field else value
                hint = f"{finding.message}; {finding.hint}"
                check.problem(f"guard({name!r}).{finding.path}", value, f"a pipeline without findings [{finding.code}]", hint)
        return found

    def _prepared(
        self, guards: Mapping[str, Guard], targets: Mapping[str, GuardOptions], check: Checker, *, dry_run: bool
    ) -> tuple[list[tuple[Guard, Prepared]], tuple[Change, ...], list[tuple[Guard, Finding]]]:
        """Everything that can go wrong goes wrong here, for all guards, before the first of them is changed."""
        different = {guards[name]: options for name, options in targets.items() if options != guards[name].options}
        found: list[tuple[Guard, Finding]] = []
        changes: list[Change] = []
        for guard, options in different.items():
            guard.note_misfits(check, options, f"guard({guard.name!r}).")
            found += [(guard, finding) for finding in self._judge(guard.name, options, check, guard.options)]
            changes += changes_between(guard.name, guard.options, options)
        _finish(check)
        ready: list[tuple[Guard, Prepared]] = []
        try:
            for guard, options in different.items():
                if not dry_run:
                    ready.append((guard, guard.prepare(options)))
        except BaseException:
            for guard, prepared in ready:
                guard.discard(prepared)
            raise
        return ready, tuple(changes), found

    def _tell(self, changes: Sequence[Change], found: Iterable[tuple[Guard, Finding]], by: str, *, dry_run: bool) -> None:
        for guard, finding in found:
            # Not as a warning: a filter may make an error of that, and then it would look as if nothing had been changed.
            _log.warning("%s", words(guard.name, guard.where, finding))
        if not dry_run:
            tell(self._listeners, self._clock.time(), changes, by)


def read_entries(source: Any, environment: str | None, check: Checker) -> tuple[Entry, ...]:
    """What the source, the file named by ``SOMARESIL_CONFIG`` and the variables say, lowest precedence first."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("SOMARESIL_")}
    config = variables.get(CONFIG)
    sources = [] if source is None else [source]
    if config and not (isinstance(source, str | os.PathLike) and os.fspath(source) == config):
        sources.append(config)
    entries: list[Entry] = []
    for each in sources:
        entries += _of_source(each, environment, check)
    return (*entries, *entries_of_variables(variables, check))


def warn(name: str, where: str, found: Iterable[Finding]) -> None:
    """Warn of what was found in a guard that was just made at ``where`` (file and line)."""
    file, _, line = where.rpartition(":")
    for finding in found:
        warnings.warn_explicit(words(name, "", finding), PipelineWarning, file or "somaresil", int(line) if line.isdecimal() else 0)


def words(name: str, where: str, finding: Finding) -> str:
    """A finding as one line."""
    return f"guard {name!r}{f' ({where})' if where else ''}: {finding}"


def _settled(entries: Iterable[Entry], name: str, coded: GuardOptions, check: Checker, guards: Iterable[str]) -> GuardOptions:
    """The options of the code with all that is said of the guard laid over them."""
    ours = [entry for entry in entries if entry.is_for(name)]
    if not ours:
        return coded
    for entry in ours:
        alike = sorted(other for other in guards if other != name and folded(other) == entry.guard) if entry.folded else []
        if alike:
            hint = f"it could be {name!r} or {alike[0]!r}: say it in a file"
            check.problem(entry.where, entry.settings[0].value, "the name of one guard", hint)
    return changed(coded, [setting for entry in ours for setting in entry.settings], check)


def _by_guard(changes: Any, guards: Mapping[str, Guard], check: Checker) -> dict[str, list[Setting]]:
    """What is to be changed in each guard: patterns in their order, then what is said of a guard by name."""
    wanted: dict[str, list[Setting]] = {}
    if not isinstance(changes, Mapping):
        check.problem("changes", changes, "a mapping by name of guard, or pattern", "{'llm.*': {'timeout': 8.0}}")
        return wanted
    patterns: list[Any] = [key for key in changes if is_pattern(str(key))]
    for key in (*patterns, *(key for key in changes if key not in patterns)):
        where = f"guards.{key!r}"
        names = [name for name in guards if matches(key, name)] if isinstance(key, str) and is_pattern(key) else [key]
        names = [name for name in names if name in guards]
        if not names:
            known = ", ".join(sorted(guards)[:10]) or "there is none"
            what = "a pattern that matches a guard" if is_pattern(str(key)) else "a guard that was made"
            check.problem(where, changes[key], f"{what} ({known})", did_you_mean(key, guards))
        for setting in settings_of(changes[key], where, check):
            for name in names:
                wanted.setdefault(name, []).append(setting)
    return wanted


def _of_source(source: Any, environment: str | None, check: Checker) -> tuple[Entry, ...]:
    from somaresil.settings.files import document_of  # only who has a file needs the readers of files

    if not isinstance(source, str | os.PathLike | Mapping):
        check.problem("settings", source, "the path of a file, or a mapping")
        return ()
    document = document_of(source, check)
    return () if document is None else entries_of(document, environment, check)


def _check_words(check: Checker, by: object, dry_run: object) -> None:
    check.type("by", by, str, "who and why, as text")
    check.type("dry_run", dry_run, bool, "True or False")


def _named(source: Any) -> str:
    return f"file {os.fspath(source)!s}" if isinstance(source, str | os.PathLike) else "configure_from"


def _finish(check: Checker) -> None:
    """Raise each problem once: a pattern has it for every guard that it matches."""
    problems: list[Problem] = []
    for problem in check.problems:
        if problem not in problems:
            problems.append(problem)
    if problems:
        raise ConfigurationError(problems)
