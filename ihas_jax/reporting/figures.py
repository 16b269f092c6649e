"""The figures of a run: learning curves, kept widths, gate probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ihas_jax.training.metrics import auc_text

_COLORS = ("#3b6ea5", "#c8553d", "#588b4a", "#8c6bb1", "#b8860b", "#4d9f9f")
History = list[dict[str, float]]


def count_gates(probs: np.ndarray, thresholds: np.ndarray, bins: int = 50) -> dict[str, Any]:
    """Counts what `draw_probabilities` draws, from gates' `probs [S, K]` and `thresholds [S]`.

    Returns:
      JSON-ready histograms of the instance with the median kept share and of all instances, the
      threshold of that instance, and the 5, 50 and 95 % quantiles of all thresholds.
    """
    kept = (probs > thresholds[:, None]).mean(axis=1)
    median = int(np.argsort(kept, kind="stable")[len(kept) // 2])
    counts = [np.histogram(values, bins, (0, 1))[0].tolist() for values in (probs[median], probs)]
    return {
        "instances": len(probs),
        "one": counts[0],
        "all": counts[1],
        "threshold": float(thresholds[median]),
        "quantiles": np.quantile(thresholds, [0.05, 0.5, 0.95]).tolist(),
    }


def draw_probabilities(gates: dict[str, Any]) -> Figure:
    """Histograms of gate probabilities with thresholds (the paper's Figure 3).

    The left panel has one instance, the right one all of them with the range of thresholds.

    Args:
      gates: the result of `count_gates`.
    """
    figure, axes = _figure(1, 2, (10, 3.6))
    titles = ("one instance", f"{gates['instances']:,} test instances")
    for axis, counts, title in zip(axes, (gates["one"], gates["all"]), titles, strict=True):
        bins = len(counts)
        middles = (np.arange(bins) + 0.5) / bins
        axis.hist(middles, bins, range=(0, 1), weights=counts, color=_COLORS[0])
        axis.set(
            title=title, xlabel="probability of an open gate", ylabel="coordinates", yscale="log"
        )
    threshold = gates["threshold"]
    axes[0].axvline(threshold, color=_COLORS[1], label=f"threshold {threshold:.2f}")
    low, middle, high = gates["quantiles"]
    axes[1].axvspan(low, high, color=_COLORS[1], alpha=0.2, label="5 to 95 % of the thresholds")
    axes[1].axvline(middle, color=_COLORS[1], label=f"median threshold {middle:.2f}")
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
    return figure


def draw_widths(metrics: dict[str, Any], names: Sequence[str]) -> Figure:
    """Kept coordinates per field of a selection, or of each cluster (the paper's Figure 5).

    Args:
      metrics: the content of metrics.json, with `clusters` or a `selection`.
      names: the names of the fields in the figure.
    """
    if "clusters" in metrics:
        models = metrics["clusters"]
        labels = [
            f"cluster {c}: {cluster['share']:.0%} of rows, keeps {cluster['kept']:.0%}"
            for c, cluster in enumerate(models)
        ]
    else:
        models = [metrics["selection"]]
        labels = [f"keeps {models[0]['kept']:.0%}"]
    figure, (axis,) = _figure(1, 1, (max(6.0, 0.32 * len(names) + 2), 4.2))
    width = 0.8 / len(models)
    for c, (model, label) in enumerate(zip(models, labels, strict=True)):
        places = np.arange(len(names)) + (c - (len(models) - 1) / 2) * width
        widths, color = list(model["widths"].values()), _COLORS[c % len(_COLORS)]
        axis.bar(places, widths, width, label=label, color=color)
    axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axis.set(ylabel="kept coordinates")
    axis.margins(x=0.01)
    axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    return figure


def draw_learning_curves(histories: dict[str, History]) -> Figure:
    """Training loss and validation AUC by epoch, one curve per training.

    The model of a cluster is validated on the rows of the cluster, so its curve can't be compared
    with that of a model of all rows.
    """
    figure, (loss_axis, auc_axis) = _figure(1, 2, (10, 3.8))
    for i, (name, history) in enumerate(histories.items()):
        style: dict[str, Any] = {
            "color": _COLORS[i % len(_COLORS)],
            "marker": "o",
            "markersize": 3,
            "linewidth": 1.2,
        }
        epochs = [facts["epoch"] for facts in history]
        loss_axis.plot(
            epochs, [facts.get("loss", np.nan) for facts in history], label=name, **style
        )
        aucs = [facts["auc"] for facts in history]
        if np.isnan(aucs).any():
            name = f"{name} ({auc_text(history[int(np.isnan(aucs).argmax())])})"
        auc_axis.plot(epochs, aucs, label=name, **style)
    before = any(facts["epoch"] < 0 for history in histories.values() for facts in history)
    epoch = "epoch (-1 is before training)" if before else "epoch"
    loss_axis.set(xlabel=epoch, ylabel="training loss")
    auc_axis.set(xlabel=epoch, ylabel="validation AUC, each on its own rows")
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
