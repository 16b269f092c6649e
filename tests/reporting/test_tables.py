"""Tables on a terminal: side by side where there is room, a paragraph for each row where not."""

from __future__ import annotations

import io

from rich.console import Console

from ihas_jax.reporting.tables import Grid

GRID = Grid(
    "Test split",
    ("model", "AUC", "vs base"),
    [("base", "0.7000", ""), None, ("search (iHAS-1)", "0.7100", "+0.0100")],
)


def printed(width):
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(GRID)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_wide_terminal_shows_a_table():
    found = printed(60)
    assert any(line.split()[1:6:2] == ["base", "0.7000", "│"] for line in found)
    assert any("search (iHAS-1) │ 0.7100 │ +0.0100" in line for line in found)


def test_a_narrow_terminal_shows_each_number_whole():
    assert printed(20) == [
        "Test split",
        "base",
        "  AUC: 0.7000",
        "search (iHAS-1)",
        "  AUC: 0.7100",
        "  vs base: +0.0100",
    ]
