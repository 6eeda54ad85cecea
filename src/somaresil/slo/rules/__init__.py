"""Objectives as recording and alerting rules of Prometheus, with tests of them for promtool. Text alone: nothing is asked or written here.

    for name, text in compile_rules(slos, RuleOptions(service="gateway", retention=timedelta(days=45))).files.items(): ...

Ratios are of events, summed over the whole of each window: never means of ratios, which weigh a quiet night as much as a busy day. Numbers
are exact decimals. What would not work is refused before it is written, all of it at once. See :mod:`somaresil.slo.rules.checks`.
"""

from somaresil.slo.rules.compiler import Compiled, compile_rules
from somaresil.slo.rules.options import RuleOptions
from somaresil.slo.rules.source import Histogram, Queries, Source

__all__ = ["Compiled", "Histogram", "Queries", "RuleOptions", "Source", "compile_rules"]
