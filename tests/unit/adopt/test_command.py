"""The command: what it finds, what it shows, and that nothing is written unless it is told to."""

from __future__ import annotations

import pytest

from somaresil.cli import main
from tests.unit.adopt.test_edit import FASTAPI


@pytest.fixture
def service(tmp_path):
    file = tmp_path / "gateway" / "main.py"
    file.parent.mkdir()
    file.write_text(FASTAPI, encoding="utf-8")
    file.chmod(0o640)
    return file


def test_the_change_is_shown_and_made_only_when_told_to(service, capsys):
    assert main(["init", str(service.parent)]) == 1
    told = capsys.readouterr().out
    assert '+resilience = Resilience("gateway")' in told
    assert told.endswith("nothing was changed\n")
    assert service.read_text(encoding="utf-8") == FASTAPI
    assert main(["init", str(service), "--dry-run"]) == 1
    assert main(["init", str(service), "--yes", "--service", "api"]) == 0
    assert 'Resilience("api")' in service.read_text(encoding="utf-8")
    assert service.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in service.parent.iterdir()] == ["main.py"]
    capsys.readouterr()
    assert main(["init", str(service), "--yes"]) == 0
    assert "there already" in capsys.readouterr().out


def test_a_link_stays_a_link(service, tmp_path):
    link = tmp_path / "link.py"
    link.symlink_to(service)
    assert main(["init", str(link), "--yes", "--service", "api"]) == 0
    assert link.is_symlink()
    assert "ResilienceMiddleware" in service.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "no file in it makes"),
        ({"a.py": "FastAPI()", "b.py": "FastAPI()"}, "several files make an app"),
        ({"tests/a.py": "FastAPI()"}, "no file in it makes"),
    ],
)
def test_a_folder_without_one_app_is_refused(tmp_path, capsys, files, why):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert main(["init", str(tmp_path)]) == 2
    assert why in capsys.readouterr().err


def test_files_that_cannot_be_read_are_refused(tmp_path, capsys):
    (tmp_path / "a.py").write_bytes(b"\xff\xfe")
    assert main(["init", str(tmp_path / "a.py")]) == 2
    assert "no UTF-8" in capsys.readouterr().err
    assert main(["init", str(tmp_path / "absent")]) == 2
