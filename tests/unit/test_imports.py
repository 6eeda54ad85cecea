"""What `import somaresil` brings with it."""

import json
import subprocess
import sys

LIST_MODULES = "import json, sys; before = set(sys.modules); import somaresil; print(json.dumps(sorted(set(sys.modules) - before)))"


def test_import_needs_the_standard_library_alone():
    """No third party is imported before it is needed."""
    result = subprocess.run([sys.executable, "-c", LIST_MODULES], capture_output=True, text=True, timeout=60, check=True)
    packages = {name.partition(".")[0] for name in json.loads(result.stdout)}
    assert "somaresil" in packages
    assert packages - set(sys.stdlib_module_names) - {"somaresil"} == set()
