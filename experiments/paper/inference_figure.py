"""The drawing of Figure 4: time on a log scale, with test AUC beside it."""

from __future__ import annotations

from collections.abc import Mapping

import common
import numpy as np
from inference import COMPILED, EXACT, NONE, Timed
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

_SPAN = 0.03
"""How far below the best mean AUC the figure reaches."""
_GREY, _OTHERS = "#555555", "#8fb0d3"


def draw_inference(logs: Mapping[str, Mapping[str, Timed]]) -> Figure:
    """Time of the whole test split on a log scale (the paper's Figure 4), test AUC beside it.

    Bars and large dots are means, small dots seeds. Behind a bar stands its multiple of the base
    model's time. An arrow is an AUC so far below the best that it would leave no room.

    Args:
      logs: models by key, the base model first, by the name of the log in the figure.
    """
    most = max(len(models) for models in logs.values())
    figure = Figure(figsize=(10.0, (0.27 * most + 1.3) * len(logs)), layout="constrained")
    grid = figure.subplots(len(logs), 2, squeeze=False, width_ratios=(3, 2))
    for (times, aucs), (name, models) in zip(grid, logs.items(), strict=True):
        for panel in (times, aucs):
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_ylim(len(models) - 0.4, -0.6)
            panel.set_yticks(range(len(models)))
        times.set_yticklabels([model.title for model in models.values()])
        aucs.set_yticklabels([])
        times.set_title(name)
        _draw_times(times, models)
        _draw_aucs(aucs, models)
    return figure


def _color(key: str) -> str:
    return {NONE: _GREY, EXACT: common.BLUE, COMPILED: common.RED}.get(key, _OTHERS)


def _draw_times(panel: Axes, models: Mapping[str, Timed]) -> None:
    base, *_ = models.values()
    means = [float(np.mean(model.milliseconds)) for model in models.values()]
    for place, (key, model) in enumerate(models.items()):
        panel.barh(place, means[place], 0.7, color=_color(key))
        if len(model.milliseconds) > 1:
            panel.plot(model.milliseconds, [place] * len(model.milliseconds), "k.", ms=3)
        panel.annotate(
            "" if model is base else f"{np.mean(model.ratios(base)):.2f} x",
            (max(model.milliseconds), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    panel.axvline(means[0], color=_GREY, ls="--", lw=0.9, zorder=0)
    panel.set(xscale="log", xlim=(min(means) / 2.5, max(means) * 2))
    panel.set_xlabel("time of all test rows, ms (log scale)")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _draw_aucs(panel: Axes, models: Mapping[str, Timed]) -> None:
    panel.set_xlabel("test AUC")
    means = [model.auc for model in models.values()]
    if np.isnan(means).any():
        common.say_undefined(panel, next(iter(models.values())).runs)
        return
    lowest = max(means) - _SPAN
    for place, ((key, model), mean) in enumerate(zip(models.items(), means, strict=True)):
        color = _color(key)
        if mean < lowest:
            panel.plot(lowest, place, "<", color=color, ms=6)
            panel.annotate(
                f"{mean:.3f}",
                (lowest, place),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
            continue
        panel.plot([run["auc"] for run in model.runs], [place] * len(model.runs), "k.", ms=3)
        panel.plot(mean, place, "o", color=color, ms=7, mec="white", mew=0.6)
    panel.axvline(means[0], color=_GREY, ls="--", lw=0.9)
    panel.grid(axis="y", color="0.9", lw=0.6)
    panel.locator_params(axis="x", nbins=5)
