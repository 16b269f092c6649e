"""The steps of Adam that a row has missed, applied at once.

Dense Adam also moves the rows that are in no batch: their momentum goes on, and L2 pulls them to
zero. A row that has had s steps and misses the next k has, without L2, the moments `b1^j m` and
`b2^j v` after j of them, and moves by

    lr m / sqrt(v) sum_j r^j sqrt(1 - b2^(s+j)) / (1 - b1^(s+j)),    r = b1 / sqrt(b2),

a number per row, which a table holds for small s, and which is nearly a geometric series after
that. L2 adds a gradient `l w`, much smaller than those of clicks: while the momentum dies out, the
row decays by `lr l / (sqrt(v_t / (1 - b2^t)) + eps)` per step. Three points of Gauss, which rows of
all widths share, give the mean over the k steps of what v_t and its correction do to that.

Note: an approximation of ours, for which we know no source. Epsilon is exact only where it is much
smaller or much larger than `sqrt(v)`, and the decay by L2 where it is slow. `tests/training/
test_missed.py` compares it with Adam itself, and README.md says what it does to a table.
"""

from __future__ import annotations

from math import log

import jax.numpy as jnp
import numpy as np
from jax import Array

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
_RATIO = BETA1 / BETA2**0.5
_EARLY, _LONG = 256, 160
"""Steps after which 1 - b1^s is 1, and missed steps after which a momentum has died out."""
_GAUSS = tuple(
    (0.5 + 0.5 * x, weight / 18) for x, weight in ((-(0.6**0.5), 5), (0, 8), (0.6**0.5, 5))
)
_STEEPEST = 0.0527
"""The largest decay of a row by L2 in a step: Adam's, where its gradient vanishes in epsilon."""


def _early_sums() -> np.ndarray:
    """The sum of the head of this module for each s and k, `[_EARLY, _LONG + 1]` float32."""
    steps, j = np.arange(_EARLY)[:, None], np.arange(1, _LONG + 1)[None]
    terms = _RATIO**j * np.sqrt(1 - BETA2 ** (steps + j)) / (1 - BETA1 ** (steps + j))
    return np.pad(np.cumsum(terms, axis=1), ((0, 0), (1, 0))).astype(np.float32)


def _late_sums() -> tuple[np.ndarray, np.ndarray]:
    """The geometric series for each k, and the mean step j of its terms, `[_LONG + 1]` float32."""
    k = np.arange(_LONG + 1)
    left = _RATIO**k
    mean = 1 / (1 - _RATIO) - k * left / np.maximum(1 - left, 1e-12)
    return (_RATIO * (1 - left) / (1 - _RATIO)).astype(np.float32), mean.astype(np.float32)


_SUMS = _early_sums()
_SERIES, _MEAN_STEPS = _late_sums()


def after_missed(
    rows: Array,
    mean: Array,
    square: Array,
    last: Array,
    steps: Array,
    learning_rate: Array | float,
    l2: float,
) -> tuple[Array, Array, Array]:
    """Rows of a table and their moments, as dense Adam has them after all steps.

    Args:
      rows: `[P, d]` rows as they were after their last step.
      mean: `[P, d]` first moments then.
      square: `[P, d]` second moments then.
      last: `[P]` int32, that step, counted from 1; 0 for a row that has had none.
      steps: `[]` or `[P]` int32, steps that all other rows have had.
      learning_rate: `[]` or `[P]`.
      l2: the coefficient of the L2 term.
    """
    new = rows_after_missed(rows, mean, square, last, steps, learning_rate, l2)
    return new, *moments_after_missed(new, mean, square, steps - last, l2)


def rows_after_missed(
    rows: Array,
    mean: Array,
    square: Array,
    last: Array,
    steps: Array,
    learning_rate: Array | float,
    l2: float,
) -> Array:
    """The rows `[P, d]` alone that `after_missed` returns, from its arguments."""
    kind = rows.dtype
    missed = steps - last
    s, k = last.astype(kind), missed.astype(kind)
    rate = jnp.broadcast_to(jnp.asarray(learning_rate, kind), k.shape)
    middle = jnp.sqrt(1 - _power(BETA2, jnp.maximum(s + jnp.minimum(k, 9) / 2, 1)))
    inverse = 1 / (jnp.sqrt(square) + (EPSILON * middle)[:, None])
    moved = (rate * _sums(last, missed, s))[:, None] * mean * inverse
    if not l2:
        return rows - moved

    seen = square > 0
    moved = jnp.where(seen, moved, 0)
    decay = _decay(rows, square, s, k, rate, l2)
    left1 = _power(BETA1, k)
    # steps of L2 whose momentum has arrived, and those that met the row before it moved
    arrived = k - (1 - _power(BETA1, s)) * BETA1 * (1 - left1) / (1 - BETA1)
    before = (1 - _power(_RATIO, k)) / (1 - _RATIO) - k * left1
    first = (rate * l2 * middle)[:, None] * inverse
    extra = jnp.where(seen, jnp.minimum(first, 0.02) * moved * before[:, None], 0)
    new = (rows - moved - extra) * jnp.exp(-arrived[:, None] * decay)
    # to the last bit for rows that have missed nothing
    return jnp.where((missed > 0)[:, None], new, rows)


def moments_after_missed(
    rows: Array, mean: Array, square: Array, missed: Array, l2: float
) -> tuple[Array, Array]:
    """The moments `[P, d]` that `after_missed` returns.

    Args:
      rows: `[P, d]` rows after the missed steps.
      mean: `[P, d]` first moments before.
      square: `[P, d]` second moments before.
      missed: `[P]` int32, the number of missed steps.
      l2: the coefficient of the L2 term.
    """
    k = missed.astype(rows.dtype)
    left1, left2 = _power(BETA1, k)[:, None], _power(BETA2, k)[:, None]
    if not l2:
        return left1 * mean, left2 * square
    g = l2 * rows
    return left1 * mean + (1 - left1) * g, left2 * square + (1 - left2) * g * g


def _power(base: float, exponent: Array) -> Array:
    return jnp.exp(log(base) * exponent)


def _sums(last: Array, missed: Array, steps: Array) -> Array:
    """The sum of the head of this module, `[P]`."""
    k = jnp.minimum(missed, _LONG)
    early = jnp.asarray(_SUMS, steps.dtype)[jnp.minimum(last, _EARLY - 1), k]
    correction = 1 - _power(BETA2, steps + jnp.asarray(_MEAN_STEPS, steps.dtype)[k])
    late = jnp.asarray(_SERIES, steps.dtype)[k] * jnp.sqrt(correction)
    return jnp.where(last < _EARLY, early, late)


def _decay(rows: Array, square: Array, s: Array, k: Array, rate: Array, l2: float) -> Array:
    """The mean decay `[P, d]` of a row by L2 in a missed step."""
    larger = jnp.zeros_like(k)
    for place, weight in _GAUSS:
        j = place * k + 0.5
        corrected = (1 - _power(BETA2, jnp.maximum(s + j, 1))) * _power(1 / BETA2, j)
        larger = larger + weight * jnp.sqrt(corrected)
    # what L2 itself adds to the second moment matters where that of clicks has decayed
    middle = k / 2 + 0.5
    added = l2**2 * (1 - _power(BETA2, middle)) / (1 - _power(BETA2, s + middle))
    size = jnp.sqrt((larger**-2)[:, None] * square + added[:, None] * rows * rows)
    decay = (rate * l2)[:, None] / (size + EPSILON)
    # a momentum's delay makes a decay faster than its rate
    return jnp.minimum(decay * (1 + 9 * decay), _STEEPEST)
