"""Choices among options as weights that can be learnt: a softmax with noise that cools down."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def temperature(steps: Array, anneal: float) -> Array:
    """Temperature `[]` after so many steps: max(0.01, 1 - anneal * steps).

    Args:
      steps: `[]` int32.
      anneal: its fall per step.
    """
    return jnp.maximum(0.01, 1 - anneal * steps)


def relaxed_choice(logits: Array, temperature: Array | float, key: Array | None = None) -> Array:
    """Weights of the options, softmax((logits + noise) / temperature) over the last axis.

    With Gumbel noise the largest weight is an option's as often as softmax(logits) says, whatever
    the temperature (Jang et al., "Categorical Reparameterization with Gumbel-Softmax", 2017).

    Args:
      logits: `[N, options]`.
      temperature: above 0; the lower, the nearer is the largest weight to 1.
      key: PRNG key of the noise; without one there is none.

    Returns:
      `[N, options]`, each row adding up to 1.
    """
    if key is not None:
        logits = logits + jax.random.gumbel(key, logits.shape, logits.dtype)
    return jax.nn.softmax(logits / temperature)
