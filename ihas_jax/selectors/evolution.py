"""Evolution of embedding widths: candidates scored side by side by a trained model's AUC."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ihas_jax.data.store import Split
from ihas_jax.method_config import OptEmbedConfig
from ihas_jax.models.base import (
    EMBEDDING,
    BatchStats,
    Model,
    Params,
    apply_network,
    factored,
    lookup_rows,
)
from ihas_jax.progress import log
from ihas_jax.selectors.base import looked_up
from ihas_jax.training.streaming import Summed

_ROWS = 512
_BINS = 1 << 15
_LIMIT = 16.0

PopulationAUC = Callable[[Params, BatchStats, np.ndarray], np.ndarray]
"""`score(params, batch_stats, widths [P, N]) -> [P]`."""


class Evolved(NamedTuple):
    """What an evolution came to.

    Attributes:
      widths: `[N]` int32, each from 1 to D: the best candidate of all generations.
      history: the best score so far after each generation.
    """

    widths: np.ndarray
    history: list[float]


def prefix_masks(widths: Array, dim: int) -> Array:
    """1 for the first `widths [...]` of D coordinates, else 0: `[..., D]` float."""
    return (jnp.arange(dim) < widths[..., None]).astype(float)


def mutate(key: Array, parents: Array, count: int, dim: int, probability: float) -> Array:
    """Copies of random parents in which some widths are drawn anew from 1 to D.

    Note: the published code changes the parents themselves, the best candidate among them, and
    never draws the width 1.

    Args:
      key: PRNG key.
      parents: `[R, N]` widths.
      count: mutants to make, C.
      dim: D.
      probability: that a width is drawn anew.

    Returns:
      `[C, N]` widths.
    """
    which, where, what = jax.random.split(key, 3)
    copies = parents[jax.random.randint(which, (count,), 0, len(parents))]
    drawn = jax.random.randint(what, copies.shape, 1, dim + 1, copies.dtype)
    return jnp.where(jax.random.bernoulli(where, probability, copies.shape), drawn, copies)


def cross(key: Array, parents: Array, count: int) -> Array:
    """Children with the first fields of one random parent and the others of a second.

    The cut lies with equal probability at each of the N - 1 places between two fields. The
    parents are two different ones if there are two, and a single field is that of the first.

    Note: the published code draws the cut from 1 to D.

    Args:
      key: PRNG key.
      parents: `[R, N]` widths.
      count: children to make, C.

    Returns:
      `[C, N]` widths.
    """
    number, fields = parents.shape
    who, other, where = jax.random.split(key, 3)
    first = jax.random.randint(who, (count,), 0, number)
    second = (first + jax.random.randint(other, (count,), 1, max(number, 2))) % number
    cuts = jax.random.randint(where, (count, 1), 1, max(fields, 2))
    return jnp.where(jnp.arange(fields) < cuts, parents[first], parents[second])


@partial(jax.jit, static_argnames=("dim", "config"))
def breed(key: Array, parents: Array, dim: int, config: OptEmbedConfig) -> Array:
    """A generation `[P, N]` from parents `[R, N]`: first the mutants, then the children."""
    mutating, crossing = jax.random.split(key)
    mutants = mutate(mutating, parents, config.mutants, dim, config.mutation)
    return jnp.concatenate([mutants, cross(crossing, parents, config.children)])


def fittest(
    candidates: np.ndarray, scores: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Up to `count` different candidates of `[C, N]` and their scores, best first.

    Of equal candidates, and of equal scores, the earlier one goes first.
    """
    _, places = np.unique(candidates, axis=0, return_index=True)
    places.sort()
    best = places[np.argsort(-scores[places], kind="stable")][:count]
    return candidates[best], scores[best]


