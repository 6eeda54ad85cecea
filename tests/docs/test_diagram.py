"""The breaker's state diagram in the docs is the one that its transition table gives."""

from pathlib import Path

from somaresil.model.breaker import diagram

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policies" / "circuit-breaker.md"
BEGIN, END = "<!-- breaker diagram: begin -->\n", "\n<!-- breaker diagram: end -->"
COMMAND = 'python -c "from somaresil.model.breaker import diagram; print(diagram())"'


def test_the_page_shows_the_table():
    """Between its markers the page holds exactly the generated diagram, as a Mermaid block."""
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    shown = text.partition(BEGIN)[2].partition(END)[0]
    expected = f"```mermaid\n{diagram()}\n```"
    assert shown == expected, f"put the output of `{COMMAND}` between the markers:\n\n{expected}"
