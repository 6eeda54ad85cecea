"""Text for a terminal: nothing that comes from outside can steer it, and everything fits."""

from __future__ import annotations

import pytest

from somaresil.top_command.text import (
    ASCII,
    Column,
    Span,
    cells,
    cut,
    duration,
    fitted,
    number,
    percent,
    rate,
    shown,
    spark,
    table,
    wrapped,
)


def written(lines):
    return ["".join(span.text for span in line) for line in lines]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("pay\u202egnp.exe", "pay\\u202egnp.exe"),
        ("\x9b31m", "\\x9b31m"),
        ("\u2028\u200b\ufeff", "\\u2028\\u200b\\ufeff"),
        ("\ud800", "\\ud800"),
        ("C:\\x1b", "C:\\\\x1b"),
        ("e" + "\u0301" * 50, "e\u0301\u0301"),
        ("modèle 模型", "modèle 模型"),
        (17, "17"),
        (None, "None"),
    ],
)
def test_what_could_steer_a_terminal_is_written_as_an_escape(text, said):
    """Control characters, marks of direction and heaps of accents become text."""
    assert shown(text) == said


def test_wide_characters_take_two_cells_and_are_not_cut_in_half():
    """What is cut ends with a mark and is never wider than it may be."""
    assert cells("模型") == 4
    assert cells("e\u0301") == 1
    assert cut("模型 a", 6) == "模型 a"
    assert cut("模型 a", 4) == "模…"
    assert cells(cut("模型 a", 4)) == 3
    assert cut("abc", 1) == "…"
    assert cut("abc", 0) == ""


def test_tables_leave_out_the_least_important_columns():
    """Columns of a higher rank go first; names are cut before a figure is."""
    columns = [Column("guard", right=False, least=4), Column("calls"), Column("p95", rank=1), Column("p99", rank=2)]
    rows = [[Span("worker.call"), Span("12.5"), Span("80 ms"), Span("-")]]
    assert written(table(columns, rows, 40)) == ["guard        calls    p95  p99", "worker.call   12.5  80 ms    -"]
    assert written(table(columns, rows, 24)) == ["guard  calls    p95  p99", "work…   12.5  80 ms    -"]
    assert written(table(columns, rows, 19)) == ["guard  calls    p95", "work…   12.5  80 ms"]
    assert written(table(columns, rows, 14)) == ["guard    calls", "worker…   12.5"]


@pytest.mark.parametrize("width", range(1, 45))
def test_no_line_of_a_table_is_wider_than_it_may_be(width):
    """However narrow it is."""
    columns = [Column("guard", right=False, least=4), Column("calls"), Column("p95", rank=1), Column("p99", rank=2)]
    rows = [[Span("worker.call"), Span("12.5"), Span("80 ms"), Span("-")]]
    lines = written(table(columns, rows, width))
    assert len(lines) == 2
    assert all(cells(line) <= width for line in lines)


def test_lines_are_cut_and_pieces_wrapped():
    """A line ends where the terminal does; pieces go to the next line whole."""
    assert written([fitted([Span("abc"), Span("def")], 5)]) == ["abcd…"]
    assert written([fitted([Span("abc"), Span("def")], 6)]) == ["abcdef"]
    assert written(wrapped([Span("one"), Span("two"), Span("three")], 9)) == ["one   two", "three"]
    assert written(wrapped([Span("much too long")], 6)) == ["much …"]
    assert wrapped([], 10) == []


def test_bars_are_in_proportion_and_unknown_values_are_blank():
    """The last values are drawn, the largest as the highest bar."""
    assert spark([0, 1, 2, 4], 4) == "▁▃▅█"
    assert spark([None, 4.0, None], 5) == "   █ "
    assert spark([9, 9, 1, 2], 2, ASCII) == "=#"
    assert spark([], 3) == "   "
    assert spark([0, 0], 2) == "▁▁"
    assert spark([-1.0, 5.0], 2) == "▁█"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (0.0, "0 s"),
        (0.0123, "12 ms"),
        (0.8, "800 ms"),
        (1.0, "1 s"),
        (31.5, "31.5 s"),
        (90.0, "90 s"),
        (180.0, "3 min"),
        (86_400.0, "24 h"),
        (2_592_000.0, "30 d"),
    ],
)
def test_durations_are_in_the_unit_in_which_one_says_them(seconds, said):
    """From milliseconds to days."""
    assert duration(seconds) == said


def test_figures_are_as_exact_as_one_needs():
    """What is not known is a dash, never a zero."""
    assert [percent(share) for share in (None, 0.0, 0.0003, 0.013, 0.42, 1.0)] == ["-", "0%", "0.03%", "1.3%", "42%", "100%"]
    assert [rate(value) for value in (None, 0.0, 12.5, 2e9)] == ["-", "0.0", "12.5", "2e+09"]
    assert [number(value) for value in (None, 3, 3.0, 1.2, 2e9)] == ["-", "3", "3", "1.20", "2e+09"]
