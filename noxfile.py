"""Everything a contributor or a build machine runs, each as one nox session.

`python3 -m nox -s tests` and `python3 -m nox -s demo` need nothing but Python and pip.
A plain `nox` runs every check that a change must pass.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

nox.needs_version = ">=2025.11.12"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"
nox.options.sessions = ["lint", "types", "imports", "tests", "browser", "docs", "site", "bench-smoke"]

ROOT = Path(__file__).resolve().parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
SUPPORTED = [
    line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if line.startswith("Programming Language :: Python :: 3.")
]
PACKAGE = ".[demo,otel,pytest]"
KEEP_COMPILED = {"PYTHONDONTWRITEBYTECODE": None, "TESTS_WANT_THE_INSTALLED_PACKAGE": "1"}
"""pytest compiles its plugins anew: where that may not be kept, each start of one takes a second longer, and some tests start their own."""
ELSEWHERE = ("tests/browser", "tests/docs")
"""What has a session of its own."""
WAITING = ("tests/integration", "tests/planted", "tests/security")
"""Tests that mostly wait for other processes: one more of them runs at once than there are cores."""
EVERYWHERE = (
    "tests/behaviour",
    "tests/plugin",
    "tests/unit",
    *(
        f"tests/integration/test_{name}.py"
        for name in (
            "asgi_uvicorn",
            "canary_uvicorn",
            "dashboard_workers",
            "journal_processes",
            "kill_switch",
            "logs",
            "multiprocess",
            "otlp",
            "redis",
            "servers",
            "slo_workers",
        )
    ),
)
"""What is run on every Python: it depends on the interpreter, its threads, forks and sockets.

All the rest asks less of the Python than of what it runs, or is arithmetic, and runs on the oldest one."""
ONCE = ("tests/unit/drill/test_simulation.py", "tests/unit/canary/test_render.py", "tests/unit/testing/test_pytest_plugin.py")
"""What is none the less run on the oldest Python alone: it takes long."""
SLOWEST = ("--durations", "40", "--durations-min", "4")
"""What pytest tells of tests that take long."""
MEASURED = (("unit", "property", "behaviour"), ("integration", "plugin"))
"""Folders of tests whose branch coverage is measured: those that compute, and those that mostly wait."""
SERVERS = (
    "haproxy",
    "nginx-light",
    "postgresql",
    "prometheus",
    "prometheus-alertmanager",
    "redis-server",
    "rsyslog",
    "victoria-metrics",
)
"""What the tests start."""
GO_PEERS = ("golang-go", "golang-github-hashicorp-go-retryablehttp-dev", "golang-github-antonmedv-expr-dev")
"""What tests/peers is built with: the libraries with which engines of canaries ask."""
GO_SOURCES = Path("/usr/share/gocode/src/github.com")
FUZZ_SECONDS = 60
"""Seconds that a target of the fuzzer takes at most: there are some sixty of them, and most are done in a few."""
FOUR_THREADS = ("-p", "tests.parallel", "--parallel-threads", "4", "--iterations", "1", "--timeout", "120")
"""How pytest runs a test in several threads: with pytest-run-parallel, and with what parts the threads."""
FEWER_EXAMPLES = {"HYPOTHESIS_PROFILE": "parallel"}
FREE_THREADED = ("3.14t", "3.13t")
"""Pythons without a global lock, the first that is here is used."""
NEWCOMER_SECONDS = 60
"""From an empty folder to the first guarded call, installation included."""
BRANCH_FLOOR = 95
"""Percent of all lines and branches that the tests must reach."""
DECIDING = "src/somaresil/model/*,src/somaresil/policy/*,src/somaresil/guard/*"
DECIDING_FLOOR = 97
"""Percent of those where a missed branch is a wrong decision."""
KILL_FLOOR = 95
"""Percent of the wrong changes that the tests of each group must notice."""
MUTATED = ["gate", "tokens", "chaos", "model"]


def _group(name: str) -> list[str]:
    """Give the requirements of one dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


def _folders_of(*kinds: str) -> list[str]:
    """Give those folders of tests that are there."""
    return [f"tests/{kind}" for kind in kinds if (ROOT / "tests" / kind).is_dir()]


def _reports(candidate: Path, version: str) -> bool:
    """Tell whether the file is an interpreter that starts and has this version: a shim may name one that is not there."""
    try:
        answer = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and answer.stdout.strip() == version


