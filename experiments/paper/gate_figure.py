"""The drawing of Figure 3: gate probabilities of a row, without and with the polarisation."""

from __future__ import annotations

from typing import NamedTuple

import common
import numpy as np
from matplotlib.figure import Figure

_BINS = 50


class Gates(NamedTuple):
    """The gates of rows.

    Attributes:
      probs: `[S, K]`, the probability that a coordinate's gate is open.
      thresholds: `[S]`, above which a gate is open.
    """

    probs: np.ndarray
    thresholds: np.ndarray


def typical_row(gates: Gates) -> int:
    """The row with the median share of open gates."""
    kept = (gates.probs > gates.thresholds[:, None]).mean(axis=1)
    return int(np.argsort(kept, kind="stable")[len(kept) // 2])


def draw_polarization(without: Gates, polarized: Gates, row: int) -> Figure:
    """Histograms of a row's gate probabilities, searched without and with the polarisation.

    Both have the same log scale, as the paper's Figure 3, whose text has the heavy-tailed
    probabilities, those without the polarisation, on the left.

    Args:
      without: the gates that were searched without the polarisation.
      polarized: those that were searched with it.
      row: the row whose gates are drawn.
    """
    figure, axes = common.panels(2, 2, (9.0, 3.4))
    sides = (("without polarisation", without), ("with polarisation", polarized))
    highest = 1.0
    for axis, (title, gates) in zip(axes, sides, strict=True):
        probs, threshold = gates.probs[row], float(gates.thresholds[row])
        counts, edges = np.histogram(probs, _BINS, (0, 1))
        axis.bar(edges[:-1], counts, 1 / _BINS, align="edge", color=common.BLUE)
        highest = max(highest, float(counts.max()))
        kept = (probs > threshold).mean()
        label = f"threshold {threshold:.2f}: {kept:.0%} open"
        axis.axvline(threshold, color=common.RED, lw=1.5, ls="--", label=label)
        axis.set(xlabel="probability of an open gate", xlim=(0, 1), yscale="log")
        axis.set_title(title, loc="left", fontsize=11)
        axis.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.02, 0.99))
    axes[0].set_ylabel(f"coordinates of test row {row:,} (log scale)")
    for axis in axes:
        axis.set_ylim(0.7, 2 * highest)
    return figure
