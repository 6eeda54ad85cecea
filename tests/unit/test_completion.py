"""Completion of the command in real shells, and what is said to whoever mistypes it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from somaresil.cli import main
from somaresil.completion import SHELLS


@pytest.fixture(params=SHELLS)
def script(request, capsys):
    """The name of a shell and its script."""
    assert main(["completion", request.param]) == 0
    return request.param, capsys.readouterr().out


def test_each_shell_takes_its_script(script, tmp_path):
    """Read by the shell itself, where it is installed."""
    shell, text = script
    assert "somaresil" in text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "script"
    file.write_text(text, encoding="utf-8")
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "offered"), [("somaresil ren", "render"), ("somaresil doctor --se", "--select"), ("somaresil completion z", "zsh")]
)
def test_bash_completes_commands_options_and_choices(capsys, tmp_path, typed, offered):
    """As when the tabulator key is pressed."""
    main(["completion", "bash"])
    file = tmp_path / "script"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    words = typed.split()
    ask = f"""
source {file}
COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE="{typed}"; COMP_POINT={len(typed)}
"$(complete -p somaresil | sed 's/.*-F \\([^ ]*\\) .*/\\1/')" somaresil "{words[-1]}" "{words[-2]}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "--norc", "-c", ask], capture_output=True, text=True, timeout=30, check=False)
    assert offered in done.stdout.split(), done


def test_without_its_library_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'somaresil[completion]'" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "meant"), [("doctr", "doctor"), ("rendr", "render"), ("complete", "completion")])
def test_a_command_that_is_mistyped_is_guessed(capsys, typed, meant):
    """And ends as wrong arguments do."""
    with pytest.raises(SystemExit) as ended:
        main([typed])
    assert ended.value.code == 2
    assert f"did you mean '{meant}'?" in capsys.readouterr().err


def test_a_choice_that_is_mistyped_is_guessed_too(capsys):
    with pytest.raises(SystemExit):
        main(["completion", "bsh"])
    assert "did you mean 'bash'?" in capsys.readouterr().err
