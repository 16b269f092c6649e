"""Validation AUC of many candidate widths at once, by a trained model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ihas_jax.data.dataset import Split
from ihas_jax.models.base import Model, Variables
from ihas_jax.models.forward import Lookup, Transformed, forward
from ihas_jax.models.streaming import Summed
from ihas_jax.training.metrics import DivergedError, auc_of_counts

_ROWS = 512
_BINS = 1 << 15
_LIMIT = 16.0

PopulationAUC = Callable[[Variables, np.ndarray], np.ndarray]
"""`score(variables, widths [P, N]) -> [P]`."""


def prefix_masks(widths: Array, dim: int) -> Array:
    """1 for the first `widths [...]` of D coordinates, else 0: `[..., D]` float."""
    return (jnp.arange(dim) < widths[..., None]).astype(float)


def make_population_auc(model: Model, split: Split) -> PopulationAUC:
    """Scores a population by the AUC of a model that sees each field's first coordinates alone.

    All candidates share a batch's look-up, and the network is applied to them side by side, 512
    rows at a time so that P x 512 x K numbers have to fit into memory. Factors among the
    constants multiply the embeddings.

    Log-odds are counted in 2^15 equal bins from -16 to 16; the outermost bins also take what lies
    beyond. A pair of a click and another row in one bin counts half, as a tie does, so the AUC is
    wrong by at most half the share of such pairs that are not ties. For log-odds of deviation 1
    this bound is 1.4e-4; the error is far smaller, since nearly half of the pairs are in order.

    Args:
      model: the click model.
      split: the rows to score by.

    Returns:
      `score(variables, widths [P, N]) -> [P]`; all 1/2 where there is one class only. It
      raises `DivergedError` where a log-odds is not a number.
    """
    columns = np.column_stack([split.ids, split.labels])  # to be streamed together

    def logits_of(variables: Variables, masks: Array, ids: Array) -> Array:
        def of_one(mask: Array) -> Array:
            def show(variables: Variables, lookup: Lookup, key: Array | None) -> Transformed:
                return Transformed(lookup.vectors * mask)

            return forward(model, variables, ids, show).logits

        return jax.vmap(of_one)(masks)

    def count(inputs: tuple[Variables, Array], columns: Array, valid: Array) -> Any:
        variables, widths = inputs
        masks = prefix_masks(widths, model.embedding.dim)
        ids, labels = columns[:, :-1], columns[:, -1]
        parts = ids.reshape(-1, min(_ROWS, len(ids)), ids.shape[1])
        logits = lax.map(lambda part: logits_of(variables, masks, part), parts)
        logits = jnp.moveaxis(logits, 0, 1).reshape(len(masks), -1)
        return (), class_counts(logits, labels, valid)

    counter = Summed(count)

    def score(variables: Variables, widths: np.ndarray) -> np.ndarray:
        _, counts = counter((variables, widths), columns, title="[choose] widths")
        if (counts.sum(axis=(1, 2)) < len(columns)).any():
            raise DivergedError(
                "Predictions by some widths are nan: the model that they are chosen for diverged. "
                "Try a smaller --optimizer.learning-rate, with a new --output."
            )
        return np.nan_to_num(auc_of_counts(counts), nan=0.5)

    return score


def class_counts(logits: Array, labels: Array, valid: Array) -> Array:
    """Histograms `[P, 2, bins]` int32 of log-odds but nan: first of other rows, then of clicks.

    Args:
      logits: `[P, B]`.
      labels: `[B]` int32.
      valid: `[B]`, whether a row counts.
    """
    scaled = (logits + _LIMIT) * (_BINS / (2 * _LIMIT))
    bins = jnp.clip(scaled, 0, _BINS - 1).astype(jnp.int32)
    counts = jnp.zeros((len(logits), 2, _BINS), jnp.int32)
    number = (valid & ~jnp.isnan(logits)).astype(jnp.int32)
    return counts.at[jnp.arange(len(logits))[:, None], labels, bins].add(number)
