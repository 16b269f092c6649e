"""What to keep of a table within a budget, by what its numbers are worth."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ihas_jax.models.base import EMBEDDING
from ihas_jax.nn.axes import Axes, flat_importance, turn_table, worth_of_numbers
from ihas_jax.selectors.axes import count_values
from ihas_jax.selectors.budget import fill
from ihas_jax.selectors.plan import SearchResult
from ihas_jax.selectors.selection import Selection, by_field, mark_largest, select_numbers

Cut = Literal["numbers", "axes"]
"""What is kept: single numbers of a table, or whole coordinates of fields."""


def select_by_worth(
    found: SearchResult,
    axes: Axes,
    numbers: int,
    cut: Cut,
    *,
    rows: np.ndarray | None = None,
    opened: np.ndarray | None = None,
) -> tuple[Selection, float]:
    """The numbers of a table, or its coordinates, that are worth most within a budget.

    Args:
      found: the searched model.
      axes: the axes that its table is turned to, and what they are worth on the rows.
      numbers: numbers to keep.
      cut: what is kept.
      rows: training rows that the selection is for; None for all.
      opened: `[N, D]`, the share of the rows whose gates open a coordinate, by which its worth is
        multiplied; None for gates that are all open.

    Returns:
      The selection, and the share of all worth that it keeps.
    """
    spec = found.model.embedding
    counts = count_values(spec.sizes, found.train.ids, rows)
    table = turn_table(spec, found.variables.params["tables"][EMBEDDING], axes)
    if opened is not None:
        axes = axes._replace(importance=axes.importance * opened.reshape(axes.importance.shape))
    worth = worth_of_numbers(spec, table, counts, axes)
    if cut == "numbers":
        selection = select_numbers(mark_largest(worth, numbers), spec)
    else:
        gains = axis_gains(flat_importance(axes), spec.sizes, numbers)
        selection = Selection(fill(gains, spec.sizes, numbers))
    left = worth if selection.mask is None else worth * selection.mask
    parts = zip(by_field(left, spec), selection.kept, strict=True)
    share = sum(part[:, list(kept)].sum() for part, kept in parts) / (worth.sum() or 1.0)
    return selection, float(share)


def axis_gains(importance: np.ndarray, sizes: tuple[int, ...], numbers: int) -> np.ndarray:
    """Gains `[N, D]` by which axes fill a budget: importance times the root of a field's size.

    The first axis of every field goes first where the budget has room for them all.

    Note: importance alone gives the least loss before retraining, but leaves out large fields whose
    values others predict in part, which retraining then misses.

    Args:
      importance: `[N, D]`.
      sizes: values of each field.
      numbers: the budget.
    """
    rows = np.array(sizes, np.float64)
    gains = importance * np.sqrt(rows)[:, None]
    if numbers >= rows.sum():
        gains[np.arange(len(rows)), gains.argmax(axis=1)] += gains.sum() + rows
    return gains
