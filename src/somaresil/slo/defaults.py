"""The four objectives of an agent service.

resilience.slos.add(*somaresil.slo.defaults.ALL)
"""

from datetime import timedelta

from somaresil.slo.objective import SLO

__all__ = ["ALL", "API_AVAILABILITY", "CIRCUIT_RECOVERY", "LLM_LATENCY", "MEMORY_WRITES"]

API_AVAILABILITY = SLO("api_availability", 99.9, timedelta(days=30), "fast_burn_alert", description="Requests to the API are answered.")
LLM_LATENCY = SLO("llm_latency_p95", 95.0, timedelta(days=7), "gradual_burn", latency=2.0, description="Model calls are answered in 2 s.")
MEMORY_WRITES = SLO("memory_writes", 99.5, timedelta(days=30), "fast_burn_alert", description="Memory writes succeed.")
CIRCUIT_RECOVERY = SLO(
    "circuit_recovery",
    95.0,
    timedelta(days=30),
    "gradual_burn",
    recovery=300.0,
    description="A circuit is closed again within 5 minutes of the first bad call.",
)

ALL = (API_AVAILABILITY, LLM_LATENCY, MEMORY_WRITES, CIRCUIT_RECOVERY)