def _folders() -> Iterator[Path]:
    """Give the folders that may hold interpreters, the most trusted first."""
    yield Path(sys.executable).parent
    yield from (Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry)
    for home in (os.environ.get("PYENV_ROOT"), "~/.pyenv"):
        if home:
            # Of several patch releases the newest: a longer number is a higher one.
            yield from sorted(
                Path(home).expanduser().glob("versions/*/bin"), key=lambda folder: (len(str(folder)), str(folder)), reverse=True
            )


def _find(version: str) -> Path | None:
    """Find a working interpreter of this version."""
    for folder in _folders():
        candidate = folder / f"python{version}"
        if os.access(candidate, os.X_OK) and _reports(candidate, version):
            return candidate
    return Path(sys.executable) if version == RUNNING else None


def _free_threaded() -> Path | None:
    """Find a working Python that was built without a global lock, the newest first."""
    for version in FREE_THREADED:
        for folder in _folders():
            candidate = folder / f"python{version}"
            if os.access(candidate, os.X_OK) and _reports(candidate, version.removesuffix("t")):
                return candidate
    return None


def _usable() -> tuple[list[str], list[str]]:
    """Split the supported versions into those to test with and those that are missing.

    Each folder found goes to the front of PATH, so that neither nox nor its backends stop at a shim without an interpreter behind it.
    """
    usable, missing = [], []
    for version in dict.fromkeys([*SUPPORTED, RUNNING]):
        found = _find(version)
        if found is None:
            missing.append(version)
        elif found.name == f"python{version}":
            if shutil.which(found.name) != str(found):
                os.environ["PATH"] = os.pathsep.join([str(found.parent), os.environ.get("PATH", "")])
            usable.append(version)
        else:
            usable.append(str(found))
    return usable, missing


PYTHONS, MISSING = _usable()


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep Debian's maintainer scripts from starting what they install."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def _is_there(package: str) -> bool:
    """Tell whether the program of a Debian package is there; PostgreSQL's are not in the path, and libraries for Go are sources."""
    if package in GO_PEERS:
        return {
            "golang-go": shutil.which("go") is not None,
            "golang-github-hashicorp-go-retryablehttp-dev": (GO_SOURCES / "hashicorp/go-retryablehttp").is_dir(),
            "golang-github-antonmedv-expr-dev": (GO_SOURCES / "antonmedv/expr").is_dir(),
        }[package]
    if package == "postgresql":
        return any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    program = {"nginx-light": "nginx", "rsyslog": "rsyslogd"}.get(package, package)
    return shutil.which(program) is not None or shutil.which(f"/usr/sbin/{program}") is not None


def _debian(session: nox.Session, *packages: str) -> None:
    """Install Debian packages whose program is missing.

    Where that fails, what needs the program skips by name, so a failure here is never an error.
    """
    missing = [package for package in packages if not _is_there(package)]
    if not missing:
        return
    names = ", ".join(missing)
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        session.log(f"Not installed: {names}. This needs root and apt-get; what depends on it is skipped by name.")
        return
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    anyhow = range(256)
    wait = ["-o", "DPkg::Lock::Timeout=120", "-q"]
    with _no_service_starts():
        session.run("apt-get", *wait, "update", env=quiet, external=True, silent=True, success_codes=anyhow)
        install = ["install", "-y", "--no-install-recommends", *missing]
        session.run("apt-get", *wait, *install, env=quiet, external=True, silent=True, success_codes=anyhow)
    for package in missing:
        if not _is_there(package):
            session.log(f"Debian package {package} could not be installed; what depends on it is skipped by name.")


def _pytest(
    session: nox.Session, *arguments: str, prefix: tuple[str, ...] = ("python", "-m", "pytest"), workers: int | str = "auto", **options: Any
) -> None:
    """Run pytest on all cores; a test that hangs is ended by name, not by the build machine."""
    session.run(*prefix, "-n", str(workers), "--dist", "worksteal", "--timeout", "180", *SLOWEST, *arguments, env=KEEP_COMPILED, **options)


