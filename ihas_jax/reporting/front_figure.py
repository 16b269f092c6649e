"""The figure of a compression: scores of all models against their size and their time."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ihas_jax.reporting.front_table import Facts, shown_auc

_COLORS = (
    *("#3b6ea5", "#c8553d", "#588b4a", "#8c6bb1"),
    *("#b8860b", "#4d9f9f", "#d08fb5", "#7a5c43", "#8a8f98", "#a3b73b"),
)
_SCORES = (("auc", "test AUC"), ("logloss", "test logloss"))
_GOOD = {"auc": 1, "logloss": -1}
"""Whether more of a score is better."""
_ROOM, _LEAST_ROOM = 3.0, 0.03
"""How far below the base model an axis goes, in gaps between the base and the best; the least."""
_NARROW = 8.0
"""How far the ends of an axis are apart, as a ratio, where 1, 2 and 5 would be too few ticks."""
_COSTS = (("parameters", "parameters"), ("microseconds", "microseconds per row"))


def draw_front(metrics: Facts) -> Figure:
    """Test AUC and logloss against parameters and microseconds per row, of all candidates.

    Models on the front are filled, others are hollow. Lines join the sizes of a click model. A
    model that is much worse than the base model is a triangle at the edge.
    """
    figure = Figure(figsize=(11.5, 7.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    for row, (score, title) in zip(panels, _SCORES, strict=True):
        for panel, (cost, _) in zip(row, _COSTS, strict=True):
            _draw(panel, metrics, cost, score)
            panel.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(title)
    for panel, (_, title) in zip(panels[-1], _COSTS, strict=True):
        panel.set(xscale="log", xlabel=f"{title} (logarithmic)")
        low, high = panel.get_xlim()
        subs = (1, 2, 5) if high > _NARROW * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
        panel.xaxis.set_major_locator(LogLocator(subs=subs))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
        panel.xaxis.set_minor_locator(NullLocator())
    handles, labels = panels[-1][0].get_legend_handles_labels()  # the AUC may not be defined
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    return figure


def _draw(panel: Axes, metrics: Facts, cost: str, score: str) -> None:
    base, chosen = metrics["base"], metrics["chosen"]
    if math.isnan(base[score]):
        panel.text(0.5, 0.5, f"AUC {shown_auc(base)}", ha="center", transform=panel.transAxes)
        return
    groups: dict[str, list[Facts]] = {}
    for facts in metrics["candidates"][1:]:
        name = facts["name"].rpartition(", ")[0] or facts["name"]
        groups.setdefault(name, []).append(facts)
    front = {facts["name"] for facts in metrics["front"]}
    line = "-" if cost == "parameters" else ""  # times of neighbours need not rise with the size
    sign, edge = _GOOD[score], _edge(metrics, score)
    worse = "v" if sign > 0 else "^"
    for i, (name, found) in enumerate(groups.items()):
        color = _COLORS[i % len(_COLORS)]
        found = sorted(found, key=lambda facts: facts["parameters"])
        points = [(facts[cost], sign * max(sign * facts[score], sign * edge)) for facts in found]
        panel.plot(*zip(*points, strict=True), ls=line, lw=1, color=color)
        panel.plot([], [], "o", color=color, label=name)
        for point, facts in zip(points, found, strict=True):
            inside = color if facts["name"] in front else "white"
            panel.plot(*point, worse if point[1] == edge else "o", mfc=inside, mec=color)
    panel.plot([], [], "o", mfc="gray", mec="gray", label="on the front")
    panel.plot([], [], "o", mfc="white", mec="gray", label="not on the front")
    panel.plot([base[cost]], [base[score]], "k*", ms=11, label="base")
    panel.plot([chosen[cost]], [chosen[score]], "o", ms=14, mfc="none", mec="black", label="chosen")


def _edge(metrics: Facts, score: str) -> float:
    """The worst score that an axis shows, so that one failed training does not stretch it."""
    sign, base = _GOOD[score], metrics["base"][score]
    best = max(sign * facts[score] for facts in metrics["candidates"])
    return float(base - sign * max(_ROOM * (best - sign * base), _LEAST_ROOM))
