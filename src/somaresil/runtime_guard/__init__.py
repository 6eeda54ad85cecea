"""What this process may do beyond its own memory: start programs, connect, write files, load native code. An audit hook with allow-lists.

    rules = RuntimeRules(processes=(), hosts=("api.example.com:443", "10.0.0.0/8"), writes=("/var/lib/gateway",), native=("python",))
    RuntimeGuard(resilience, rules).start()

What no list allows is told and counted, or refused where the rules say so. It is the part of "an unauthorised process in the container"
that is seen from within, at the moment it is asked for and with the service's own names; ``somaresil render falco`` writes the same rules
for Falco, which sees the rest from without.

It is **no sandbox** (PEP 578 says so of audit hooks): code in the process that wants to get around it can, by C libraries that Python does
not see, or by taking the hook's data apart. It finds what should not be there: a dependency that phones home, a template that runs a
shell, a path that leaves its folder.
"""

from __future__ import annotations

from somaresil.runtime_guard.rules import Rule, RuntimeRules, read_rules
from somaresil.runtime_guard.watch import RuntimeGuard

__all__ = ["Rule", "RuntimeGuard", "RuntimeRules", "read_rules"]
