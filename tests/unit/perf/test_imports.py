import json
import subprocess
import sys

LIST = "import json, sys; before = set(sys.modules); {}; print(json.dumps(sorted(set(sys.modules) - before)))"


def modules(code):
    """Give what a line imports, in a fresh process."""
    result = subprocess.run([sys.executable, "-c", LIST.format(code)], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(result.stdout)


def test_statistics_need_the_standard_library_alone():
    """The detector and the budgets, and what they need when they answer."""
    code = "from somaresil.perf import RegressionDetector as R; R().compare([1.0] * 9, [2.0] * 9); R().history([1.0, 2.0] * 30)"
    packages = {name.partition(".")[0] for name in modules(code)}
    assert packages - set(sys.stdlib_module_names) - {"somaresil"} == set()


def test_names_are_loaded_when_they_are_used():
    """The package costs nothing, somaresil itself knows nothing of it, and a name that is none says so."""
    assert [name for name in modules("import somaresil") if name.startswith("somaresil.perf")] == []
    assert "somaresil.perf.detector" not in modules("import somaresil.perf")
    found = modules("import somaresil.perf as p; assert all(hasattr(p, n) for n in p.__all__); assert not hasattr(p, 'nothing')")
    assert {"somaresil.perf.detector", "somaresil.perf.budget"} <= set(found)
