"""Evolution of embedding widths: mutants and children of the best candidates so far."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.config.methods import OptEmbedConfig
from ihas_jax.progress import say


class Evolved(NamedTuple):
    """The result of an evolution.

    Attributes:
      widths: `[N]` int32, the best candidate of all generations; each width is from 1 to D.
      history: the best score so far after each generation.
    """

    widths: np.ndarray
    history: list[float]


def mutate(key: Array, parents: Array, count: int, dim: int, probability: float) -> Array:
    """Copies of random parents in which some widths are replaced by random ones from 1 to D.

    Note: the published code changes the parents themselves, the best candidate among them, and
    never draws the width 1.

    Args:
      key: PRNG key.
      parents: `[R, N]` widths.
      count: mutants to make, C.
      dim: D.
      probability: probability that a width is replaced.

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
    two parents differ if there are at least two; a single field comes from the first parent.

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
    repair: Callable[[np.ndarray], np.ndarray] = lambda candidates: candidates,
) -> Evolved:
    """Searches the widths of the best score, as OptEmbed does (Lyu et al., CIKM 2022).

    The first generation is uniform; each later one is bred from the `config.parents` best of
    all candidates so far. Without generations, or where D is 1, all widths are D.

    Note: the published code breeds from the best of the last generation alone, and mutates each
    of them once. It sorts the candidates and leaves their scores in the old order, so that the
    candidate that it saves is seldom the best one seen: it was worse in each of 20 searches of toy
    scores. Here the best of all candidates is returned.

    Args:
      key: PRNG key; generation g draws from `fold_in(key, g)`.
      evaluate: widths `[P, N]` of a generation -> scores `[P]`; larger scores are better.
      fields: N.
      dim: D.
      config: the number of generations and the sizes of one.
      repair: turns the widths `[P, N]` of a generation into widths that are allowed; all are by
        default.
    """
    generations = config.generations if dim > 1 else 0
    if generations == 0:
        return Evolved(repair(np.full((1, fields), dim, np.int32))[0], [])
    pool, scores = np.empty((0, fields), np.int32), np.empty(0)
    history: list[float] = []
    for generation in range(generations):
        draw = jax.random.fold_in(key, generation)
        if generation == 0:
            shape = (config.mutants + config.children, fields)
            candidates = jax.random.randint(draw, shape, 1, dim + 1, jnp.int32)
        else:
            candidates = breed(draw, pool, dim, config)
        born = repair(np.asarray(candidates))
        everyone = np.concatenate([pool, born]), np.concatenate([scores, evaluate(born)])
        pool, scores = fittest(*everyone, config.parents)
        history.append(float(scores[0]))
    say(
        f"[choose] {generations} generations of widths: validation AUC {history[0]:.4f} after "
        f"the first, {history[-1]:.4f} after the last"
    )
    return Evolved(pool[0], history)