def _pytest_in_turn(session: nox.Session, computing: Sequence[str], waiting: Sequence[str], **options: Any) -> None:
    """Run tests that compute on all cores, then those that wait on one more; also after the first have failed, and fail in the end."""
    failed = []
    for workers, chosen in (("auto", computing), ((os.cpu_count() or 1) + 1, waiting)):
        try:
            _pytest(session, *chosen, workers=workers, **options)
        except nox.command.CommandFailed:
            failed.append(" ".join(chosen))
    if failed:
        session.error(f"failed: {'; '.join(failed)}")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests against the built package: all of them on the oldest Python, and on every other one what depends on the Python."""
    _debian(session, *SERVERS, *GO_PEERS, "hyperfine", "wrk")
    for version in MISSING:
        session.notify(f"tests-{version}")
    session.install(PACKAGE, *_group("test"))
    if session.posargs:
        _pytest(session, *session.posargs)
    elif session.python != PYTHONS[0]:
        _pytest(session, *(f"--ignore={path}" for path in ONCE), *EVERYWHERE)
    else:
        computing = [*(f"--ignore={folder}" for folder in (*ELSEWHERE, *WAITING)), "tests"]
        _pytest_in_turn(session, computing, WAITING)


def _absent(version: str) -> None:
    """Register a session that says by name that this Python is missing."""

    @nox.session(name=f"tests-{version}", venv_backend="none", default=False)
    def absent(session: nox.Session) -> None:
        """Say that this Python is not here."""
        session.skip(f"no working Python {version} was found")


for _version in MISSING:
    _absent(_version)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the tests without servers on the oldest dependencies that pyproject.toml admits."""
    project = PROJECT["project"]
    admitted = [*project["dependencies"], *project["optional-dependencies"]["pytest"]]
    # What the test kit adapts to is no dependency of anybody's, but its oldest release is named too.
    # So is that of scipy: Hypothesis of those days asks NumPy, if it is there, for what its second version has no more.
    adapted = [requirement for requirement in _group("test") if requirement.startswith(("aiohttp>", "anyio>", "scipy>"))]
    # Needs newer releases of what is pinned here, and only tests with servers use it.
    others = [requirement for requirement in _group("test") if not requirement.startswith("schemathesis")]
    session.install(PACKAGE, *(requirement.replace(">=", "==") for requirement in [*admitted, *adapted]), *others)
    _pytest(session, *_folders_of("unit", "property", "behaviour"), *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """Drive the page of the dashboard with a real browser, on the oldest Python."""
    _debian(session, "chromium")
    session.install(PACKAGE, *_group("browser"))
    _pytest(session, *(session.posargs or ["tests/browser"]))


@nox.session
def orders(session: nox.Session) -> None:
    """Run the plugin's own suite in random orders (default 100, or as many as are asked for): no test may leave anything to the next."""
    session.install(PACKAGE, *_group("test"))
    count = int(session.posargs[0]) if session.posargs else 100
    for seed in range(count):
        options = ["-q", "--random-order-bucket=global", f"--random-order-seed={seed}", "-p", "no:cacheprovider"]
        session.run("python", "-m", "pytest", "tests/plugin", "-n", "2", *options, silent=True, env=KEEP_COMPILED)
    session.log(f"{count} random orders passed, and nothing was left behind")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo: a real gateway and worker under load, attacked on purpose, with a report."""
    if "--prometheus" in session.posargs:
        _debian(session, "prometheus")
    session.install(".[demo]")
    # The demo stops its own children on Ctrl-C and needs a moment for it.
    session.run("python", "-m", "somaresil", "demo", *session.posargs, interrupt_timeout=15, terminate_timeout=5)


@nox.session(default=False)
def drill(session: nox.Session) -> None:
    """Strike a real stack with two hundred faults, and write what became of them to drill-report/; takes about seven minutes."""
    _debian(session, "prometheus", "redis-server")
    session.install(".[drill]")
    # It stops its own children on Ctrl-C and needs a moment for it.
    session.run("python", "-m", "somaresil", "drill", *session.posargs, interrupt_timeout=15, terminate_timeout=5)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*_group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check annotations with mypy and pyright, and how users see them with ty and pyrefly too."""
    session.install(PACKAGE, *_group("types"))
    session.run("mypy", "--strict")
    session.run("pyright", "--pythonpath", str(Path(session.bin) / "python"))
    session.run("python", "tests/typing_judges.py")


@nox.session
def imports(session: nox.Session) -> None:
    """Check that each module imports only from the floors below it."""
    session.install(".", *_group("imports"))
    session.run("lint-imports", "--no-cache")


@nox.session
def docs(session: nox.Session) -> None:
    """Run every Python block of README.md and docs/."""
    session.install(PACKAGE, *_group("test"))
    _pytest(session, "tests/docs", *session.posargs)


@nox.session
def site(session: nox.Session) -> None:
    """Build the documentation as a site in build/site, with the reference; a link that leads nowhere ends it."""
    session.install(*_group("site"))
    session.run("zensical", "build", "--clean", "--strict", *session.posargs)


def _benchmarks() -> list[str]:
    """Give the scripts in benchmarks/: the files that do something when run."""
    return [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("benchmarks/*.py")) if "__main__" in path.read_text(encoding="utf-8")]


