"""The figure of the comparison at equal sizes: AUC against what is kept of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import common
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from reference import BASE, STUDENT

from ihas_jax.reporting.comparison import Spread, spread
from sizes.rows import UNIFORM, Found, Kind, Sizes, row_of

_COLORS = {
    "uniform": "black",
    "mixed": "#7f7f7f",
    "magnitude": "#b8860b",
    "random": "#8c6bb1",
    "spectral": "#c8553d",
    "ihas": "#3b6ea5",
}
_OTHERS = ("#588b4a", "#4d9f9f", "#d4799e", "#6b4226")
_STYLES: tuple[tuple[Any, str], ...] = (
    *(("-", "o"), ("--", "s"), (":", "^"), ("-.", "D")),
    *(((0, (5, 1, 1, 1, 1, 1)), "v"), ((0, (1, 4)), "P"), ((0, (7, 3)), "X")),
)
"""Line and marker of a method, and of its variants."""
_SPAN = 0.015
"""How far below the best mean AUC a panel reaches if some means of methods are lower."""
_APART = 0.012
"""How far apart methods of one budget stand, in decades, so that their bars can be told apart."""


def draw_budgets(sizes: Sizes, logs: Mapping[str, Found]) -> Figure:
    """Test AUC against the share of the table's numbers that is kept, one panel for each log.

    Args:
      sizes: what is compared.
      logs: the scores by the name of the log in the figure.
    """
    columns = min(2, len(logs))
    size = (5.4 * columns + 2.2, 4.0 * -(-len(logs) // columns))
    figure, axes = common.panels(len(logs), columns, size)
    for panel, (name, found) in zip(axes, logs.items(), strict=True):
        panel.set(title=name, xlabel="share of the table's numbers", ylabel="test AUC")
        if np.isnan(_spread(found, BASE).mean):
            common.say_undefined(panel, found[BASE])
            continue
        _draw(panel, sizes, found)
    handles = {
        label: line
        for axis in axes
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside right center", frameon=False)
    return figure


def _draw(panel: Axes, sizes: Sizes, found: Found) -> None:
    means: list[float] = []
    references: list[float] = []  # the sizes and models that others are compared with
    for name, style in ((STUDENT, "--"), (BASE, ":" if sizes.taught else "--")):
        if name in sizes.whole:
            references.append(_spread(found, name).mean)
            panel.axhline(
                references[-1], color="#555555", ls=style, lw=1.1, label=sizes.whole[name]
            )
    for place, (kind, (color, (line, marker))) in enumerate(zip(*_styles(sizes), strict=True)):
        rows = [row for budget in sizes.budgets if (row := row_of(kind, budget)) in found]
        spreads = [_spread(found, row) for row in rows]
        shares = np.array([np.mean([run["table_share"] for run in found[row]]) for row in rows])
        means += [s.mean for s in spreads]
        references += [s.mean for s in spreads if kind.name == UNIFORM]
        panel.errorbar(
            shares * 10 ** (_APART * (place - (len(sizes.kinds) - 1) / 2)),
            [s.mean for s in spreads],
            np.nan_to_num([s.deviation for s in spreads]),
            color=color,
            ls=line,
            marker=marker,
            markersize=4.5,
            linewidth=1.4,
            elinewidth=0.8,
            capsize=2,
            label=kind.title,
        )
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator(sizes.budgets))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    leave_room(panel, means, references)


def leave_room(panel: Axes, means: Sequence[float], references: Sequence[float]) -> None:
    """Ends a panel a little below the lowest mean that is near the best one.

    Args:
      panel: the panel.
      means: the means of methods, of which those far below the best are cut off.
      references: means that are never cut off.
    """
    best = max([*means, *references])
    shown = [*references, *(mean for mean in means if mean >= best - _SPAN)]
    if min(means, default=best) < min(shown):
        panel.set_ylim(bottom=min(shown) - 0.1 * (best - min(shown) or _SPAN))


def _styles(sizes: Sizes) -> tuple[list[Kind], list[tuple[str, tuple[str, str]]]]:
    """The kinds, and a colour for each method with a style for each of its variants."""
    methods = list(dict.fromkeys(kind.method for kind in sizes.kinds))
    others = [method for method in methods if method not in _COLORS]
    styles = []
    for kind in sizes.kinds:
        own = [other for other in sizes.kinds if other.method == kind.method].index(kind)
        color = _COLORS.get(kind.method) or _OTHERS[others.index(kind.method) % len(_OTHERS)]
        styles.append((color, _STYLES[own % len(_STYLES)]))
    return list(sizes.kinds), styles


def _spread(found: Found, row: str) -> Spread:
    return spread([run["auc"] for run in found[row]])
