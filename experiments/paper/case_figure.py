"""The drawing of Figure 6: example rows, and what a row's own model gains over the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import common
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from table_figures import look

_SURE = 1.96
_GREY = "#555555"
_BY_CHANCE = "test rows drawn by chance"
Facts = Mapping[str, Any]
"""The result of `case_facts`."""


def draw_cases(logs: Mapping[str, Sequence[Facts]]) -> Figure:
    """Draws for each log examples, and the gains of the own model in logloss and AUC.

    Args:
      logs: facts by seed, by the name of the log in the figure; examples and clusters are those of
        the first seed.
    """
    most = max(len(seeds[0]["examples"]) for seeds in logs.values())
    size = (11.0, max(3.0, 0.26 * most + 1.6) * len(logs) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(logs), 3, squeeze=False, width_ratios=(5, 3, 3))
    for panels, (name, seeds) in zip(grid, logs.items(), strict=True):
        for panel in panels:
            panel.spines[["top", "right"]].set_visible(False)
        _draw_examples(panels[0], seeds[0]["examples"])
        panels[0].set_title(f"{name}: {_BY_CHANCE}" if name else _BY_CHANCE, fontsize=11)
        _draw_gains(panels[1], seeds, "logloss")
        _draw_gains(panels[2], seeds, "auc")
        panels[2].set_yticklabels([])
    keys = [
        Line2D([], [], color=_GREY, marker=marker, mfc=fill, ls="", ms=7, label=label)
        for marker, fill, label in (
            ("D", _GREY, "click (1) or none (0)"),
            ("o", _GREY, "own model's prediction"),
            ("o", "white", "other models' mean"),
        )
    ]
    figure.legend(handles=keys, loc="outside lower left", ncols=3, frameon=False)
    return figure


def _color(cluster: int) -> str:
    return (common.BLUE, common.RED)[cluster] if cluster < 2 else look(cluster)[0]


def _draw_examples(panel: Axes, examples: Sequence[Facts]) -> None:
    for place, one in enumerate(examples):
        color = _color(one["cluster"])
        panel.plot([one["own"], one["other"]], [place, place], color=color, lw=1.2, alpha=0.6)
        panel.plot(one["other"], place, "o", color=color, mfc="white", ms=7)
        panel.plot(one["own"], place, "o", color=color, ms=7)
        panel.plot(one["label"], place, "D", color=color, ms=7, clip_on=False, zorder=4)
    titles = [f"cluster {one['cluster']}, row {one['row']:,}" for one in examples]
    panel.set_yticks(range(len(examples)), titles)
    for text, one in zip(panel.get_yticklabels(), examples, strict=True):
        text.set_color(_color(one["cluster"]))
    panel.set(xlim=(-0.03, 1.03), ylim=(len(examples) - 0.4, -0.6))
    panel.set_xlabel("click probability")
    panel.grid(axis="y", color="0.92", lw=0.7)


def _draw_gains(panel: Axes, seeds: Sequence[Facts], metric: Literal["logloss", "auc"]) -> None:
    first = seeds[0]
    rows = [(f"cluster {c}", facts, _color(c)) for c, facts in enumerate(first["clusters"])]
    rows.append(("all rows", first["all"], "black"))
    for place, (_, facts, color) in enumerate(rows):
        if not facts or np.isnan(facts[metric]["gain"]):
            panel.annotate("not defined", (0, place), va="center", fontsize=8)
            continue
        gain, error = facts[metric]["gain"], np.nan_to_num(facts[metric]["error"])
        panel.errorbar(gain, place, xerr=_SURE * error, fmt="o", color=color, ms=6, lw=1.5)
        if metric == "logloss":
            panel.annotate(
                f"better in {facts['better']:.0%} of rows",
                (gain, place),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=color,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )
    others = [facts["all"][metric]["gain"] for facts in seeds[1:]]
    panel.plot(others, [len(rows) - 0.7] * len(others), "k.", ms=4)
    panel.axvline(0, color=_GREY, lw=0.9, ls="--")
    panel.set_yticks(range(len(rows)), [title for title, _, _ in rows])
    panel.set_ylim(len(rows) - 0.4, -0.7)
    logloss = metric == "logloss"
    panel.set_title(f"own model's gain in {'logloss' if logloss else 'AUC'}", fontsize=11)
    panel.set_xlabel("nats per row" if logloss else "AUC")
    panel.margins(x=0.35 if logloss else 0.1)
    panel.locator_params(axis="x", nbins=5)