PARTS = (["benchmarks/overhead.py", "--otel"],)
"""What a script measures only when it is asked to."""


def _run_benchmarks(session: nox.Session, *arguments: str, lanes: int = 1) -> None:
    """Run every benchmark, also after one has failed, and fail with the names of those that did; in several lanes no figure is of worth."""
    scripts = _benchmarks()
    if not scripts:
        session.error("benchmarks/ has no script")
    commands = [*([script] for script in scripts), *PARTS]
    environment = {**os.environ, "PATH": os.pathsep.join([str(session.bin), os.environ.get("PATH", "")])}

    def run(command: list[str]) -> int:
        whole = [str(Path(session.bin) / "python"), *command, *arguments]
        if lanes == 1:
            return subprocess.run(whole, check=False, env=environment).returncode
        done = subprocess.run(whole, check=False, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        sys.stdout.write(f"\n$ {' '.join(command)}\n{done.stdout}")
        sys.stdout.flush()
        return done.returncode

    with ThreadPoolExecutor(lanes) as pool:
        codes = list(pool.map(run, commands))
    failed = [" ".join(command) for command, code in zip(commands, codes, strict=True) if code]
    if failed:
        session.error(f"failed: {', '.join(failed)}")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against peers and fail on any ratio that is not met."""
    session.install(PACKAGE, *_group("bench"))
    _run_benchmarks(session, "--check", *session.posargs)


@nox.session(name="bench-smoke")
def bench_smoke(session: nox.Session) -> None:
    """Run each benchmark briefly: it works, whatever this machine's speed."""
    session.install(PACKAGE, *_group("bench"))
    _run_benchmarks(session, "--quick", *session.posargs, lanes=os.cpu_count() or 1)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed two million inputs (or as many as are asked for) to every parser of what strangers and files give; what is unhandled fails."""
    session.install(".[chaostoolkit,demo,otel,pytest,redis,scan,schedule,top,yaml]")
    try:
        session.install(*_group("fuzz"), silent=True)
    except nox.command.CommandFailed:
        session.skip("atheris cannot be installed here: it has wheels for some Pythons on Linux and macOS")
    inputs = session.posargs or ["2000000"]
    found = Path(session.create_tmp()) / "found"
    session.run("python", "tests/fuzz/everything.py", *inputs, f"--seconds={FUZZ_SECONDS}", f"--found={found}")


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Look up everything that somaresil may bring along; needs a way to OSV's service, or a copy of its database: -- --database PATH."""
    session.install(".[aiohttp,demo,drill,grpc,httpx,kubernetes,load,locust,otel,pytest,redis,scan,schedule,sqlalchemy,yaml]")
    session.run("python", "-m", "somaresil", "scan", "--name", "somaresil", *session.posargs)


@nox.session
def parallel(session: nox.Session) -> None:
    """Run each unit test in four threads at once: they share the code under test and nothing else.

    What cannot be parted is left out by the rules of tests/parallel.py, and how many tests each of them has left out is told at the end.
    """
    session.install(PACKAGE, *_group("parallel"))
    chosen = session.posargs or ["tests/unit"]
    session.run("python", "-m", "pytest", "-n", "auto", "--dist", "worksteal", *FOUR_THREADS, *chosen, env=KEEP_COMPILED | FEWER_EXAMPLES)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Keep a real service busy for ten minutes, or for `--minutes 60`, and judge what it keeps and counts."""
    session.install(PACKAGE, *_group("bench"))
    session.run("python", "benchmarks/soak.py", "--check", *session.posargs)


@nox.session(default=False, venv_backend="none")
def freethreaded(session: nox.Session) -> None:
    """Run unit tests in four threads and the interleavings on a Python without a global lock, if one is here."""
    found = _free_threaded()
    if found is None:
        names = " or ".join(f"python{version}" for version in FREE_THREADED)
        session.skip(f"no working {names} was found in PATH or pyenv; docs/guides/concurrency.md says how to get one")
    home = Path(session.create_tmp()) / "python"
    session.run(str(found), "-m", "venv", "--clear", str(home), external=True)
    python = str(home / "bin" / "python")
    # An older release that has a wheel rather than a newer one that would have to be built, perhaps with another language's compiler.
    session.run(python, "-m", "pip", "install", "-q", "--prefer-binary", ".", *_group("freethreaded"), external=True)
    unlocked = {**KEEP_COMPILED, **FEWER_EXAMPLES, "PYTHON_GIL": "0"}
    check = "import sys, somaresil; sys.exit(sys._is_gil_enabled())"
    session.run(python, "-c", check, external=True, env=unlocked)
    folders = _folders_of("unit/model", "unit/policy", "unit/guard")
    session.run(python, "-m", "pytest", *FOUR_THREADS, *(session.posargs or folders), external=True, env=unlocked)
    alone = ["--timeout", "120", "tests/behaviour/test_interleavings.py", "tests/behaviour/test_every_preemption.py"]
    session.run(python, "-m", "pytest", *alone, external=True, env=unlocked)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure branch coverage, also of what tests start; hold a floor over all, and one where a miss is a wrong decision."""
    _debian(session, *SERVERS, *GO_PEERS)
    session.install(PACKAGE, *_group("coverage"))
    session.run("coverage", "erase")
    _pytest_in_turn(session, *(_folders_of(*kinds) for kinds in MEASURED), prefix=("coverage", "run", "-m", "pytest"))
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", f"--fail-under={BRANCH_FLOOR}", "--precision=2")
    session.run("coverage", "report", f"--include={DECIDING}", f"--fail-under={DECIDING_FLOOR}", "--precision=2")


@nox.session
def mutate(session: nox.Session) -> None:
    """Change what decides in small wrong ways and see that the tests notice: all groups, or those that are named (gate tokens chaos model).

    Each group is shared out among the cores. Options of tests/mutation/run.py follow a second --, as in: gate -- --only _override
    """
    session.install(PACKAGE, *_group("mutate"))
    cut = session.posargs.index("--") if "--" in session.posargs else len(session.posargs)
    groups, options = session.posargs[:cut] or MUTATED, session.posargs[cut + 1 :]
    surroundings = {
        "HYPOTHESIS_PROFILE": "mutate",
        "PYTHONPATH": str(ROOT / "src"),
        **({"CI": os.environ["CI"]} if "CI" in os.environ else {}),
    }
    below = []
    for group in groups:
        asked = ["--floor", str(KILL_FLOOR), "--lanes", str(os.cpu_count() or 1), *options]
        try:
            session.run("python", "-m", "tests.mutation.run", group, *asked, env=surroundings)
        except nox.command.CommandFailed:
            below.append(group)
    if below:
        session.error(f"below {KILL_FLOOR} %, or not done: {', '.join(below)}")


SURROUNDINGS = (
    {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "0", "umask": "022"},
    {"TZ": "Pacific/Chatham", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "4711", "umask": "077"},
)
"""In what the archives are built: they must not tell."""
INSIDE = (
    "somaresil/py.typed",
    "somaresil/_version.py",
    "somaresil/dashboard/static/index.html",
    "licenses/LICENSE",
    "sboms/vendored.cdx.json",
)
"""What the wheel must have."""


def _built(session: nox.Session, target: Path, surroundings: dict[str, str]) -> dict[str, Path]:
    """Build wheel and source archive of the last commit, in a copy of the tree; give them by the ends of their names."""
    copy = target / "tree"
    copy.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "--touch", "-C", str(copy)], input=archive.stdout, check=True)
    stamp = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    around = {name: value for name, value in surroundings.items() if name != "umask"} | {"SOURCE_DATE_EPOCH": stamp}
    before = os.umask(int(surroundings["umask"], 8))
    try:
        session.run("python", "-m", "build", "--no-isolation", "--outdir", str(target / "dist"), str(copy), env=around, silent=True)
    finally:
        os.umask(before)
    return {path.suffix: path for path in (target / "dist").iterdir()}


