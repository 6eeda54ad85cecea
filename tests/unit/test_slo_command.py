"""The command ``slo``: importing, exporting, and never over what is there."""

from __future__ import annotations

import pytest

from somaresil.cli import main
from tests.unit.interchange.kit import FORMATS, text_of


@pytest.mark.parametrize("form", FORMATS)
def test_there_and_back(form, tmp_path, capsys):
    """A file of others, ours, and OpenSLO again; what is told goes to the other stream."""
    (tmp_path / "in.yaml").write_text(text_of(FORMATS[form]))
    ours, theirs = str(tmp_path / "slo.toml"), str(tmp_path / "out.yaml")
    assert main(["slo", "import", str(tmp_path / "in.yaml"), "--from", form, "--out", ours]) == 0
    assert main(["slo", "export", "--slo", ours, "--out", theirs]) == 0
    assert capsys.readouterr().out.splitlines() == [ours, theirs]
    assert main(["slo", "import", theirs, "--from", "openslo"]) == 0
    assert capsys.readouterr().out == (tmp_path / "slo.toml").read_text()
    assert main(["slo", "export", "--slo", ours, "--to", "openslo"]) == 0
    assert capsys.readouterr().out == (tmp_path / "out.yaml").read_text()


def test_nothing_is_written_over(tmp_path, capsys):
    """Unless it is forced."""
    (tmp_path / "in.yaml").write_text(text_of(FORMATS["sloth"]))
    (tmp_path / "slo.toml").write_text("mine")
    command = ["slo", "import", str(tmp_path / "in.yaml"), "--from", "sloth", "--out", str(tmp_path / "slo.toml")]
    assert main(command) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "slo.toml").read_text() == "mine"
    assert main([*command, "--force"]) == 0
    assert "99.9" in (tmp_path / "slo.toml").read_text()
    assert main([*command[:-1], str(tmp_path / "no" / "slo.toml")]) == 2


def test_what_is_wrong_is_told_with_every_place(tmp_path, capsys):
    """And exit code 2; wrong arguments too."""
    (tmp_path / "in.yaml").write_text("version: prometheus/v1\nservice: 1\nslos: x\n")
    assert main(["slo", "import", str(tmp_path / "in.yaml"), "--from", "sloth"]) == 2
    error = capsys.readouterr().err
    assert "in.yaml:2: spec: service" in error
    assert "in.yaml:3: spec: slos" in error
    assert main(["slo", "export", "--slo", str(tmp_path / "none.toml")]) == 2
    for wrong in (["slo"], ["slo", "import", "a.yaml"], ["slo", "import", "a.yaml", "--from", "x"], ["slo", "import", "--period", "x"]):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 2
