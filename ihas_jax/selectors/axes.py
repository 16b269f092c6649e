"""The axes of a trained click model's embeddings, and the model on these axes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.errors import InputError
from ihas_jax.models.base import EMBEDDING, FACTORS, Model, Variables
from ihas_jax.models.forward import forward, look_up, table_index
from ihas_jax.models.parts import Network
from ihas_jax.models.turning import Freedom
from ihas_jax.nn.axes import Axes, identity, importance, moments, shape, turn_table
from ihas_jax.nn.principal import FELT, READ, own_axes, paired_axes, root, shared_axes
from ihas_jax.progress import track
from ihas_jax.training.streaming import Summed

Measure = Literal["loss", "weights"]
"""What importance is measured by; see `find_axes`."""
_SAMPLE = 1 << 18
"""Rows of which the curvature is taken: D (D + 1) / 2 numbers per field need no more."""
_CHUNK = 1 << 20


def check_free(model: Model) -> None:
    """Raises: InputError: the embeddings of the model can't be turned; the message says why."""
    _network(model).freedom.check()


def freedom_of(model: Model) -> Freedom:
    """The maps of embeddings that leave the model's function as it is."""
    return _network(model).freedom


def has_readings(model: Model) -> bool:
    """Whether embeddings are read by linear units alone, so that axes can be found by weights."""
    return type(_network(model)).readings is not Network.readings


def find_axes(
    model: Model,
    variables: Variables,
    ids: np.ndarray,
    rows: np.ndarray | None = None,
    *,
    by: Measure = "loss",
    turned: bool = True,
) -> Axes:
    """The best axes that the model's freedom allows, and what each is worth on some rows.

    The importance of an axis is about twice the rise of the mean log loss when the axis is dropped:
    the second moment of the change of the logit, each row weighted by p (1 - p), which is the
    curvature of its loss. Clicks are not asked for: the first-order term of a trained model is zero
    on average, and rows that it knows by heart have small residuals, but not small curvature.

    Where all that a model does with its embeddings goes through linear units (DNN, Wide & Deep,
    FinalMLP), 'weights' takes the variance that an axis adds to these units instead, which is exact
    but does not know what the units are worth: cut and not trained again, a DNN loses more.

    A model without freedom gets its raw coordinates, with their importance.

    Args:
      model: the click model, with a uniform table.
      variables: its variables.
      ids: `[n, N]`, the training rows.
      rows: indices of the rows to take, such as those of a cluster; None for all.
      by: what importance is measured by.
      turned: whether better axes are looked for, or the coordinates are measured as they are.

    Raises:
      InputError: the model has no linear units to measure by.
      ValueError: there are no rows, or the table is not uniform, or has factors.
    """
    spec = model.embedding
    _check(model, variables)
    sample = np.arange(len(ids)) if rows is None else rows
    if not len(sample):
        raise ValueError("axes need rows to count values in")
    table = variables.params["tables"][EMBEDDING]
    found = moments(spec, table, count_values(spec.sizes, ids, rows))
    network = _network(model)
    freedom, free = network.freedom if turned else Freedom(), network.free_vectors()
    mean = found.mean * (free[..., None] * freedom.shift)
    second = found.about(mean)
    if by == "weights":
        weights = network.readings(variables.params)
        if weights is None:
            raise InputError(
                "Axes by weights need a click model in which embeddings are read by linear units "
                "alone, such as dnn. Measure by the loss, or choose another model."
            )
        reading, floor = weights[:, None], READ
    else:
        # what inner products make of the means is not lost with an axis
        centred = turn(model, variables, identity(spec, mean)) if freedom.shift else variables
        sample = sample[:: -(-len(sample) // _SAMPLE)]
        reading, floor = root(logit_moments(model, centred, ids[sample])), FELT
    if freedom.maps == "own":
        return own_axes(mean, second, reading, floor, free)
    if freedom.maps == "paired":
        return paired_axes(mean, second, reading)
    if freedom.maps in ("common", "rotation"):
        orthogonal = freedom.maps == "rotation"
        return shared_axes(mean, second, reading, spec.sizes, free, orthogonal=orthogonal)
    raw = identity(spec, mean)
    squared = reading @ reading.swapaxes(-1, -2)
    return raw._replace(importance=importance(second, squared, raw.forward, raw.backward))


def turn(model: Model, variables: Variables, axes: Axes) -> Variables:
    """The variables of the same function with the embedding table in new coordinates.

    Arrays beside the model's, such as a selector's, stay as they are.

    Raises:
      InputError: the model's embeddings can't be turned.
      ValueError: the table is not uniform, or has factors.
    """
    check_free(model)
    _check(model, variables)
    params = _network(model).absorb(variables.params, axes)
    table = turn_table(model.embedding, params["tables"][EMBEDDING], axes)
    params = params | {"tables": params["tables"] | {EMBEDDING: table}}
    return variables._replace(params=params)


def count_values(
    sizes: tuple[int, ...], ids: np.ndarray, rows: np.ndarray | None = None
) -> np.ndarray:
    """`[V]`, how many of some rows `[n, N]` have each value; all rows without `rows`."""
    total = len(ids) if rows is None else len(rows)
    counts = [np.zeros(size, np.int64) for size in sizes]
    with track("[axes] values", total) as bar:
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


def _network(model: Model) -> Network:
    """The model's network, or one without freedom in place of a module of another class."""
    return model.network if isinstance(model.network, Network) else Network(model.embedding)


def _check(model: Model, variables: Variables) -> None:
    spec = model.embedding
    if spec.kept is not None or spec.stored_values is not None or FACTORS in variables.constants:
        raise ValueError("axes are those of a uniform table without factors")