def _differing(one: Path, other: Path) -> str:
    """Name the first member that differs between two archives."""
    members = []
    for path in (one, other):
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                members.append([(info.filename, info.CRC, info.date_time, info.external_attr) for info in wheel.infolist()])
        else:
            with tarfile.open(path) as archive:
                members.append([(info.name, info.size, info.mtime, info.mode, info.uid, info.chksum) for info in archive.getmembers()])
    return next((f"{ours} here, {theirs} there" for ours, theirs in zip(*members, strict=False) if ours != theirs), "the order, or the end")


@nox.session
def build(session: nox.Session) -> None:
    """Build wheel and source archive of the last commit into dist/: twice, in different surroundings, to the same bytes."""
    session.install(*_group("build"))
    scratch = Path(session.create_tmp()).resolve()
    shutil.rmtree(scratch, ignore_errors=True)
    first, second = (_built(session, scratch / str(index), surroundings) for index, surroundings in enumerate(SURROUNDINGS))
    for suffix, path in first.items():
        digests = [hashlib.sha256(each.read_bytes()).hexdigest() for each in (path, second[suffix])]
        session.log(f"{path.name}: {digests[0]}")
        if digests[0] != digests[1]:
            session.error(f"{path.name} is not reproducible: {_differing(path, second[suffix])}")
    names = zipfile.ZipFile(first[".whl"]).namelist()
    absent = [part for part in INSIDE if not any(name.endswith(part) for name in names)]
    if absent:
        session.error(f"{first['.whl'].name} lacks {', '.join(absent)}")
    session.run("twine", "check", "--strict", *(str(path) for path in first.values()))
    session.run("check-wheel-contents", str(first[".whl"]))
    target = ROOT / "dist"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in first.values():
        shutil.copy2(path, target)


