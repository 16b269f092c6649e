"""What to keep of a table within a budget, by what its numbers are worth."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from ihas_jax.models.base import EMBEDDING, Model, Variables
from ihas_jax.nn.axes import (
    flat_importance,
    single_precision,
    turn_table,
    worth_of_numbers,
)
from ihas_jax.selectors.axes import Measure, axes_by
from ihas_jax.selectors.budget import fill
from ihas_jax.selectors.plan import Expert, SearchResult
from ihas_jax.selectors.selection import Selection, by_field, mark_largest, select_numbers
from ihas_jax.selectors.turning import freedom_of
from ihas_jax.selectors.usage import Usage, find_usage

Cut = Literal["numbers", "axes"]
"""What is kept: single numbers of a table, or whole coordinates of fields."""


class Best(NamedTuple):
    """What is worth most within a budget.

    Attributes:
      expert: the model that keeps it.
      share: the share of all worth that it keeps.
      worth: what all numbers are worth, about twice the rise of the mean log loss without them.
    """

    expert: Expert
    share: float
    worth: float


def best_expert(
    found: SearchResult,
    cut: Cut,
    *,
    own: bool,
    by: Measure = "loss",
    rows: np.ndarray | None = None,
    opened: np.ndarray | None = None,
) -> Best:
    """The model of some rows that keeps what is worth most within `found.budget`.

    Args:
      found: the searched model, and the numbers to keep.
      cut: what is kept.
      own: whether the table is turned to the principal axes of the rows, where its network allows
        it, or the coordinates are those of the search.
      by: what worth is measured by; see `axes_by`.
      rows: training rows that the model is for; None for all.
      opened: `[N, D]`, the share of the rows whose gates open a coordinate of the search, which
        counts where the table is not turned; None for gates that are all open.
    """
    assert found.budget is not None
    model, variables = found.model, found.variables
    turned, curved = own and freedom_of(model).any, by == "loss"
    usage = find_usage(model, variables, found.train.ids, rows, turned=turned, curved=curved)
    best = best_by(model, variables, usage, found.budget, cut, own=own, by=by, opened=opened)
    return best._replace(expert=replace(best.expert, rows=rows))


def best_by(
    model: Model,
    variables: Variables,
    usage: Usage,
    numbers: int,
    cut: Cut,
    *,
    own: bool,
    by: Measure = "loss",
    opened: np.ndarray | None = None,
) -> Best:
    """What is worth most by how some rows use the table; see `best_expert`.

    The worth of an axis is multiplied by the share of the rows that open it.
    """
    spec, turned = model.embedding, own and freedom_of(model).any
    axes = axes_by(model, variables, usage, by=by, turned=turned)
    axes_of = single_precision(axes) if turned else None
    table = turn_table(spec, variables.params["tables"][EMBEDDING], axes)
    opened = None if turned else opened
    if opened is not None:
        axes = axes._replace(importance=axes.importance * opened.reshape(axes.importance.shape))
    worth = worth_of_numbers(spec, table, usage.counts, axes)
    if cut == "numbers":
        selection = select_numbers(mark_largest(worth, numbers), spec)
    else:
        gains = axis_gains(flat_importance(axes), spec.sizes, numbers)
        selection = Selection(fill(gains, spec.sizes, numbers))
    left = worth if selection.mask is None else worth * selection.mask
    parts = zip(by_field(left, spec), selection.kept, strict=True)
    total = float(worth.sum())
    share = sum(part[:, list(kept)].sum() for part, kept in parts) / (total or 1.0)
    return Best(Expert(selection, axes=axes_of), float(share), total)


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
        # more than all others together, and more per number than any
        most = (gains / rows[:, None]).max() or 1.0
        gains[np.arange(len(rows)), gains.argmax(axis=1)] += gains.sum() + rows * most
    return gains
