"""The documentation is executed: each Python block of the README and of docs/, file by file, as a reader would paste it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,}|~{3,})\s*(?P<language>[\w+-]*)")
NOT_EXECUTED = re.compile(r"<!--\s*not executed:\s*(?P<reason>.*?)\s*-->\s*$")
ELSEWHERE = re.compile(r"<!--\s*(cut from|breaks:) .*-->\s*$")
"""Executed by test_planted_bugs.py."""
PRINTED = re.compile(r"^ *print\(.*\)  # (?P<said>.+)$", re.MULTILINE)
EXACT = ("README.md", "docs/index.md", "docs/faults/", "docs/tutorials/")
"""Where a comment behind a `print` is what it prints, word for word."""
PAGES = [page for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))] if page.exists()]

# One namespace a page, and one process: but short pages that leave nothing behind share one.
# Lines keep the numbers they have in the page, so a traceback points into it.
# `await` and `async with` are allowed at the top of a block; all blocks of a page share one event loop.
# A guard that is surely wrong would be a bad example, so the warning about it is an error here.
RUN_PAGE = """
import ast, asyncio, inspect, json, linecache, sys, types, warnings
from somaresil.errors import PipelineWarning
warnings.simplefilter("error", PipelineWarning)
for page, blocks in json.load(sys.stdin):
    module = types.ModuleType("page")
    sys.modules["page"] = module
    with asyncio.Runner() as runner:
        for block in blocks:
            text = "\\n" * (block["line"] - 1) + block["code"]
            code = compile(text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            if code.co_flags & inspect.CO_COROUTINE:
                async def block_body():
                    await eval(code, module.__dict__)
                runner.run(block_body())
            else:
                exec(code, module.__dict__)
"""


@dataclass(frozen=True)
class Block:
    """One fenced block: where its code begins, in which language, and why it is not executed, if it is not."""

    line: int
    language: str
    code: str
    excuse: str | None


def blocks_of(text: str) -> list[Block]:
    """Find the fenced blocks of a page."""
    found: list[Block] = []
    fence: re.Match[str] | None = None
    start, body = 0, list[str]()
    excuse: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if fence is None:
            opened = FENCE.match(line)
            if opened:
                fence, start, body = opened, number + 1, []
            elif comment := NOT_EXECUTED.search(line):
                excuse = comment["reason"]
            elif ELSEWHERE.search(line):
                excuse = ""
            elif line.strip():
                excuse = None
        elif line.strip().startswith(fence["marks"]) and not line.strip().strip(fence["marks"][0]):
            found.append(Block(start, fence["language"].lower(), "\n".join(body) + "\n", excuse))
            fence, excuse = None, None
        else:
            body.append(line.removeprefix(fence["indent"]))
    return found


def python_blocks(page: Path) -> list[Block]:
    """Give the Python blocks of a page."""
    return [block for block in blocks_of(page.read_text(encoding="utf-8")) if block.language in {"python", "py", "python3"}]


def run_page(name: str, blocks: list[Block], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the blocks of one page in a fresh interpreter."""
    return run_pages([(name, blocks)], folder)


def run_pages(pages: list[tuple[str, list[Block]]], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the blocks of several pages in a fresh interpreter, page by page."""
    return subprocess.run(
        [sys.executable, "-c", RUN_PAGE],
        input=json.dumps([[name, [asdict(block) for block in blocks]] for name, blocks in pages]),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def not_printed(pages: list[Path], printed: str) -> list[str]:
    """Give what comments beside a `print` promise, and what was not printed in this order."""
    lines = iter([line.rstrip() for line in printed.splitlines()])
    promised = [match["said"] for page in pages for block in python_blocks(page) for match in PRINTED.finditer(block.code)]
    return [said for said in promised if said not in lines]


def name_of(page: Path) -> str:
    """Name a page by its path in the repository."""
    return page.relative_to(ROOT).as_posix()


EXCUSED = [(page, block) for page in PAGES for block in python_blocks(page) if block.excuse]


def file_of(block: Block) -> str | None:
    """Name the file of a small project that a block stands for: its first line is `# service.py`."""
    named = re.match(r"# (?P<name>[\w/]+\.py)\n", block.code)
    return named["name"] if named else None


def projects_of(page: Path) -> list[tuple[dict[str, str], str | None]]:
    """Give the projects of a page: the files at each point where a test file stands, and what its tests print if they are to fail.

    A file that stands again replaces what it was. The output of a failing test is the `text` block that follows it directly.
    """
    files: dict[str, str] = {}
    projects: list[tuple[dict[str, str], str | None]] = []
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    for block, following in zip_longest(blocks, blocks[1:]):
        name = file_of(block) if block.language == "python" else None
        if name is not None:
            files = {**{other: text for other, text in files.items() if not other.startswith("test_")}, name: block.code}
        if name is not None and name.startswith("test_"):
            fails = following.code if following is not None and following.language == "text" else None
            projects.append((files, fails))
    return projects


PROJECTS = [pytest.param(files, fails, id=f"{name_of(page)}-{n}") for page in PAGES for n, (files, fails) in enumerate(projects_of(page))]
PROJECT_INI = """[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
pythonpath = .
addopts = --strict-markers -p no:cacheprovider
filterwarnings = error::somaresil.errors.PipelineWarning
"""


@pytest.mark.parametrize(("files", "fails"), PROJECTS)
def test_project_of_a_page_runs(files, fails, tmp_path):
    """Its tests pass; those that are shown with what they print fail, and print every line of it."""
    (tmp_path / "pytest.ini").write_text(PROJECT_INI, encoding="utf-8")
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == (0 if fails is None else 1), result.stdout + result.stderr
    told = [line.removeprefix("E ").strip() for line in result.stdout.splitlines()]
    for line in (fails or "").splitlines():
        assert line.strip() in told or line.strip() in {"", "..."}, f"not printed: {line}\n{result.stdout}"


def runs_with_others(page: Path) -> bool:
    """Say whether a page is a short one: what it begins it ends, and a process for each would cost more than all of them do."""
    return page.parent == ROOT / "docs" / "faults"


def to_run(page: Path) -> tuple[str, list[Block]]:
    """Give the blocks that run, in the order of the page."""
    return name_of(page), [block for block in python_blocks(page) if block.excuse is None and file_of(block) is None]


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page) and not runs_with_others(page)], ids=name_of)
def test_page_runs(page, tmp_path):
    """Every block that is not excused runs without an error, in the order of the page."""
    result = run_page(*to_run(page), tmp_path)
    assert result.returncode == 0, f"{name_of(page)}\n{result.stdout}\n{result.stderr}"
    if name_of(page).startswith(EXACT):
        assert not_printed([page], result.stdout) == [], result.stdout


def test_pages_of_faults_run(tmp_path):
    """The same for each of them, one after the other in one process; the error of one names it."""
    pages = [page for page in PAGES if runs_with_others(page)]
    result = run_pages([to_run(page) for page in pages], tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not_printed(pages, result.stdout) == [], result.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if name_of(page).startswith(EXACT)], ids=name_of)
def test_promises_can_be_read(page):
    """A comment behind a `print` of several lines would be looked at by nobody."""
    assert [block.line for block in python_blocks(page) if re.search(r"^ *\)  # ", block.code, re.MULTILINE)] == []


def test_a_promise_that_is_not_kept_is_found(tmp_path):
    """What is printed otherwise, or in another order, is told."""
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)  # 1\nif True:\n    print(2)  # 2\n```\n", encoding="utf-8")
    assert not_printed([page], "0\n1\n2\n") == []
    assert not_printed([page], "2\n1\n") == ["2"]


if EXCUSED:  # an empty list would be counted as one skipped test without a name

    @pytest.mark.parametrize(("page", "block"), EXCUSED, ids=[f"{name_of(page)}:{block.line}" for page, block in EXCUSED])
    def test_excused_block(page, block):
        """A block that is not executed says why, and is counted as skipped."""
        assert block.excuse, f"{name_of(page)}:{block.line}: give a reason"
        pytest.skip(f"{name_of(page)}:{block.line} is not executed: {block.excuse}")


@pytest.mark.parametrize("session", ["demo", "tests"])
def test_readme_names_the_two_commands(session):
    """The README gives both commands, and both sessions exist."""
    command = f"python3 -m pip install nox && python3 -m nox -s {session}"
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\ndef {session}(" in (ROOT / "noxfile.py").read_text(encoding="utf-8")


def test_the_quick_start_is_ten_lines_and_everywhere_the_same():
    """From importing to the first guarded call; README and the first page of the documentation begin with it."""
    quick, *_ = python_blocks(ROOT / "README.md")
    assert len([line for line in quick.code.splitlines() if line.strip()]) <= 10
    assert python_blocks(ROOT / "docs" / "index.md")[0].code == quick.code


def test_blocks_share_a_page_and_may_await(tmp_path):
    """Names live on from block to block, top-level `await` works, and all of a page runs in one event loop."""
    text = (
        "```python\nimport asyncio\nloop = None\n```\n\ntext\n\n- item\n\n  ```python\n  await asyncio.sleep(0)\n"
        "  loop = asyncio.get_running_loop()\n  ```\n\n```python\nawait asyncio.sleep(0)\nassert loop is asyncio.get_running_loop()\n```\n"
    )
    blocks = blocks_of(text)
    assert [block.line for block in blocks] == [2, 11, 16]
    result = run_page("page.md", blocks, tmp_path)
    assert result.returncode == 0, result.stderr


def test_an_error_points_into_the_page(tmp_path):
    """The traceback names the page and its line."""
    result = run_page("docs/page.md", blocks_of("# Title\n\n```python\nx = 1\n1 / 0\n```\n"), tmp_path)
    assert result.returncode == 1
    assert 'File "docs/page.md", line 5' in result.stderr


def test_an_example_that_is_surely_wrong_fails(tmp_path):
    """No page shows a guard whose policies work against one another."""
    text = "```python\nfrom somaresil import Resilience, Retry\nResilience('x').guard('y', retry=Retry(attempts=9, wait=0))\n```\n"
    result = run_page("page.md", blocks_of(text), tmp_path)
    assert "PipelineWarning" in result.stderr
    assert result.returncode == 1


def test_an_excuse_covers_only_the_next_block():
    """The comment stands directly before its block; prose between them ends it."""
    text = (
        "<!-- not executed: needs a cluster -->\n\n```python\n1\n```\n```python\n2\n```\n"
        "<!-- not executed: too far -->\nprose\n```python\n3\n```\n```console\n$ x\n```\n"
    )
    assert [(block.language, block.excuse) for block in blocks_of(text)] == [
        ("python", "needs a cluster"),
        ("python", None),
        ("python", None),
        ("console", None),
    ]