@nox.session(default=False, venv_backend="none")
def newcomer(session: nox.Session) -> None:
    """Go the way of the README in an empty folder with an empty HOME, and fail when the first guarded call takes more than a minute."""
    place = Path(session.create_tmp()).resolve() / "newcomer"
    shutil.rmtree(place, ignore_errors=True)
    (place / "home").mkdir(parents=True)
    around = {"HOME": str(place / "home"), "PYTHONPATH": None, "PIP_NO_CACHE_DIR": "1"}
    python = str(place / "venv" / "bin" / "python")
    began = time.monotonic()
    with session.chdir(place):
        for command in (
            [sys.executable, "-m", "venv", "venv"],
            [python, "-m", "pip", "install", "--quiet", str(ROOT)],
            [python, str(ROOT / "tests/docs/readme.py"), str(ROOT / "README.md")],
        ):
            at = time.monotonic()
            session.run(*command, env=around, external=True)
            session.log(f"{time.monotonic() - at:.1f} s")
    took = time.monotonic() - began
    session.log(f"from nothing to the first guarded call: {took:.1f} s")
    if took > NEWCOMER_SECONDS:
        session.error(f"that is more than {NEWCOMER_SECONDS} s")


@nox.session(default=False)
def api(session: nox.Session) -> None:
    """Name what of the public interface of an earlier release (default: the last tag) is gone or is another one now: -- REF."""
    session.install(*(requirement for requirement in _group("test") if requirement.startswith("griffe")))
    tags = subprocess.run(
        ["git", "tag", "--list", "v*", "--sort=-v:refname"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    reference = next(iter([*session.posargs, *tags]), None)
    if reference is None:
        session.skip("there is no release yet to compare with")
    source = f"{reference}:tests/public-api.txt"
    before = subprocess.run(["git", "show", source], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    file = Path(session.create_tmp()).resolve() / "before.txt"
    file.write_text(before, encoding="utf-8")
    session.run("python", "tests/public_api.py", str(file))


@nox.session
def release(session: nox.Session) -> None:
    """Install what was built as others will, from the wheel and from the source archive, and run the lines of the README with it."""
    build(session)
    version = re.search(r'"(.+)"', (ROOT / "src/somaresil/_version.py").read_text(encoding="utf-8"))[1]  # type: ignore[index]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    tagged = subprocess.run(["git", "tag", "--points-at", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    # What has a tag has a version, and is unreleased no more.
    if not {version, *([] if tagged else ["Unreleased"])}.intersection(headings):
        session.error(f"CHANGELOG.md has no heading for {version}" + ("" if tagged else ", nor for what is unreleased"))
    for path in sorted((ROOT / "dist").iterdir()):
        place = Path(session.create_tmp()).resolve() / f"empty{path.suffix}"
        session.run("python", "-m", "venv", "--clear", str(place))
        python = str(place / "bin" / "python")
        session.run(python, "-m", "pip", "install", "--quiet", str(path), external=True)
        # Outside of the tree, so that it is the installed one; with nothing but what it depends on.
        with session.chdir(place):
            session.run(python, "-m", "somaresil", "--version", external=True)
            session.run(python, str(ROOT / "tests/docs/readme.py"), str(ROOT / "README.md"), external=True)
