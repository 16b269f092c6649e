"""The axes along which embeddings are worth most to what reads them.

An embedding e with second moment C that a linear layer W reads adds e W to its pre-activations.
Their principal components, `C^(1/2) W = U diag(s) V^T`, lie along the axes `e W v_i`, and dropping
one costs s_i^2: the least of any projection (Eckart & Young). The same holds for a square root W of
the second moment G of the gradients at e, to first order.

Axes `W v_i` equal `C^(-1/2) u_i` on the data, but need no inverse of C: vectors that never occur in
training, which may lie anywhere, stay as long as they were.
"""

from __future__ import annotations

import numpy as np

from ihas_jax.nn.axes import Axes, importance

_RANK = 1e-10
"""Share of the largest variance below which a direction has none: float32 has 1e-14."""
_STRETCH = 100.0
"""The most that an axis is stretched to have the mean variance."""
READ = 1e-4
"""Floor of a reading W, as a share of its mean singular value, where all of a function goes through
it: a direction that nothing reads still needs an axis, and loses 1e-8 of the exactness."""
FELT = 1e-2
"""Floor where W is a square root of gradients, and the function has other parts: maps then stretch
vectors at most 100-fold, so that float32 keeps its digits."""


def root(second: np.ndarray) -> np.ndarray:
    """Symmetric square roots of positive semidefinite matrices `[..., d, d]`."""
    values, vectors = np.linalg.eigh(second)
    scaled = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
    return scaled @ vectors.swapaxes(-1, -2)


