"""What all tests share: how Hypothesis behaves here and on a build machine."""

import os

from hypothesis import settings

# Tests stop their own experiments, and not those of the test that runs beside them under the same name of a service.
os.environ.setdefault("SOMARESIL_CHAOS_SWITCH", "off")

settings.register_profile("default", deadline=None)
# The same examples in every run: a red build is a change's fault, never the draw's.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# Each mutant runs these tests once; equal examples keep the kill rate comparable.
settings.register_profile("mutate", deadline=None, derandomize=True, max_examples=60)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))
