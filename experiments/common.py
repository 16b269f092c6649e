"""What scripts share to show results: files, cells of tables, panels of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ihas_jax.config import Config
from ihas_jax.files import write_json, write_text
from ihas_jax.names import markdown
from ihas_jax.pipeline.parts import make_parts, require_parts
from ihas_jax.processes import agreed, by_first
from ihas_jax.reporting.comparison import Gain, auc_spread, paired_gain, spread
from ihas_jax.reporting.drawing import FigureNames, save_figure
from ihas_jax.reporting.provenance import provenance
from ihas_jax.reporting.tables import markdown_table as markdown_table
from ihas_jax.training.metrics import auc_text

BLUE, RED, NAVY = "#3b6ea5", "#c8553d", "#1d3c5f"
Runs = Sequence[Mapping[str, Any]]
"""Scores of one variant, by seed."""


@by_first
def write_results(
    results: Path,
    content: Mapping[str, Any],
    lines: Callable[[], list[str]],
    figures: Mapping[str, Callable[[], Figure]] = MappingProxyType({}),
    names: FigureNames | None = None,
) -> tuple[str, ...]:
    """Writes a script's results: JSON first, then Markdown, then figures.

    Args:
      results: path of the files without their endings, .json, .md and those of the figures.
      content: the content of the JSON file; nan becomes null.
      lines: makes the lines of the Markdown file.
      figures: makes each figure, by the ending of its file, such as .png.
      names: how the figure shows the names of a user.

    Returns:
      The files that could not be made, except the JSON file, whose error is raised.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(f"{results}.json"), content)
    text = Path(f"{results}.md")

    def write_markdown() -> None:
        note = [names.note(markdown), ""] if names and names.stand_ins else []
        write_text(text, "\n".join([*lines(), *note]))

    parts: dict[str, Callable[[], None]] = {str(text): write_markdown}
    fonts = names.fonts if names else ()
    for ending, draw in figures.items():
        path = f"{results}{ending}"
        parts[path] = partial(save_figure, path, draw, fonts)
    return make_parts(parts)


def print_results(results: Path, missing: Sequence[str]) -> None:
    """Prints the Markdown file; exits with code 1 if `write_results` could not make all files."""
    require_parts(missing, f"{results}.json")
    agreed(lambda: print(Path(f"{results}.md").read_text(encoding="utf-8")))


def report(title: str, body: Sequence[str], config: Config, figure: str = "") -> list[str]:
    """The lines of a Markdown file: title, body, figure, provenance."""
    shown = [figure, ""] if figure else []
    return [f"# {title}", "", *body, "", *shown, *provenance(config), ""]


def machine() -> list[str]:
    """Lines of Markdown on hardware, versions and command, for results that have no config."""
    return provenance(Config())[:-1]


def spread_cell(runs: Runs, metric: str, digits: int = 4) -> str:
    """The mean and deviation of a metric over seeds, or why an AUC is not defined."""
    if metric == "auc":
        return auc_spread(runs)
    return f"{spread([run[metric] for run in runs]):.{digits}f}"


def gain_over(base: Runs, runs: Runs, metric: str) -> Gain:
    """The difference of `runs` from `base` in a metric, seed by seed."""
    return paired_gain([run[metric] for run in runs], [run[metric] for run in base])


def gain_cells(base: Runs, runs: Runs, metric: str, digits: int = 4) -> list[str]:
    """The difference of `gain_over` and its p-value; two empty cells for the base itself."""
    if runs is base:
        return ["", ""]
    gain = gain_over(base, runs, metric)
    return [f"{gain.spread:+.{digits}f}", gain.p_text]


def summarize(scores: Mapping[str, Runs], metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """Mean and deviation of each variant, and its paired difference from the first one."""
    summary: dict[str, dict[str, float]] = {}
    base, *_ = scores.values()
    for name, runs in scores.items():
        row = summary[name] = {}
        for metric in metrics:
            row[metric], row[f"{metric}_deviation"] = spread([run[metric] for run in runs])
            if runs is not base:
                gain = gain_over(base, runs, metric)
                row[f"{metric}_difference"], row[f"{metric}_difference_deviation"] = gain.spread
                row[f"{metric}_p"] = gain.p
    return summary


def panels(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure of a size in inches, with `count` panels that are open at the top and right."""
    figure = Figure(figsize=size, layout="constrained")
    rows = -(-count // columns)
    axes = [figure.add_subplot(rows, columns, n + 1) for n in range(count)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def say_undefined(panel: Axes, runs: Runs) -> None:
    """Says in an empty panel why there is no AUC."""
    undefined = next(run for run in runs if np.isnan(run["auc"]))
    panel.text(
        0.5, 0.5, f"AUC {auc_text(undefined)}", ha="center", wrap=True, transform=panel.transAxes
    )
