"""Names in figures: formulas, hidden labels, fonts and stand-ins."""

from __future__ import annotations

import warnings

import matplotlib
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import cbook, font_manager
from matplotlib.figure import Figure

from ihas_jax.reporting.drawing import figure_names, figure_text, save_figure
from ihas_jax.reporting.figures import draw_widths

ODD = ["US$ 50% of $", "$x$", r"\$a", "a|b", "_hidden", "line\nbreak", "<b>[red]\x1b[31m", "", " "]


@pytest.fixture
def fonts(monkeypatch, tmp_path):
    """Installs fonts of squares with the given characters, by family; at first there is DejaVu."""
    manager = font_manager.fontManager
    usual = [entry for entry in manager.ttflist if "DejaVu" in entry.name]
    monkeypatch.setattr(manager, "ttflist", usual)
    installed: list[str] = []
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: installed)

    def install(family, characters):
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, 700), (500, 700), (500, 0)):
            pen.lineTo(corner)
        pen.closePath()
        glyphs = [".notdef", *(f"g{ord(c)}" for c in characters)]
        font = FontBuilder(1000, isTTF=True)
        font.setupGlyphOrder(glyphs)
        font.setupCharacterMap({ord(c): f"g{ord(c)}" for c in characters})
        font.setupGlyf({name: pen.glyph() for name in glyphs})
        font.setupHorizontalMetrics(dict.fromkeys(glyphs, (600, 0)))
        font.setupHorizontalHeader(ascent=800, descent=-200)
        font.setupNameTable({"familyName": family, "styleName": "Regular"})
        font.setupOS2()
        font.setupPost()
        font.save(tmp_path / f"{family}.ttf")
        installed.append(str(tmp_path / f"{family}.ttf"))

    return install


@pytest.mark.parametrize("name", ODD)
def test_no_name_is_a_formula_or_hidden_or_of_two_lines(name):
    text = figure_text(name)
    assert not cbook.is_math_text(text)
    assert not text.startswith("_") and text
    assert "\n" not in text


def test_a_name_is_shown_as_it_is():
    assert figure_text("US$ 50% of $").replace(r"\$", "$") == "US$ 50% of $"
    assert figure_text(r"\$a").replace(r"\$", "$") == r"\$a"
    assert figure_text("_hidden") == " _hidden"
    assert figure_text("x" * 100 + "end") == f"{'x' * 15}...{'x' * 11}end"


def test_every_odd_name_is_drawn_and_in_the_legend(tmp_path):
    names = figure_names([*ODD, "x" * 200, "x" * 100 + "y" + "x" * 99])
    assert len(set(names.texts)) >= len(names.texts) - 1  # two are blank

    def draw():
        figure = Figure()
        axis = figure.add_subplot()
        for text in names.texts:
            axis.plot([0, 1], label=text)
        axis.set_xticks(range(len(names.texts)), names.texts)
        axis.set_title(names.texts[0])
        assert len(axis.legend().get_texts()) == len(names.texts)
        return figure

    with matplotlib.rc_context({"text.parse_math": False}):
        save_figure(tmp_path / "odd.png", draw)
    assert [path.name for path in tmp_path.iterdir()] == ["odd.png"]


def test_without_a_font_a_stand_in_and_a_remedy(fonts, tmp_path):
    names = figure_names(["a", "用户", "field 3", "标|识", "é"])
    assert names.texts == ("a", "field 2", "field 3", "field 4", "é")
    assert names.stand_ins == {"field 2": "用户", "field 4": "标|识"}
    assert "field 2 for 用户" in names.note() and "Noto Sans CJK" in names.note()
    assert names.fonts == ()
    assert figure_names(["field 2", "用"]).texts == ("field 2", "(field 2)")


def test_a_font_installed_meanwhile_is_found(fonts, tmp_path):
    assert figure_names(["用户", "標"]).stand_ins
    fonts("Some", "用户")
    fonts("More", "用户標")
    names = figure_names(["用户", "標", "🙂"])
    assert names.texts == ("用户", "標", "field 3")
    assert names.fonts == ("More",)
    selection = {"widths": {"用户": 1, "標": 2, "🙂": 3}, "kept": 0.5}
    style = {"font.family": ["DejaVu Sans", *names.fonts]}
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        warnings.simplefilter("error")  # a glyph that is missing is a warning
        figure = draw_widths({"selection": selection}, names.texts)
        figure.savefig(tmp_path / "figure.png")


def test_a_missing_glyph_ends_nothing(tmp_path):
    def draw():
        figure = Figure()
        figure.suptitle("\U000f0000")
        return figure

    save_figure(tmp_path / "figure.png", draw)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_fails_leaves_nothing(tmp_path):
    def draw():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        save_figure(tmp_path / "figure.png", draw)
    assert not list(tmp_path.iterdir())
