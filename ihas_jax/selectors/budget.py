"""Budgets: how many numbers of a table may be kept, and the coordinates that fill them best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ihas_jax.errors import InputError
from ihas_jax.nn.embedding import EmbeddingSpec, Kept
from ihas_jax.selectors.plan import SearchResult

LEAST = 0.98
"""The share of a budget that a choice uses, where whole coordinates allow it."""
_CELLS = 512
"""Cells of the grid for each field: costs are rounded up by less than one cell each."""


def numbers_of(share: float, spec: EmbeddingSpec) -> int:
    """The numbers in a share of a table, rounded down."""
    return math.floor(share * spec.parameters * (1 + 1e-12))  # 0.29 * 100 is just below 29


def numbers_to_keep(found: SearchResult, share: float) -> int:
    """The numbers that a choice may keep: the budget, or without one a share of the table."""
    return numbers_of(share, found.model.embedding) if found.budget is None else found.budget


def require_room(
    flag: str, share: float, spec: EmbeddingSpec, parts: int = 1, unit: float = 1.0
) -> None:
    """Checks that a share of a table has room for a choice, before anything is trained.

    Args:
      flag: the flag that sets the share, for the message.
      share: the share.
      spec: the table before selection.
      parts: number of models that share the room.
      unit: the share of this table that is 1 by the flag, which may mean shares of another table.

    Raises:
      InputError: each model's part is less than one coordinate of the smallest field takes, or
        less than one value takes.
    """
    numbers, least = numbers_of(share, spec) // parts, max(min(spec.sizes), spec.dim)
    if numbers < least:
        each = "" if parts == 1 else f" for each of {parts} models"
        what = "the smallest coordinate of a field" if least > spec.dim else "one value"
        enough = _rounded_up(least * parts / spec.parameters / unit)
        remedy = f"Choose a --{flag} of at least {enough:g}."
        if least * parts > spec.parameters:
            remedy = "Choose fewer clusters, since the whole table has no room for these."
        raise InputError(
            f"--{flag} {share / unit:g} is {numbers:,} numbers of the embedding table{each}, and "
            f"{what} takes {least:,}. {remedy}"
        )


def _rounded_up(share: float) -> float:
    """A share with two digits, not below the given one and at most 1."""
    unit = 10.0 ** (math.floor(math.log10(share)) - 1)
    return min(1.0, math.ceil(share / unit) * unit)


def fill(gains: np.ndarray, rows: np.ndarray | Sequence[int], budget: int) -> Kept:
    """The coordinates of the largest total gain within a budget of numbers.

    A coordinate of a field takes as many numbers as the field has values, so the best d of each
    field are kept: a knapsack. The better of two choices is taken: one in the order of gain per
    number (of equal ones, the first of every field before the second, small fields first), which
    is the optimum where the first coordinate that does not fit has no room at all; and the optimum
    of dynamic programming on a grid of the budget.

    The kept numbers are never more than the budget, no further coordinate fits into what is left,
    and they are at least 98 % of the budget wherever a choice of coordinates keeps between 98.4 %
    and 99.6 % of it; where the budget is no more than 512 N numbers, wherever one keeps 98 %.
    Coordinates without gain fill what is left.

    Args:
      gains: `[N, D]`, not negative.
      rows: `[N]`, numbers that a coordinate of each field takes; fields of 0 keep nothing.
      budget: numbers to keep.

    Raises:
      InputError: no coordinate fits.
      ValueError: a gain is negative or not a number.
    """
    gains = np.asarray(gains, np.float64)
    if not (gains >= 0).all():
        raise ValueError("gains must be numbers that are not negative")
    order, rows = np.argsort(-gains, axis=1, kind="stable"), np.asarray(rows, np.int64)
    best = np.take_along_axis(gains, order, axis=1)
    if budget < (least := int(rows[rows > 0].min())):
        raise InputError(
            f"The budget has {budget:,} numbers of the embedding table, and one coordinate of the "
            f"smallest field takes {least:,}. Choose a larger --budget."
        )
    totals = np.pad(best.cumsum(axis=1), ((0, 0), (1, 0)))
    starts = (np.zeros(len(rows), np.int64), _knapsack(totals, rows, budget))
    choices = [_topped_up(counts, best, rows, budget) for counts in starts]
    counts = max(choices, key=lambda counts: _merit(counts, totals, rows, budget))
    return tuple(
        tuple(sorted(field[:count].tolist())) for field, count in zip(order, counts, strict=True)
    )


def fill_in_proportion(
    weights: np.ndarray,
    rows: np.ndarray | Sequence[int],
    spec: EmbeddingSpec,
    budget: int,
    most: int | None = None,
) -> Kept:
    """First coordinates of each field, their numbers in proportion to weights.

    A field of weight w has round(lambda w) coordinates, but at least one and at most all; lambda is
    the largest that the budget allows. What is left is filled as in `fill`, so a budget that is
    less than a coordinate of each field leaves some fields out. Of several vectors side by side
    each keeps its first coordinates.

    Args:
      weights: `[N]`, positive.
      rows: `[N]`, numbers that a coordinate of each field takes.
      spec: the table before selection.
      budget: numbers to keep.
      most: coordinates that a field may have at most; all by default.

    Raises:
      InputError: no coordinate fits.
    """
    place = np.arange(spec.dim) % (spec.dim // spec.vectors_per_field)
    # lambda reaches coordinate j at (j + 1/2) / w; of gains per number that fall with this lambda,
    # the largest come first
    density = weights[:, None] / (place + 0.5)
    density[:, place == 0] = 2 * density.max()
    columns = np.argsort(place, kind="stable")[:most]
    kept = fill(density[:, columns] * np.asarray(rows)[:, None], rows, budget)
    return tuple(tuple(sorted(columns[list(field)].tolist())) for field in kept)


def _merit(
    counts: np.ndarray, totals: np.ndarray, rows: np.ndarray, budget: int
) -> tuple[bool, float]:
    """What a choice is judged by: whether it uses the budget, then its gain in float32."""
    gain = np.take_along_axis(totals, counts[:, None], axis=1).sum()
    return bool(rows @ counts >= LEAST * budget), float(np.float32(gain))


def _topped_up(counts: np.ndarray, best: np.ndarray, rows: np.ndarray, budget: int) -> np.ndarray:
    """Widths `[N]` from `counts` on, each next coordinate by gain per number where it fits."""
    fields, dim = best.shape
    counts, left = counts.copy(), budget - int(rows @ counts)
    # rounded, so that gains in proportion to rows are equal per number
    density = (best / np.maximum(rows, 1)[:, None]).astype(np.float32)
    field, rank = (part.ravel() for part in np.indices((fields, dim)))
    for i in np.lexsort((rows[field], rank, -density.ravel())):
        n = field[i]
        if rank[i] >= counts[n] and 0 < (cost := int(rows[n])) <= left:
            counts[n] += 1
            left -= cost
    return counts


def _knapsack(totals: np.ndarray, rows: np.ndarray, budget: int) -> np.ndarray:
    """Widths `[N]` of the largest gain, of those that use 98 % of the budget if there are any.

    Args:
      totals: `[N, D + 1]`, gain of the best d coordinates of each field.
      rows: `[N]`.
      budget: numbers to keep.
    """
    fields, options = totals.shape
    unit = -(-budget // (_CELLS * fields))
    capacity, slack = budget // unit, fields if unit > 1 else 0
    costs = -(-rows[:, None] * np.arange(options) // unit)
    gain = np.full(capacity + 1, -np.inf)
    gain[0] = 0.0  # of choices that take exactly so many cells
    taken = np.zeros((fields, capacity + 1), np.int32)
    for n in np.flatnonzero(rows).tolist():
        before, gain = gain, gain.copy()
        for d in range(1, options):
            if (cost := int(costs[n, d])) > capacity:
                break
            offered = before[: len(before) - cost] + totals[n, d]
            better = offered > gain[cost:]
            gain[cost:][better] = offered[better]
            taken[n, cost:][better] = d
    used = math.ceil(LEAST * capacity) + slack
    start = used if np.isfinite(gain[used:]).any() else 0
    place = start + int(np.argmax(gain[start:]))
    counts = np.zeros(fields, np.int64)
    for n in reversed(range(fields)):
        counts[n] = taken[n, place]
        place -= int(costs[n, counts[n]])
    return counts
