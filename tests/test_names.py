"""Names of a user, printable, in Markdown and on terminals."""

from __future__ import annotations

import io
import os

import pytest
from rich.console import Console

from ihas_jax.names import code, link, markdown, printable, terminal
from ihas_jax.reporting.tables import Grid


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("user_id", "user_id"),
        ("用户标识 é", "用户标识 é"),
        ("line\nbreak\t", r"line\nbreak\t"),
        ("\x1b[31m", r"\x1b[31m"),
        (os.fsdecode(b"b\xff"), r"b\xff"),
        ("\ud800", r"\ud800"),
        ("a\u202eb", r"a\u202eb"),  # would turn the line around
    ],
)
def test_a_printable_name_is_one_line_that_can_be_encoded(name, shown):
    assert printable(name) == shown
    assert printable(name).isprintable()
    printable(name).encode()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("user_id", "user_id"),
        ("_a_", r"\_a\_"),
        ("a|b", r"a\|b"),
        ("US$ 50%", r"US\$ 50%"),
        ("<b>[x](y) *z* `c` # ~ &amp;", r"\<b\>\[x\](y) \*z\* \`c\` \# \~ \&amp;"),
        ("a\\|b", r"a\\\|b"),
        ("line\nbreak", r"line\\nbreak"),
    ],
)
def test_markdown_reads_like_the_name(name, shown):
    assert markdown(name) == shown


def test_code_and_links():
    assert code("a|b") == "`a|b`"
    assert code("a `b` ``c") == "``` a `b` ``c ```"
    assert code("a\nb") == r"`a\nb`"
    assert link("a (1)|$.png") == "a%20%281%29%7C%24.png"
    assert link(os.fsdecode(b"\xff")) == "%FF"


def shown(table, width, encoding="utf-8"):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width, soft_wrap=True, highlight=False).print(table)
    file.flush()
    return raw.getvalue().decode(encoding).splitlines()


def test_a_terminal_takes_nothing_for_markup():
    assert shown(terminal("<b>[red]x[/red]\x1b[31m"), 80) == [r"<b>[red]x[/red]\x1b[31m"]


ROWS = [(f"[red]{'x' * 30}", "123,456,789", "0.7584"), None, ("用户", "1", "-0.0001")]
GRID = Grid("", ("field", "rows of it", "label rate"), ROWS)


@pytest.mark.parametrize("width", [200, 80, 48, 46, 40, 36, 34, 30, 20])
def test_numbers_are_whole_at_every_width(width):
    lines = shown(GRID, width)
    text = "\n".join(lines)
    for row in ROWS:
        for number in row[1:] if row else ():
            assert number in text
    assert "…" not in text
    assert "用户" in text
    longest = max(len(line) + line.count("用") + line.count("户") for line in lines)
    assert longest <= max(width, 33)


def test_a_narrow_terminal_gets_a_paragraph_for_each_row():
    first = ["[red]" + "x" * 30, "  rows of it: 123,456,789", "  label rate: 0.7584"]
    assert shown(GRID, 30)[-3:] == ["用户", "  rows of it: 1", "  label rate: -0.0001"]
    assert [line for line in shown(GRID, 40) if "━" in line or "┃" in line]
    assert "".join(shown(GRID, 30)[:-5]) == first[0]


def test_a_table_is_ascii_where_the_terminal_is():
    lines = shown(Grid("", ("field", "n"), [("a", "1")]), 80, "ascii")
    assert lines[0].startswith("+-") and "a" in lines[-2]
