"""What all tests share: how Hypothesis behaves here and on a build machine."""

import os
from pathlib import Path

from hypothesis import settings

import somaresil

# Tests stop their own experiments, and not those of the test that runs beside them under the same name of a service.
os.environ.setdefault("SOMARESIL_CHAOS_SWITCH", "off")

# A session tests what it has built and installed: a source tree that got into the path would hide what the package lacks.
if os.environ.get("TESTS_WANT_THE_INSTALLED_PACKAGE") and Path(somaresil.__file__).is_relative_to(Path(__file__).parents[1] / "src"):
    raise RuntimeError(f"{somaresil.__file__} is tested, and not the package that was built")

settings.register_profile("default", deadline=None)
# The same examples in every run: a red build is a change's fault, never the draw's.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# Each mutant runs these tests once; equal examples keep the kill rate comparable.
settings.register_profile("mutate", deadline=None, derandomize=True, max_examples=60)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))
