"""Interactions between the embeddings of an instance's fields, as pure functions.

`e` is `[B, N, D]`, aligned: a removed coordinate is a zero. Pairs are i < j in row-major order,
P = N (N - 1) / 2 of them.
"""

from __future__ import annotations

from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.nn import relu, sigmoid

Factors = tuple[Array, ...]
"""Matrices whose product is the matrix W of an equation; one matrix is W itself."""


def pairs(fields: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second field of each pair, `[P]` each."""
    return np.triu_indices(fields, 1)


def pooled_products(e: Array) -> Array:
    """Sum over pairs of e_i * e_j, element by element, `[B, N, D]` -> `[B, D]`.

    As half of (sum_n e_n)^2 - sum_n e_n^2, in O(N D) (Rendle 2010, lemma 3.1).
    """
    return 0.5 * (e.sum(axis=1) ** 2 - (e**2).sum(axis=1))


def pair_products(e: Array) -> Array:
    """e_i * e_j, element by element, `[B, N, D]` -> `[B, P, D]`."""
    i, j = pairs(e.shape[1])
    return e[:, i] * e[:, j]


def inner_products(e: Array) -> Array:
    """<e_i, e_j> of all pairs, `[B, N, D]` -> `[B, P]` (Qu et al. 2016, IPNN)."""
    i, j = pairs(e.shape[1])
    return jnp.einsum("bnd,bmd->bnm", e, e)[:, i, j]


def outer_products(e: Array, kernel: Array) -> Array:
    """sum_cd e_ic K_ij,dc e_jd of all pairs (Qu et al. 2016, OPNN with a matrix per pair).

    Args:
      e: `[B, N, D]`.
      kernel: `[D, P, D]`, the coordinate of e_j first, that of e_i last.

    Returns:
      `[B, P]`.
    """
    i, j = pairs(e.shape[1])
    return jnp.einsum("bpc,dpc,bpd->bp", e[:, i], kernel, e[:, j])


def anova(e: Array, order: int) -> Array:
    """Sum over all sets of `order` fields of the products of their embeddings (HOFM).

    By the recursion a_t[j] = a_t[j-1] + e_j a_(t-1)[j-1] of Blondel et al. 2016, equation 7.

    Args:
      e: `[B, N, D]`.
      order: t from 1 on.

    Returns:
      `[B, D]`, element by element.
    """
    before = jnp.ones_like(e)
    total = before
    for _ in range(order):
        total = jnp.cumsum(e * before, axis=1)
        before = jnp.pad(total[:, :-1], ((0, 0), (1, 0), (0, 0)))
    return total[:, -1]


def field_aware_products(e: Array) -> Array:
    """e_i's vector for field j times e_j's vector for field i (Juan et al. 2016).

    Args:
      e: `[B, N, N, d]`; `e[:, n, m]` is field n's vector for field m.

    Returns:
      `[B, P, d]`, element by element.
    """
    i, j = pairs(e.shape[1])
    return e[:, i, j] * e[:, j, i]


def compress(x0: Array, h: Array, kernel: Array, bias: Array) -> Array:
    """A layer of xDeepFM's compressed interaction network (Lian et al. 2018, equation 6).

    Args:
      x0: `[B, N, D]` the embeddings.
      h: `[B, H, D]` the output of the previous layer; the embeddings for the first layer.
      kernel: `[N, H, F]`.
      bias: `[F]`.

    Returns:
      `[B, F, D]`: sum_nh kernel_nhf x0_n h_h + bias_f, coordinate by coordinate.
    """
    # the order of products with the smaller intermediate: [B, N, H, D] or [B, N, F, D]
    if h.shape[1] < kernel.shape[2]:
        outer = x0[:, :, None] * h[:, None]
        return jnp.einsum("bnhd,nhf->bfd", outer, kernel) + bias[:, None]
    mixed = jnp.einsum("bhd,nhf->bnfd", h, kernel)
    return jnp.einsum("bnd,bnfd->bfd", x0, mixed) + bias[:, None]


def cross(x0: Array, x: Array, weight: Array, bias: Array) -> Array:
    """x0 (w x) + b + x, `[B, K]` (DCN; Wang et al. 2017, equation 3)."""
    return x0 * (x @ weight)[:, None] + bias + x


def cross_matrix(x0: Array, x: Array, kernel: Factors, bias: Array) -> Array:
    """x0 * (x W + b) + x, `[B, K]` (DCN-v2; Wang et al. 2021, equations 1 and 3)."""
    return x0 * (reduce(jnp.matmul, kernel, x) + bias) + x


def cross_gated(x0: Array, x: Array, kernel: Factors, gate: Factors, bias: Array) -> Array:
    """x0 * (x W + b) * sigmoid(x G) + x, `[B, K]` (GDCN; Wang et al. 2023)."""
    return x0 * (reduce(jnp.matmul, kernel, x) + bias) * sigmoid(reduce(jnp.matmul, gate, x)) + x


def logarithmic(e: Array, weight: Array) -> Array:
    """Products of powers of embeddings: exp(W log |e|) (AFN; Cheng et al. 2020).

    Note: the formula is the reference library's, log1p(|e| + 1e-7) and expm1 with a ReLU after
    it. Its result is `[B, H, D]`; with neurons last the powers are one product of two matrices,
    which takes about half the time on a CPU.

    Args:
      e: `[B, N, D]`.
      weight: `[H, N]`, the powers.

    Returns:
      `[B, D, H]`.
    """
    batch, fields, dim = e.shape
    logs = jnp.log1p(jnp.abs(e) + 1e-7).swapaxes(1, 2)
    powers = logs.reshape(-1, fields) @ weight.T
    return relu(jnp.expm1(powers)).reshape(batch, dim, -1)


def bilinear_fusion(x: Array, y: Array, kernel: Array) -> Array:
    """sum_h x_h W_h y_h, where heads are equal parts of x and y (FinalMLP; Mao et al. 2023).

    Args:
      x: `[B, H F]`.
      y: `[B, H G]`.
      kernel: `[H, F, G]`.

    Returns:
      `[B]`.
    """
    heads = kernel.shape[0]
    left, right = (side.reshape(side.shape[0], heads, -1) for side in (x, y))
    return jnp.einsum("bhf,hfg,bhg->b", left, kernel, right)