def principal_map(
    second: np.ndarray, reading: np.ndarray, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """The map `[d, d]` to principal axes, most important first, and its inverse.

    Each new coordinate has the mean variance trace(C) / d and is uncorrelated with the others.
    Directions in which no value that occurs differs from the mean come last, at right angles to
    those of the data and in their own units: they are zero in training, and other values keep what
    the model makes of them.

    Args:
      second: C, `[d, d]`.
      reading: W, `[d, H]`.
      floor: `READ` or `FELT`.
    """
    dim = len(second)
    size = np.sqrt((reading**2).sum() / dim) or 1.0
    reading = np.concatenate([reading, floor * size * np.eye(dim)], axis=1)
    values, vectors = np.linalg.eigh(second)
    varies = values > _RANK * max(values[-1], 0)
    half = vectors[:, varies] * np.sqrt(values[varies])  # [d, r]
    rest = vectors[:, ~varies]
    u, s, vt = np.linalg.svd(half.T @ reading, full_matrices=False)
    ahead = reading @ vt.T
    back = u.T @ half.T / s[:, None]
    goal = np.sqrt(values[varies].sum() / dim)
    scale = np.minimum(goal / s, _STRETCH / np.linalg.norm(ahead, axis=0))
    forward = np.concatenate([ahead * scale, rest], axis=1)
    backward = np.concatenate([back / scale[:, None], rest.T @ (np.eye(dim) - ahead @ back)])
    return forward, backward


def own_axes(
    mean: np.ndarray, second: np.ndarray, reading: np.ndarray, floor: float, free: np.ndarray
) -> Axes:
    """Principal axes of each free vector, by falling importance; the others stay as they are.

    Args:
      mean: `[N, M, d]`, what is subtracted.
      second: C, `[N, M, d, d]`, about the mean.
      reading: W, `[N, M, d, H]`.
      floor: `READ` or `FELT`.
      free: `[N, M]` of bool.
    """
    forward, backward = _same(second)
    for place in zip(*np.nonzero(free), strict=True):
        forward[place], backward[place] = principal_map(second[place], reading[place], floor)
    worth = importance(second, reading @ reading.swapaxes(-1, -2), forward, backward)
    raw, turned = Axes(mean, forward, backward, worth), free[..., None]
    best = _sorted(raw)
    return Axes(
        mean,
        np.where(turned[..., None], best.forward, forward),
        np.where(turned[..., None], best.backward, backward),
        np.where(turned, best.importance, worth),
    )


def shared_axes(
    mean: np.ndarray,
    second: np.ndarray,
    reading: np.ndarray,
    sizes: tuple[int, ...],
    free: np.ndarray,
    *,
    orthogonal: bool,
) -> Axes:
    """One map for all free vectors, by falling importance of an axis in all of them together.

    Args:
      mean: `[N, M, d]`, what is subtracted.
      second: C, `[N, M, d, d]`, about the mean.
      reading: a square root of G, `[N, M, d, d]`.
      sizes: values of each field; the square root weighs its C and G.
      free: `[N, M]` of bool.
      orthogonal: whether the map must be a rotation: the eigenvectors of the mean of
        C^(1/2) G C^(1/2). Otherwise it is the principal map of the mean C and the mean G.
    """
    forward, backward = _same(second)
    squared = reading @ reading.swapaxes(-1, -2)
    weights = free * np.sqrt(sizes)[:, None]
    weights = weights / weights.sum()
    if orthogonal:
        half = root(second)
        ahead = np.linalg.eigh(np.tensordot(weights, half @ squared @ half, 2))[1]
        back = ahead.T
    else:
        pooled, felt = (np.tensordot(weights, part, 2) for part in (second, squared))
        ahead, back = principal_map(pooled, root(felt), FELT)
    forward[free], backward[free] = ahead, back
    worth = importance(second, squared, forward, backward)
    order = np.argsort(-(worth * free[..., None]).sum((0, 1)), kind="stable")
    forward[free], backward[free] = ahead[:, order], back[order]
    return Axes(mean, forward, backward, importance(second, squared, forward, backward))


def paired_axes(mean: np.ndarray, second: np.ndarray, reading: np.ndarray) -> Axes:
    """Axes of the two vectors of each pair of fields that meet in an inner product.

    If one is mapped by A, the other is by the inverse of its transpose. The second moments of both
    get diagonal and equal (balanced axes). Both get the mean of their importances, since an axis is
    lost if either drops it. Axes in which one is constant get maps of equal length.

    Args:
      mean: `[N, N, d]`, what is subtracted; `[n, m]` is field n's vector for field m.
      second: C, `[N, N, d, d]`, about the mean.
      reading: a square root of G, `[N, N, d, d]`.
    """
    forward, backward = _same(second)
    for i, j in zip(*np.triu_indices(len(mean), 1), strict=True):
        ahead, back = principal_map(second[i, j], reading[i, j], FELT)
        spread = np.einsum("ki,kl,li->i", ahead, second[i, j], ahead)
        other = np.einsum("ik,kl,il->i", back, second[j, i], back)
        varies = (spread > _RANK * spread.max()) & (other > _RANK * other.max())
        lengths = np.linalg.norm(back, axis=1) / np.linalg.norm(ahead, axis=0)
        scale = np.sqrt(np.sqrt(np.where(varies, other, 1) / np.where(varies, spread, 1)))
        scale = np.where(varies, scale, np.sqrt(lengths))
        forward[i, j], backward[i, j] = ahead * scale, back / scale[:, None]
        forward[j, i], backward[j, i] = backward[i, j].T, forward[i, j].T
    worth = importance(second, reading @ reading.swapaxes(-1, -2), forward, backward)
    worth = (worth + worth.swapaxes(0, 1)) / 2
    return _sorted(Axes(mean, forward, backward, worth))


def _sorted(axes: Axes) -> Axes:
    """The axes of each vector by falling importance."""
    order = np.argsort(-axes.importance, axis=-1, kind="stable")
    return Axes(
        axes.mean,
        np.take_along_axis(axes.forward, order[..., None, :], -1),
        np.take_along_axis(axes.backward, order[..., None], -2),
        np.take_along_axis(axes.importance, order, -1),
    )


def _same(second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    eye = np.broadcast_to(np.eye(second.shape[-1]), second.shape)
    return eye.copy(), eye.copy()