def evolve(
    key: Array,
    evaluate: Callable[[np.ndarray], np.ndarray],
    fields: int,
    dim: int,
    config: OptEmbedConfig,
) -> Evolved:
    """Searches the widths of the best score, as OptEmbed does (Lyu et al., CIKM 2022).

    The first generation is uniform; each later one is bred from the `config.parents` best of
    all candidates so far. Where there is no generation, or no choice as D is 1, all widths are D.

    Note: the published code takes the best of the last generation alone, of which it mutates
    each one once. That forgets what it has found, but for the best candidate of all, which it
    returns.

    Args:
      key: PRNG key; generation g draws from `fold_in(key, g)`.
      evaluate: widths `[P, N]` of a generation -> scores `[P]`, the larger the better.
      fields: N.
      dim: D.
      config: sizes of a generation and their number.
    """
    generations = config.generations if dim > 1 else 0
    if generations == 0:
        return Evolved(np.full(fields, dim, np.int32), [])
    pool, scores = np.empty((0, fields), np.int32), np.empty(0)
    history: list[float] = []
    for generation in range(generations):
        draw = jax.random.fold_in(key, generation)
        if generation == 0:
            shape = (config.mutants + config.children, fields)
            candidates = jax.random.randint(draw, shape, 1, dim + 1, jnp.int32)
        else:
            candidates = breed(draw, pool, dim, config)
        born = np.asarray(candidates)
        everyone = np.concatenate([pool, born]), np.concatenate([scores, evaluate(born)])
        pool, scores = fittest(*everyone, config.parents)
        history.append(float(scores[0]))
    log(
        f"[choose] {generations} generations of widths: validation AUC {history[0]:.4f} after "
        f"the first, {history[-1]:.4f} in the end"
    )
    return Evolved(pool[0], history)


def make_population_auc(model: Model, split: Split) -> PopulationAUC:
    """Scores a population by the AUC of a model that sees each field's first coordinates alone.

    All candidates share a batch's look-up, and the network is applied to them side by side, 512
    rows at a time so that P x 512 x K numbers have to fit into memory. Factors among the
    statistics multiply the embeddings.

    Log-odds are counted in 2^15 equal bins from -16 to 16, where those beyond fall into the last
    ones. A pair of a click and another row in the same bin counts half, as ties do: the AUC is
    wrong by at most half the share of such pairs that are no ties. For log-odds of deviation 1
    that is 1.4e-4 at most, and far less in truth, as nearly half of them are in order.

    Args:
      model: the click model.
      split: the rows to score by.

    Returns:
      `score(params, batch_stats, widths [P, N]) -> [P]`; all 1/2 where there is one class only.
    """
    columns = np.column_stack([split.ids, split.labels])  # to be streamed together

    def logits_of(weights: Any, ids: Array) -> Array:
        params, batch_stats, masks = weights
        rows = factored(model, lookup_rows(model, params["tables"], ids), batch_stats, ids)
        group, looked = looked_up(model, rows[EMBEDDING], ids)

        def logits(mask: Array) -> Array:
            masked = {**rows, EMBEDDING: {group: looked.embeddings * mask}}
            return apply_network(model, params["network"], batch_stats, masked)[0]

        return jax.vmap(logits)(masks)

    def count(weights: Any, columns: Array, valid: Array) -> Any:
        params, batch_stats, widths = weights
        masks = prefix_masks(widths, model.embedding.dim)
        ids, labels = columns[:, :-1], columns[:, -1]
        parts = ids.reshape(-1, min(_ROWS, len(ids)), ids.shape[1])
        logits = lax.map(lambda part: logits_of((params, batch_stats, masks), part), parts)
        logits = jnp.moveaxis(logits, 0, 1).reshape(len(masks), -1)
        return (), class_counts(logits, labels, valid)

    counter = Summed(count, "[choose] widths")

    def score(params: Params, batch_stats: BatchStats, widths: np.ndarray) -> np.ndarray:
        _, counts = counter((params, batch_stats, widths), columns)
        return auc_of_counts(counts)

    return score


def class_counts(logits: Array, labels: Array, valid: Array) -> Array:
    """Histograms `[P, 2, bins]` int32 of log-odds: of other rows, then of clicks.

    Args:
      logits: `[P, B]`.
      labels: `[B]` int32.
      valid: `[B]`, whether a row counts.
    """
    scaled = (logits + _LIMIT) * (_BINS / (2 * _LIMIT))
    bins = jnp.clip(scaled, 0, _BINS - 1).astype(jnp.int32)
    counts = jnp.zeros((len(logits), 2, _BINS), jnp.int32)
    return counts.at[jnp.arange(len(logits))[:, None], labels, bins].add(valid.astype(jnp.int32))


def auc_of_counts(counts: np.ndarray) -> np.ndarray:
    """AUC `[P]` of `class_counts` `[P, 2, bins]`, ties counted half; 1/2 without both classes."""
    others, clicks = np.moveaxis(counts, 1, 0)
    below = np.cumsum(others, axis=1) - others
    won = (clicks * (below + others / 2)).sum(axis=1)
    pairs = clicks.sum(axis=1) * others.sum(axis=1)
    return np.where(pairs > 0, won / np.maximum(pairs, 1), 0.5)
