"""Names of a user in figures: escapes, fonts that have the characters, stand-ins."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

from ihas_jax.names import printable

_LONGEST = 32
_NAMED = 10
_USUAL = "DejaVu Sans"  # comes with matplotlib


@dataclass(frozen=True)
class FigureNames:
    """How figures show some names.

    Attributes:
      texts: the shown text of each name, in the order of the names.
      stand_ins: the names that no installed font can show, by the text that replaces them.
      fonts: font families that have the characters of the other names.
    """

    texts: tuple[str, ...]
    stand_ins: dict[str, str]
    fonts: tuple[str, ...]

    def note(self, escape: Callable[[str], str] = printable) -> str:
        """A sentence on the stand-ins and the remedy; empty if there are none."""
        if not self.stand_ins:
            return ""
        pairs = [f"{text} for {escape(name)}" for text, name in self.stand_ins.items()]
        more = [f"and {len(pairs) - _NAMED} more"] if len(pairs) > _NAMED else []
        return (
            f"The figures say {', '.join(pairs[:_NAMED] + more)}, since no installed font has the "
            "characters. Install one that has them, such as Noto Sans CJK, and run the same "
            "command again."
        )


def figure_text(text: str | Path) -> str:
    """A name as a text for matplotlib: one line of bounded length, no formula, no hidden label."""
    shown = printable(text)
    if len(shown) > _LONGEST:
        half = _LONGEST // 2
        shown = f"{shown[: half - 1]}...{shown[2 - half :]}"
    shown = shown.replace("$", r"\$")  # a dollar begins a formula
    # a legend leaves out what begins with an underscore
    return f" {shown}" if shown.startswith("_") or not shown.strip() else shown


def figure_names(names: Sequence[str], kind: str = "field") -> FigureNames:
    """How figures show names, which are the first, second, ... of their kind."""
    texts = [figure_text(name) for name in names]
    fonts, missing = _find_fonts(frozenset(" ".join(texts)))
    stand_ins: dict[str, str] = {}
    for number, name in enumerate(names):
        if missing.intersection(texts[number]):
            stand_in = f"{kind} {number + 1}"
            texts[number] = f"({stand_in})" if stand_in in names else stand_in
            stand_ins[texts[number]] = name
        elif texts[number] in texts[:number]:  # two long names may differ only in the middle
            texts[number] += f" ({kind} {number + 1})"
    return FigureNames(tuple(texts), stand_ins, fonts)


def save_figure(path: str | Path, draw: Callable[[], Figure], fonts: Iterable[str] = ()) -> None:
    """Draws a figure and writes its file, which appears only once it is complete.

    Args:
      path: the file, which ends in .png, .pdf or .svg.
      draw: makes the figure.
      fonts: font families for characters that the usual font lacks.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    style: dict[Any, Any] = {
        "font.family": [_USUAL, *fonts],
        "text.usetex": False,
        "text.parse_math": True,
        "svg.hashsalt": path.stem,
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        draw().savefig(partial, dpi=150)
    partial.replace(path)


def _find_fonts(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Font families that together have the characters, and the characters that no font has."""
    missing = {ord(character) for character in characters}
    missing -= _characters(font_manager.findfont(_USUAL))
    families: list[str] = []
    if missing:
        manager = font_manager.fontManager
        known = {entry.fname for entry in manager.ttflist}
        # matplotlib knows only the fonts that were installed at its first start
        for path in sorted(set(font_manager.findSystemFonts()) - known):
            try:
                manager.addfont(path)
            except Exception:  # a font that matplotlib can't use; what it raises is not documented
                continue
        plain = [
            entry
            for entry in manager.ttflist
            if entry.style == "normal"
            and entry.weight in (400, "normal")
            and "last resort" not in entry.name.lower()  # a box for every character
        ]
        candidates = {e.name: e.fname for e in sorted(plain, key=lambda e: e.name, reverse=True)}
        while missing and candidates:
            best = max(candidates, key=lambda name: len(missing & _characters(candidates[name])))
            found = missing & _characters(candidates.pop(best))
            if not found:
                break
            families.append(best)
            missing -= found
    return tuple(families), frozenset(map(chr, missing))


@cache
def _characters(path: str) -> frozenset[int]:
    """The code points that a font can draw; a bitmap font has none."""
    try:
        font = font_manager.get_font(path)
        font.set_size(10, 100)
        return frozenset(font.get_charmap())
    except Exception:  # what FreeType's wrapper raises is not documented
        return frozenset()
