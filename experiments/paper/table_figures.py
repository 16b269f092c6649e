"""The figures of Tables 2 to 4, the look of each of many models, and the axis of sizes."""

from __future__ import annotations

from typing import Any

import common
import numpy as np
from compare import Scores
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from ihas_jax.training.metrics import auc_text

_COLORS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22"),
    *("#17becf", "#d62728", "#000080", "#a8d08d", "#f4b183", "#b8860b", "#c000c0"),
    "#00c8a0",
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "8")
"""Of another number than the colours, so that more models than colours differ in the marker."""
_BASE = ("black", "*")
"""Colour and marker of the base model."""
_SPAN = 0.03
"""How far below the best mean AUC a panel reaches if some means are lower."""


def draw_sizes(table: dict[str, dict[str, list[Scores]]]) -> Figure:
    """Test AUC against parameters, those of routing included: seeds are dots, means larger markers.

    A mean far below the best would leave the others no room, so it is an arrow at the lower edge
    with its AUC as text.

    Args:
      table: scores by the name of the log in the figure (one panel each) and title, those of the
        base model first.
    """
    figure, axes = common.panels(len(table), len(table), (4.2 * len(table) + 1.2, 4.0))
    titles = list(dict.fromkeys(title for variants in table.values() for title in variants))
    looks = {title: look(place - 1) if place else _BASE for place, title in enumerate(titles)}
    for panel, (name, variants) in zip(axes, table.items(), strict=True):
        panel.set(title=name, xlabel="parameters, routing included", ylabel="test AUC")
        means = {
            title: float(np.mean([run["auc"] for run in runs])) for title, runs in variants.items()
        }
        if np.isnan(list(means.values())).any():  # all variants are tested on rows of one class
            common.say_undefined(panel, next(iter(variants.values())))
            continue
        lowest = max(means.values()) - _SPAN
        for title, runs in variants.items():
            sizes = [run["parameters"] + run["router_parameters"] for run in runs]
            size, (color, marker) = float(np.mean(sizes)), looks[title]
            if means[title] < lowest:
                panel.plot(size, lowest, "v", color=color, clip_on=False)
                panel.annotate(
                    f"{means[title]:.3f}",
                    (size, lowest),
                    xytext=(6, 2),
                    textcoords="offset points",
                    fontsize=8,
                    color=color,
                )
                panel.set_ylim(bottom=lowest)
            else:
                panel.plot(sizes, [run["auc"] for run in runs], ".", color=color, alpha=0.6)
                panel.plot(size, means[title], marker, color=color, markersize=6)
        scale_sizes(panel)
    handles = [
        Line2D([], [], color=color, marker=marker, ls="", ms=6, label=title)
        for title, (color, marker) in looks.items()
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    return figure


def look(place: int) -> tuple[str, str]:
    """Colour and marker of one of many models."""
    return _COLORS[place % len(_COLORS)], _MARKERS[place % len(_MARKERS)]


def scale_sizes(panel: Axes) -> None:
    """Makes the horizontal axis of a panel, which has its points, one of numbers of parameters."""
    panel.set_xscale("log")
    narrow = np.ptp(np.log10(panel.get_xlim())) < 2
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    panel.xaxis.set_major_formatter(EngFormatter())
    panel.xaxis.set_minor_formatter(NullFormatter())


def draw_gains(table: dict[str, dict[str, Any]]) -> Figure:
    """The gain of iHAS in test AUC: seeds are dots, means are bars, each log has a panel.

    Args:
      table: scores by the name of the log in the figure, model and method.
    """
    longest = max(len(models) for models in table.values())
    size = (3.2 * len(table) + 1.2, 0.32 * longest + 1.4)
    figure, axes = common.panels(len(table), len(table), size)
    for panel, (name, models) in zip(axes, table.items(), strict=True):
        for place, scores in enumerate(models.values()):
            pairs = zip(scores["ihas"], scores["original"], strict=True)
            gains = [ihas["auc"] - original["auc"] for ihas, original in pairs]
            if np.isnan(gains).any():
                undefined = next(run for run in scores["original"] if np.isnan(run["auc"]))
                panel.barh(place, 0)
                panel.text(0, place, f" AUC {auc_text(undefined)}", va="center", fontsize=8)
                continue
            panel.barh(place, np.mean(gains), color=common.BLUE, alpha=0.5)
            panel.plot(gains, [place] * len(gains), ".", color=common.NAVY)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_yticks(range(len(models)), models)
        panel.invert_yaxis()
        panel.set_title(name)
        panel.set_xlabel("gain of iHAS in test AUC")
        panel.tick_params(axis="x", labelrotation=30)
    return figure
