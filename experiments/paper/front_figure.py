"""The figure of pareto.py for one log: test AUC against parameters, with a line per method."""

from __future__ import annotations

from collections.abc import Sequence

import common
from front import NONE, Found, Point, auc_of, front_of, size_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from reference import BASE
from sizes.drawing import leave_room
from table_figures import look, scale_sizes

from ihas_jax.selectors.registry import METHODS

_STYLES = {True: "-", False: "--"}
"""Lines of models that learn from teachers, and from clicks."""
_GREY = "#555555"


def draw_front(log: str, points: Sequence[Point], found: Found) -> Figure:
    """Draws the points of a log.

    Args:
      log: the name of the log in the figure.
      points: what is compared.
      found: the scores.
    """
    figure, (panel,) = common.panels(1, 1, (10.0, 6.0))
    panel.set(title=log, xlabel="parameters, routing included", ylabel="test AUC")
    if not front_of(points, found):
        common.say_undefined(panel, found[BASE])
        return figure
    scored = [point for point in points if point.name in found]
    whole = [point for point in scored if point.method == NONE]
    lines: dict[tuple[str, bool], list[Point]] = {}
    for point in scored:
        if point.method != NONE:
            lines.setdefault(point.line, []).append(point)
    for own in lines.values():
        _draw_line(panel, own, found)
    for point in whole:
        size, auc = size_of(found[point.name]), auc_of(found[point.name])
        panel.axhline(auc, color=_GREY, ls=_STYLES[point.taught], lw=1.0, zorder=1)
        fill = "black" if point.taught else "white"
        panel.plot([size], [auc], "*", color="black", mfc=fill, ms=14, zorder=4)
    front = front_of(points, found)
    panel.plot(*_coordinates(front, found), "o", ms=15, mfc="none", color="black", zorder=5)
    panel.margins(0.06)
    scale_sizes(panel)
    means = [auc_of(found[point.name]) for point in scored]
    leave_room(panel, means, [auc_of(found[point.name]) for point in whole])
    bottom = panel.get_ylim()[0]
    panel.set_ylim(top=max(means) + 0.06 * (max(means) - bottom))
    figure.legend(
        handles=[*_keys(lines, whole)],
        loc="outside right center",
        frameon=False,
        handlelength=3.5,
        labelspacing=0.7,
    )
    return figure


def _draw_line(panel: Axes, own: Sequence[Point], found: Found) -> None:
    first = own[0]
    color, marker = _look(first.method)
    panel.plot(
        *_coordinates(own, found),
        color=color,
        marker=marker,
        ls=_STYLES[first.taught],
        mfc=color if first.taught else "white",
        ms=6,
        lw=1.4,
        zorder=3,
    )


def _coordinates(points: Sequence[Point], found: Found) -> tuple[list[float], list[float]]:
    runs = [found[point.name] for point in points]
    return [size_of(own) for own in runs], [auc_of(own) for own in runs]


def _keys(lines: dict[tuple[str, bool], list[Point]], whole: Sequence[Point]) -> list[Line2D]:
    """The legend: methods, then the lines that say what is learnt from, full sizes and front."""
    titles = {method: own[0].title for (method, _), own in lines.items()}
    keys = []
    for method, title in titles.items():
        color, marker = _look(method)
        keys.append(Line2D([], [], color=color, marker=marker, ms=6, lw=1.4, label=title))
    for taught, own in {own[0].taught: own for own in lines.values()}.items():
        fill, label = _GREY if taught else "white", f"learns from {own[0].source}"
        style = _STYLES[taught]
        keys.append(Line2D([], [], color=_GREY, ls=style, marker="o", mfc=fill, label=label))
    for point in whole:
        fill = "black" if point.taught else "white"
        label = f"full size, {point.source}"
        key = Line2D([], [], color="black", ls="", marker="*", mfc=fill, ms=12, label=label)
        keys.append(key)
    ring = Line2D([], [], color="black", ls="", marker="o", mfc="none", ms=12, label="on the front")
    return [*keys, ring]


def _look(method: str) -> tuple[str, str]:
    """Colour and marker of a method, the same in every figure."""
    return look([*METHODS].index(method))
