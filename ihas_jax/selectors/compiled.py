"""The compiled router: clusters by a score of each value, learnt from the exact router.

The exact router reads the masked embeddings of a row, which takes the table and a product of K x K
numbers; a compiled one adds up N numbers for each cluster but one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ihas_jax.config import AdamConfig, OptimizerConfig
from ihas_jax.data.batches import Feed, Rounds
from ihas_jax.data.dataset import Split
from ihas_jax.progress import say, track
from ihas_jax.selectors.by_value import ScoreRouter
from ihas_jax.training.optimizers import l2_adam, rowwise_tables
from ihas_jax.training.rounds import repeat, take
from ihas_jax.training.steps import Batch, Metrics

_BATCH_ROWS, _ROUND_BATCHES, _EPOCHS, _PATIENCE = 512, 256, 12, 2
_RATE = 0.03
_RESIDENT_BYTES = 1 << 30
_LARGEST = np.iinfo(np.int16).max
_TABLES = rowwise_tables(OptimizerConfig(learning_rate=_RATE, l2=0.0, tables="rowwise"))
_BIAS = l2_adam(AdamConfig(learning_rate=_RATE, l2=0.0))


class _State(NamedTuple):
    """What fitting changes: scores `[V, C - 1]`, bias `[C - 1]`, and the states of both updates."""

    scores: Array
    bias: Array
    table_state: object
    bias_state: optax.OptState


class Agreement(NamedTuple):
    """A compiled router, and the share of validation rows that it routes as the exact one does."""

    router: ScoreRouter
    share: float


def compile_router(
    sizes: tuple[int, ...], train: Split, valid: Split, clusters: int, seed: int
) -> Agreement:
    """Fits scores of values to the clusters of training rows.

    The loss is the softmax cross-entropy of the sums. The epoch that agrees best on validation
    rows counts; fitting ends after two epochs that are no better.

    Note: not in the paper, whose router is the searched model.

    Args:
      sizes: number of values of each field.
      train: training rows, with the cluster of each as its label.
      valid: validation rows, likewise.
      clusters: C, at least two.
      seed: seed of the order of rows.
    """
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    scores, bias = jnp.zeros((sum(sizes), clusters - 1)), jnp.zeros(clusters - 1)
    state = _State(scores, bias, _TABLES.init(scores), _BIAS.init(bias))
    feed = Feed(np.arange(len(train.labels), dtype=np.int32), _BATCH_ROWS, seed)
    resident = train.ids.nbytes <= _RESIDENT_BYTES
    rounds = Rounds(train, feed, _ROUND_BATCHES, _EPOCHS, resident)
    data = Batch(*map(jnp.asarray, train)) if resident else None
    best, waited = Agreement(_quantized(state, first), -1.0), 0
    for epoch in range(_EPOCHS):
        with track(f"[choose] router, epoch {epoch}", len(train.labels)) as bar:
            for i in range(epoch * rounds.per_epoch, (epoch + 1) * rounds.per_epoch):
                item = rounds[i]
                rows = Batch(*map(jnp.asarray, item.data or train)) if data is None else data
                state = _round()(state, rows, first, item.rows, np.int32(item.batches))
                bar.advance(item.batches * _BATCH_ROWS)
        router = _quantized(state, first)
        share = float((router.assign(valid.ids) == valid.labels).mean())
        say(f"[choose] router, epoch {epoch} - agreement: {share:.4f}")
        waited = 0 if share > best.share else waited + 1
        best = max(best, Agreement(router, share), key=lambda one: one.share)
        if waited == _PATIENCE or share == 1.0:
            break
    return best


@lru_cache(maxsize=1)
def _round() -> Callable[..., _State]:
    """`(state, data, first, rows [R, B], count) -> state` after the first `count` batches."""

    def round_(state: _State, data: Batch, first: Array, rows: Array, count: Array) -> _State:
        def step(state: _State, batch_rows: Array) -> tuple[_State, Metrics]:
            return _step(state, first, take(data, batch_rows)), {}

        return repeat(step, state, rows, count)[0]

    return jax.jit(round_, donate_argnums=0)


def _step(state: _State, first: Array, batch: Batch) -> _State:
    """A step of Adam, row-wise in the scores, by the mean cross-entropy of a batch."""
    index = first + batch.ids

    def loss(bias: Array, scores: Array) -> Array:
        sums = bias + scores.sum(axis=1)
        logits = jnp.pad(sums, ((0, 0), (1, 0)))
        labels = batch.labels.astype(jnp.int32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    pace = jnp.ones(())
    looked_up, reading = _TABLES.read(state.scores, state.table_state, index, pace)
    of_bias, of_scores = jax.grad(loss, argnums=(0, 1))(state.bias, looked_up)
    scores, table_state = _TABLES.update(state.scores, state.table_state, reading, of_scores, pace)
    updates, bias_state = _BIAS.update(of_bias, state.bias_state, state.bias)
    return _State(scores, optax.apply_updates(state.bias, updates), table_state, bias_state)


def _quantized(state: _State, first: np.ndarray) -> ScoreRouter:
    """Scores as whole numbers, the largest of which fits into 16 bits."""
    scores, bias = np.asarray(state.scores, np.float64), np.asarray(state.bias, np.float64)
    unit = max(float(np.abs(scores).max()), float(np.abs(bias).max()), 1e-6) / _LARGEST
    whole = np.ascontiguousarray(np.rint(scores / unit).astype(np.int16).T)
    return ScoreRouter(np.rint(bias / unit).astype(np.int32), whole, first)
