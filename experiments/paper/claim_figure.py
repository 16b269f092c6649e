"""The figure of the paper's claims: the weakest gain of each over what is of interest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import common
from claim_records import Found
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import t

from ihas_jax.reporting.comparison import spread

_COLORS = {"holds": "#588b4a", "does not": common.RED, "can't be told": "#7f7f7f"}
_MARKERS = {"holds": "o", "does not": "X", "can't be told": "s"}
_WIDEST = 1000.0
"""The end of the horizontal axis; what lies beyond is drawn there."""
_TICKS = (-1000, -100, -10, -1, 0, 1, 10, 100, 1000)


def draw_claims(logs: Mapping[str, Sequence[Found]]) -> Figure:
    """Draws a panel for each log, in which each claim has a row.

    Args:
      logs: what is known of the claims, by the name of the log in the figure.
    """
    number = len(next(iter(logs.values())))
    size = (3.6 * len(logs) + 2.0, 0.3 * number + 1.6)
    figure, axes = common.panels(len(logs), len(logs), size)
    for place, (panel, (log, found)) in enumerate(zip(axes, logs.items(), strict=True)):
        _draw(panel, found)
        panel.set_title(log, loc="left", fontsize=10)
        panel.set_xlabel("gain / smallest effect of interest", fontsize=9)
        names = [f"{one.claim.short}  {n:>2}" for n, one in enumerate(found, start=1)]
        panel.set_yticks(range(number), names if place == 0 else [""] * number, fontsize=8)
    handles = [
        Line2D([], [], color=color, marker=_MARKERS[name], ls="", label=name)
        for name, color in _COLORS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _draw(panel: Axes, found: Sequence[Found]) -> None:
    panel.axvline(0, color="black", lw=0.8)
    panel.axvline(1, color="black", lw=0.8, ls=":")
    for place, one in enumerate(found):
        if one.judged is None:
            panel.text(0.3, place, one.why, va="center", fontsize=7, color="#7f7f7f")
            continue
        gain = spread([value / one.claim.smallest for value in one.judged.gains])
        color, pairs = _COLORS[one.verdict], len(one.judged.gains)
        if not math.isnan(gain.deviation):
            half = float(t.isf(0.025, pairs - 1)) * gain.deviation / math.sqrt(pairs)
            ends = [max(-_WIDEST, min(_WIDEST, gain.mean + sign * half)) for sign in (-1, 1)]
            panel.plot(ends, [place, place], color=color, lw=1.4)
        middle = max(-_WIDEST, min(_WIDEST, gain.mean))
        panel.plot([middle], [place], _MARKERS[one.verdict], color=color, ms=6)
    panel.set_xscale("symlog", linthresh=1.0)
    panel.set_xlim(-1.2 * _WIDEST, 1.2 * _WIDEST)
    panel.set_xticks(_TICKS, [f"{tick:,}" for tick in _TICKS])
    panel.tick_params(axis="x", labelsize=7, labelrotation=60)
    panel.set_ylim(len(found) - 0.5, -0.5)
