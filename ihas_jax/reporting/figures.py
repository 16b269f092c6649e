"""The figures of a run: learning curves, kept widths, gate probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ihas_jax.progress import log

_COLORS = ("#3b6ea5", "#c8553d", "#588b4a", "#8c6bb1", "#b8860b", "#4d9f9f")
History = list[dict[str, float]]


def draw_figures(
    directory: Path,
    metrics: dict[str, Any],
    histories: dict[str, History],
    sample: dict[str, np.ndarray] | None,
) -> None:
    """Writes `learning_curves.png`, and `widths.png` and `probabilities.png` where they make sense.

    Args:
      directory: where they go.
      metrics: the content of metrics.json.
      histories: epochs of each training run.
      sample: gates' `probs [S, K]` and `thresholds [S]` of some test rows.
    """
    directory.mkdir(parents=True, exist_ok=True)
    figures = {"learning_curves": draw_learning_curves(histories)}
    if sample is not None:
        figures["probabilities"] = draw_probabilities(sample["probs"], sample["thresholds"])
    if "clusters" in metrics:
        labels = [
            f"cluster {c}: {cluster['share']:.0%} of rows, keeps {cluster['kept']:.0%}"
            for c, cluster in enumerate(metrics["clusters"])
        ]
        figures["widths"] = draw_widths(metrics["clusters"], labels)
    if "selection" in metrics:
        selection = metrics["selection"]
        figures["widths"] = draw_widths([selection], [f"keeps {selection['kept']:.0%}"])
    for name, figure in figures.items():
        with matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(directory / f"{name}.png", dpi=150)
    log(f"[Figures] {', '.join(f'{name}.png' for name in figures)} in {directory}")


def draw_probabilities(probs: np.ndarray, thresholds: np.ndarray, bins: int = 50) -> Figure:
    """Histograms of gate probabilities with thresholds (the paper's Figure 3).

    Left: one instance, the one whose kept share is the median. Right: all of them, with the
    range of their thresholds.
    """
    figure, axes = _figure(1, 2, (10, 3.6))
    kept = (probs > thresholds[:, None]).mean(axis=1)
    median = int(np.argsort(kept, kind="stable")[len(kept) // 2])
    titles = ("one instance", f"{len(probs):,} test instances")
    for axis, values, title in zip(axes, (probs[median], probs.ravel()), titles, strict=True):
        axis.hist(values, bins=bins, range=(0, 1), color=_COLORS[0])
        axis.set(
            title=title, xlabel="probability of an open gate", ylabel="coordinates", yscale="log"
        )
    axes[0].axvline(
        thresholds[median], color=_COLORS[1], label=f"threshold {thresholds[median]:.2f}"
    )
    low, middle, high = np.quantile(thresholds, [0.05, 0.5, 0.95])
    axes[1].axvspan(low, high, color=_COLORS[1], alpha=0.2, label="5 to 95 % of the thresholds")
    axes[1].axvline(middle, color=_COLORS[1], label=f"median threshold {middle:.2f}")
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
    return figure


def draw_widths(models: list[dict[str, Any]], labels: list[str]) -> Figure:
    """Kept coordinates per field of one or more models (the paper's Figure 5).

    Args:
      models: each with its `widths` by field.
      labels: what to call them.
    """
    names = list(models[0]["widths"])
    figure, (axis,) = _figure(1, 1, (max(6.0, 0.32 * len(names) + 2), 4.2))
    width = 0.8 / len(models)
    for c, (model, label) in enumerate(zip(models, labels, strict=True)):
        places = np.arange(len(names)) + (c - (len(models) - 1) / 2) * width
        axis.bar(
            places, list(model["widths"].values()), width, label=label,
            color=_COLORS[c % len(_COLORS)],
        )  # fmt: skip
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axis.set(ylabel="kept coordinates")
    axis.margins(x=0.01)
    axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    return figure


def draw_learning_curves(histories: dict[str, History]) -> Figure:
    """Training loss and validation AUC by epoch, for every training run.

    Each cluster's model is validated on its own cluster's rows, so its curve can't be compared
    with that of a model of all rows.
    """
    figure, (loss_axis, auc_axis) = _figure(1, 2, (10, 3.8))
    for i, (name, history) in enumerate(histories.items()):
        style: dict[str, Any] = {
            "color": _COLORS[i % len(_COLORS)], "marker": "o", "markersize": 3, "linewidth": 1.2
        }  # fmt: skip
        epochs = [facts["epoch"] for facts in history]
        loss_axis.plot(epochs, [facts["loss"] for facts in history], label=name, **style)
        auc_axis.plot(epochs, [facts["auc"] for facts in history], label=name, **style)
    loss_axis.set(xlabel="epoch", ylabel="training loss")
    auc_axis.set(xlabel="epoch", ylabel="validation AUC, each on its own rows")
    for axis in (loss_axis, auc_axis):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    auc_axis.legend(frameon=False, fontsize=8)
    return figure


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes
