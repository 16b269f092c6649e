"""A choice among options as learnable weights: a softmax with noise, whose temperature falls."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def temperature(steps: Array, anneal: float) -> Array:
    """Temperature `[]` after some steps: max(0.01, 1 - anneal * steps).

    Args:
      steps: `[]` int32.
      anneal: fall of the temperature per step.
    """
    return jnp.maximum(0.01, 1 - anneal * steps)


def relaxed_choice(logits: Array, temperature: Array | float, key: Array | None = None) -> Array:
    """Weights of the options, softmax((logits + noise) / temperature) over the last axis.

    With Gumbel noise each option has the largest weight with the probability softmax(logits),
    whatever the temperature (Jang et al., "Categorical Reparameterization with Gumbel-Softmax",
    2017).

    Args:
      logits: `[N, options]`.
      temperature: above 0; at lower temperatures the largest weight is nearer to 1.
      key: PRNG key of the noise; None for no noise.

    Returns:
      `[N, options]`, each row adding up to 1.
    """
    if key is not None:
        logits = logits + jax.random.gumbel(key, logits.shape, logits.dtype)
    return jax.nn.softmax(logits / temperature)
