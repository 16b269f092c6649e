"""Draws the first picture of the README: AUC and size of each selection method on each log."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ihas_jax.errors import InputError, run_cli
from ihas_jax.files import null_to_nan, read_json
from ihas_jax.progress import say
from ihas_jax.reporting.comparison import paired_gain
from ihas_jax.reporting.drawing import figure_names, save_figure
from ihas_jax.selectors.registry import METHODS

_REACH = (-22.0, 6.0)
"""The range of differences that a panel shows, in thousandths of AUC."""

Scores = dict[str, list[dict[str, Any]]]
"""Scores of one log: a list over seeds, by method."""


@dataclass(frozen=True)
class Arguments:
    """Draws test AUC and size of all methods from the results of paper/table2_overall.py."""

    table: Path = Path("experiments/results/table2.json")
    """The results to draw."""
    figure: Path = Path("experiments/results/overview.png")
    """The file to write."""


def main() -> None:
    """Reads the command line and the results, draws the picture."""
    arguments = tyro.cli(Arguments)
    if not arguments.table.exists():
        raise InputError(f"{arguments.table}: no such file; paper/table2_overall.py makes it.")
    found: dict[str, Scores] = null_to_nan(read_json(arguments.table)["logs"])
    logs = {name: scores for name, scores in found.items() if "none" in scores}
    if not logs:
        raise InputError(f"{arguments.table} has no scores of the full-size model yet.")
    names = figure_names(list(logs), "log")
    panels = dict(zip(names.texts, logs.values(), strict=True))
    arguments.figure.parent.mkdir(parents=True, exist_ok=True)
    save_figure(arguments.figure, partial(draw, panels), names.fonts)
    say(f"Figure: {arguments.figure}")


def draw(logs: dict[str, Scores]) -> Figure:
    """One panel per log and one row per method: difference from the full-size model, and size.

    Args:
      logs: the scores by the title of their panel.
    """
    found = {method for scores in logs.values() for method in scores}
    methods = [method for method in METHODS if method in found]
    size = (1.7 + 2.9 * len(logs), 1.2 + 0.28 * len(methods))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(wspace=0.06))
    panels = figure.subplots(1, len(logs), sharey=True, squeeze=False)[0]
    for panel, (name, scores) in zip(panels, logs.items(), strict=True):
        panel.set_title(name, fontsize=11)
        panel.set_xlim(*_REACH)
        panel.axvline(0, color="0.3", linewidth=1)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        for row, method in enumerate(methods):
            if method in scores:
                draw_method(panel, row, scores[method], scores["none"], method == "ihas")
    panels[0].set_yticks(range(len(methods)), [METHODS[method].title for method in methods])
    panels[0].invert_yaxis()
    figure.supxlabel(
        "thousandths of test AUC above (right) or below (left) the full-size model, mean and "
        "deviation over seeds\nin grey: size, as a multiple of the full-size model's",
        fontsize=9,
    )
    return figure


def draw_method(
    panel: Axes, row: int, runs: list[dict[str, Any]], base: list[dict[str, Any]], ours: bool
) -> None:
    """Draws a dot with its deviation, or an arrow and a number at the edge; and the size."""
    color = "C3" if ours else "C0"
    gain = paired_gain([run["auc"] for run in runs], [run["auc"] for run in base]).spread
    mean, deviation = 1000 * gain.mean, 1000 * gain.deviation
    left, right = _REACH
    if mean < left:
        panel.plot(left, row, "<", color=color, clip_on=False)
        panel.text(left + 1, row, f"{mean:.0f}", color=color, va="center", fontsize=8)
    elif not np.isnan(mean):
        error = 0.0 if np.isnan(deviation) else deviation
        panel.errorbar(mean, row, xerr=error, fmt="o", color=color, markersize=5, linewidth=1.5)
    sizes = [run["parameters"] + run["router_parameters"] for run in runs]
    size = float(np.mean(sizes)) / base[0]["parameters"]
    panel.text(right, row, f"{size:.2f}", color="0.45", va="center", fontsize=8)


if __name__ == "__main__":
    run_cli(main)
