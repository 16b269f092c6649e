"""Axes of embeddings: other coordinates for the vectors of a table, and what each is worth.

Everything here is NumPy in float64 on the host: N M matrices of d by d numbers, M vectors per
field with d = D / M coordinates each. `ihas_jax.nn.principal` finds good axes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ihas_jax.nn.embedding import EmbeddingSpec, Table


class Axes(NamedTuple):
    """An invertible affine map of each vector, and what its new coordinates are worth.

    New coordinates are `(e - mean) @ forward`, and `e = new @ backward + mean`.

    Attributes:
      mean: `[N, M, d]`, what is subtracted; zeros where no shift is free.
      forward: `[N, M, d, d]`.
      backward: `[N, M, d, d]`, the inverse of `forward`.
      importance: `[N, M, d]`, what dropping a new coordinate costs; see `importance`.
    """

    mean: np.ndarray
    forward: np.ndarray
    backward: np.ndarray
    importance: np.ndarray


class Moments(NamedTuple):
    """Moments of the vectors of each field, over training rows.

    Attributes:
      mean: `[N, M, d]`.
      covariance: `[N, M, d, d]`.
    """

    mean: np.ndarray
    covariance: np.ndarray

    def about(self, point: np.ndarray) -> np.ndarray:
        """Second moments about `point [N, M, d]`, `[N, M, d, d]`."""
        gap = self.mean - point
        return self.covariance + gap[..., :, None] * gap[..., None, :]


def moments(spec: EmbeddingSpec, table: Table, counts: np.ndarray) -> Moments:
    """Moments of a table's vectors, each value weighted by its training rows.

    A field whose values never occur has zeros.

    Args:
      spec: shape of the table, uniform.
      table: its array `[V, D]`.
      counts: `[V]`, the number of training rows of each value.

    Raises:
      ValueError: the table is not uniform, or `counts` has another length.
    """
    if len(counts) != sum(spec.sizes):
        raise ValueError(f"{len(counts)} counts don't fit {sum(spec.sizes)} values")
    (*_, fields), full, starts = shape(spec), _whole(spec, table), _starts(spec)
    means, covariances = [], []
    for n in range(len(spec.sizes)):
        part = slice(starts[n], starts[n + 1])
        occurs = np.flatnonzero(counts[part])
        weights = counts[part][occurs] / max(counts[part].sum(), 1)
        e = full[part][occurs].astype(np.float64).reshape(len(occurs), *fields)
        mean = np.tensordot(weights, e, 1)
        gaps = np.moveaxis(e - mean, 0, -1)  # [M, d, v]
        means.append(mean)
        covariances.append((gaps * weights) @ gaps.swapaxes(1, 2))
    return Moments(np.stack(means), np.stack(covariances))


def shape(spec: EmbeddingSpec) -> tuple[int, tuple[int, int]]:
    """N, and (M, d)."""
    return len(spec.sizes), (spec.vectors_per_field, spec.dim // spec.vectors_per_field)


def identity(spec: EmbeddingSpec, mean: np.ndarray | None = None) -> Axes:
    """The raw coordinates, less `mean [N, M, d]` if it is given, with an importance of 0."""
    fields, (vectors, dim) = shape(spec)
    eye = np.broadcast_to(np.eye(dim), (fields, vectors, dim, dim)).copy()
    zeros = np.zeros((fields, vectors, dim))
    return Axes(zeros if mean is None else mean, eye, eye.copy(), zeros)


def importance(
    second: np.ndarray, reading: np.ndarray, forward: np.ndarray, backward: np.ndarray
) -> np.ndarray:
    """What dropping each new coordinate costs, `[..., d]`: C'_ii G'_ii.

    C' is the second moment of the new coordinates, and G' that of what reads them: where G is
    W W^T, the sum over the pre-activations of their lost variance, exactly, for any set of axes
    of a field of which C' is diagonal (as `principal_axes` makes it).

    Args:
      second: C, `[..., d, d]`, about what is subtracted, which a dropped coordinate becomes.
      reading: G, `[..., d, d]`.
      forward: `[..., d, d]`.
      backward: `[..., d, d]`.
    """
    spread = np.einsum("...ki,...kl,...li->...i", forward, second, forward)
    read = np.einsum("...ik,...kl,...il->...i", backward, reading, backward)
    return np.maximum(spread, 0) * np.maximum(read, 0)


def turn_table(spec: EmbeddingSpec, table: Table, axes: Axes) -> Table:
    """The table of new coordinates, for all values, in the dtype of the old one.

    It is a NumPy array if the old one is.

    Raises:
      ValueError: the table is not uniform.
    """
    (*_, fields), full, starts = shape(spec), _whole(spec, table), _starts(spec)
    turned = np.empty_like(full)
    for n in range(len(spec.sizes)):
        part = slice(starts[n], starts[n + 1])
        gaps = full[part].reshape(-1, *fields) - axes.mean[n]
        new = gaps.swapaxes(0, 1) @ axes.forward[n]  # [M, v, d]
        turned[part] = new.swapaxes(0, 1).reshape(-1, spec.dim)
    on_host = isinstance(table[spec.groups[0].name], np.ndarray)
    arrays: Any = turned if on_host else jnp.asarray(turned)
    return {spec.groups[0].name: arrays}


def single_precision(axes: Axes) -> Axes:
    """The axes in float32, as files and models have them."""
    return Axes(*(part.astype(np.float32) for part in axes))


def flat_importance(axes: Axes) -> np.ndarray:
    """The importance of each new coordinate of a field, `[N, D]`."""
    return axes.importance.reshape(len(axes.importance), -1)


def worth_of_numbers(
    spec: EmbeddingSpec, table: Table, counts: np.ndarray, axes: Axes
) -> np.ndarray:
    """The importance of the numbers of a turned table, `[V, D]`: what dropping each of them costs.

    A number has the part of its coordinate's importance that its square, weighted by the training
    rows of the value, has of the coordinate's second moment.

    Args:
      spec: shape of the table, uniform.
      table: its array `[V, D]`, on the axes.
      counts: `[V]`, the number of training rows of each value.
      axes: the axes.
    """
    full, starts = _whole(spec, table), _starts(spec)
    worth = counts[:, None] * np.square(full, dtype=np.float64)
    for n, importance in enumerate(flat_importance(axes)):
        part = slice(starts[n], starts[n + 1])
        total = worth[part].sum(axis=0)
        worth[part] *= importance / np.where(total > 0, total, 1.0)
    return worth


def _whole(spec: EmbeddingSpec, table: Table) -> np.ndarray:
    if spec.kept is not None or spec.stored_values is not None:
        raise ValueError("axes are those of a uniform table with a row for each value")
    return np.asarray(table[spec.groups[0].name])


def _starts(spec: EmbeddingSpec) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(spec.sizes)])
