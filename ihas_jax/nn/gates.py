"""Bernoulli gates: sampling, deterministic selection and the regulariser (paper section 3.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from ihas_jax.config.methods import ThresholdRule
from ihas_jax.nn.noise import row_keys


@jax.custom_vjp
def half_product(x: Array, y: Array) -> Array:
    """`x @ y`, `[B, K] [K, L] -> [B, L]`, of factors rounded to bfloat16.

    Sums and results are of the type of `x`; gradients are products of rounded factors too.

    Note: XLA's `DotAlgorithmPreset.BF16_BF16_F32` would say this in one line, but on a CPU it
    leaves the factors unrounded.
    """
    return _half_product(x, y)


def _half_product(x: Array, y: Array) -> Array:
    half = jnp.bfloat16
    return jnp.matmul(x.astype(half), y.astype(half), preferred_element_type=x.dtype)


def _half_product_forward(x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    return _half_product(x, y), (x, y)


def _half_product_backward(factors: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, y = factors
    return _half_product(gradient, y.T), _half_product(x.T, gradient)


half_product.defvjp(_half_product_forward, _half_product_backward)


def sample_gates(
    key: Array, logits: Array, *, temperature: float, first_row: Array | int = 0
) -> Array:
    """Draws binary gates with a straight-through gradient (equations 1 and 2).

    The difference of the two Gumbel variables is logistic, so the arg max of equation 1 is
    `logits + noise > 0` with `noise = log(u / (1 - u))`: Bernoulli samples of sigmoid(logits).
    The backward pass is that of sigmoid((logits + noise) / temperature), the first component
    of equation 2.

    Note: equation 2 has a product in its numerator, where the sum over both classes can't be
    one; we read it as the two-class softmax.

    Args:
      key: PRNG key of the batch; rows draw from their `row_keys`.
      logits: `[B, K]` log-odds of an open gate.
      temperature: tau > 0.
      first_row: place of the first row in the whole batch.

    Returns:
      `[B, K]` gates, exactly 0 or 1, in the dtype of `logits`.
    """
    keys = row_keys(key, len(logits), first_row)
    noise = jax.vmap(lambda k: logistic_noise(k, logits.shape[1], logits.dtype))(keys)
    return straight_through(logits + noise, temperature)


def logistic_noise(key: Array, size: int, dtype: DTypeLike = jnp.float32) -> Array:
    """Standard logistic noise `[size]`.

    Note: u is one of the 65,536 midpoints of equal parts of (0, 1), so a gate opens with a
    probability that differs from sigmoid(logits) by at most 2^-17. Two values from one random
    word halve the cost of the noise, on a CPU the largest part of a search step but for the
    gates' matrix products.
    """
    words = jax.random.bits(key, (-(-size // 2),), jnp.uint32)
    halves = jnp.concatenate([words >> 16, words & 0xFFFF])[:size]
    u = halves.astype(jnp.int32).astype(dtype) + 0.5
    return jnp.log(u / (65536 - u))


def straight_through(perturbed: Array, temperature: float) -> Array:
    """1 where `perturbed` > 0, else 0; the gradient is that of sigmoid(perturbed / temperature)."""
    soft = jax.nn.sigmoid(perturbed / temperature)
    hard = (perturbed > 0).astype(perturbed.dtype)
    return hard + (soft - lax.stop_gradient(soft))


def select_gates(
    probs: Array, *, rule: ThresholdRule = "guarded", bins: int | None = None
) -> tuple[Array, Array]:
    """Opens the gates whose probability exceeds the instance's threshold (section 3.3.2).

    Args:
      probs: `[B, K]` probabilities in [0, 1].
      rule: see `search_threshold`.
      bins: see `search_threshold`.

    Returns:
      masks `[B, K]` of 0 and 1 in the dtype of `probs`, thresholds `[B]`.
    """
    thresholds = search_threshold(probs, rule=rule, bins=bins)
    return (probs > thresholds[:, None]).astype(probs.dtype), thresholds


def search_threshold(
    probs: Array, *, rule: ThresholdRule = "guarded", bins: int | None = None
) -> Array:
    """Finds each instance's threshold from the histogram of its probabilities (section 3.3.3).

    A local minimum is the first bin i + 1 with h[i+1] - h[i] <= 0 <= h[i+2] - h[i+1], and the
    threshold is its lower edge; without one it is 0.5.

    * 'literal' scans from the left end, as the paper and the code it cites do (with 100 bins).
      Empty bins count as minima, so it opens every gate while no probability is near 0.
    * 'guarded' scans from the first peak on and wants more mass than the minimum holds
      somewhere to its right; it is 0.5 too where no probability lies below 0.5.
    * 'half' is 0.5 always, which the paper does not have.

    Args:
      probs: `[B, K]` probabilities in [0, 1].
      rule: 'guarded', 'literal' or 'half'.
      bins: equal bins on [0, 1], at least 3; by default 100 for 'literal', 20 for 'guarded'.

    Returns:
      `[B]` thresholds, each the lower edge of a bin, or 0.5.
    """
    if rule == "half":
        return jnp.full(len(probs), 0.5, probs.dtype)
    bins = bins or (100 if rule == "literal" else 20)
    counts = histogram(probs, bins)
    deltas = jnp.diff(counts, axis=1)
    minimum = (deltas[:, :-1] <= 0) & (deltas[:, 1:] >= 0)
    low = jnp.argmax(counts > 0, axis=1)
    if rule == "guarded":
        edges = jnp.arange(bins)
        falls = (deltas < 0) & (edges[:-1] >= low[:, None])
        peak = jnp.where(falls.any(axis=1), jnp.argmax(falls, axis=1), bins)
        beyond = lax.cummax(counts, axis=1, reverse=True)[:, 2:]
        minimum &= (edges[:-2] >= peak[:, None]) & (beyond > counts[:, 1:-1])
        minimum &= (low < bins / 2)[:, None]
    found = (jnp.argmax(minimum, axis=1) + 1) / bins
    return jnp.where(minimum.any(axis=1), found, 0.5).astype(probs.dtype)


def histogram(probs: Array, bins: int) -> Array:
    """Counts of `[B, K]` probabilities in equal bins on [0, 1], `[B, bins]` int32."""
    index = jnp.clip((probs * bins).astype(jnp.int32), 0, bins - 1)
    return jax.vmap(lambda row: jnp.zeros(bins, jnp.int32).at[row].add(1))(index)


def gate_penalty(
    probs: Array, *, l0_weight: Array | float, polarization: bool = True, reduction: str = "mean"
) -> Array:
    """The regulariser of equation 5: sum over coordinates of lambda p - |p - mean(p)|.

    The mean is over the instance's own K probabilities, and gradients flow through it.

    Note: the paper sums over the instances, which makes the term outweigh the click loss
    thousands of times; 'mean' averages over them.

    Args:
      probs: `[B, K]` probabilities.
      l0_weight: lambda, or one for each coordinate `[K]`.
      polarization: whether the term has its second part.
      reduction: 'mean' or 'sum' over instances.

    Returns:
      `[]` penalty.
    """
    terms = l0_weight * probs
    if polarization:
        terms -= jnp.abs(probs - probs.mean(axis=1, keepdims=True))
    per_instance = terms.sum(axis=1)
    return per_instance.sum() if reduction == "sum" else per_instance.mean()
