"""How the rows of a log use a trained click model's table: what axes and worth are found by."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.models.base import EMBEDDING, Model, Variables
from ihas_jax.models.forward import forward, look_up, table_index
from ihas_jax.models.parts import Network
from ihas_jax.models.streaming import Summed
from ihas_jax.models.turning import Freedom
from ihas_jax.nn.axes import identity, moments, shape
from ihas_jax.progress import track
from ihas_jax.selectors.turning import check_uniform, network_of, turn

_SAMPLE = 1 << 18
"""Rows of which the curvature is taken: D (D + 1) / 2 numbers per field need no more."""
_CHUNK = 1 << 20


class Usage(NamedTuple):
    """How some rows use a table.

    Attributes:
      counts: `[V]`, how many rows have each value.
      curvature: `[N, M, d, d]` float64, see `logit_moments`; None where it was not asked for.
    """

    counts: np.ndarray
    curvature: np.ndarray | None


def find_usage(
    model: Model,
    variables: Variables,
    ids: np.ndarray,
    rows: np.ndarray | None = None,
    *,
    turned: bool = True,
    curved: bool = True,
) -> Usage:
    """How some rows use the table of a trained click model.

    Args:
      model: the click model, with a uniform table.
      variables: its variables.
      ids: `[n, N]`, the training rows.
      rows: indices of the rows to take, such as those of a cluster; None for all.
      turned: whether better axes are to be found by it: what inner products make of the means of
        embeddings is not lost with an axis, and does not count then.
      curved: whether the curvature is needed.

    Raises:
      ValueError: there are no rows, or the table is not uniform, or has factors.
    """
    spec = model.embedding
    check_uniform(model, variables)
    total = len(ids) if rows is None else len(rows)
    if not total:
        raise ValueError("axes need rows to count values in")
    counts = count_values(spec.sizes, ids, rows)
    if not curved:
        return Usage(counts, None)
    network = network_of(model)
    freedom = network.freedom if turned else Freedom()
    if freedom.shift:
        found = moments(spec, variables.params["tables"][EMBEDDING], counts)
        mean = free_mean(found.mean, network, freedom)
        variables = turn(model, variables, identity(spec, mean))
    every = -(-total // _SAMPLE)
    sample = np.ascontiguousarray(ids[::every]) if rows is None else ids[rows[::every]]
    return Usage(counts, logit_moments(model, variables, sample))


def free_mean(mean: np.ndarray, network: Network, freedom: Freedom) -> np.ndarray:
    """`[N, M, d]`, what of the means of embeddings the network lets be subtracted."""
    return mean * (network.free_vectors()[..., None] * freedom.shift)


def count_values(
    sizes: tuple[int, ...],
    ids: np.ndarray,
    rows: np.ndarray | None = None,
    title: str = "[axes] values",
) -> np.ndarray:
    """`[V]`, how many of some rows `[n, N]` have each value; all rows without `rows`."""
    total = len(ids) if rows is None else len(rows)
    counts = [np.zeros(size, np.int64) for size in sizes]
    with track(title, total) as bar:
        for start in range(0, total, _CHUNK):
            part = slice(start, start + _CHUNK)
            chunk = ids[part] if rows is None else ids[rows[part]]
            for n, size in enumerate(sizes):
                counts[n] += np.bincount(chunk[:, n], minlength=size)
            bar.advance(len(chunk))
    return np.concatenate(counts)


def logit_moments(model: Model, variables: Variables, ids: np.ndarray) -> np.ndarray:
    """Second moments of the logit's gradients at looked-up vectors, `[N, M, d, d]` float64.

    Rows are weighted by p (1 - p), the curvature of the log loss in the logit.

    Args:
      model: the click model.
      variables: its variables.
      ids: `[n, N]`.
    """
    _, sums = _gradients(model)(variables, ids, title="[axes] curvature")
    return np.asarray(sums) / len(ids)


@lru_cache(maxsize=16)
def _gradients(model: Model) -> Summed:
    """A program from variables and ids to sums over rows; compiled once per model."""
    fields, (vectors, dim) = shape(model.embedding)
    (group,) = model.embedding.groups

    def of_batch(variables: Variables, ids: Array, valid: Array) -> Any:
        looked_up = look_up(variables.params["tables"], table_index(model, variables, ids))

        def total(e: Array) -> tuple[Array, Array]:
            seen = looked_up | {EMBEDDING: {group.name: e}}
            logits = forward(model, variables, ids, vectors=seen).logits
            return logits.sum(), logits

        gradients, logits = jax.grad(total, has_aux=True)(looked_up[EMBEDDING][group.name])
        p = jax.nn.sigmoid(logits)
        weighted = (
            gradients.reshape(-1, fields, vectors, dim)
            * jnp.sqrt(p * (1 - p) * valid)[:, None, None, None]
        )
        return (), jnp.einsum("bnmc,bnmd->nmcd", weighted, weighted)

    return Summed(of_batch)
