"""The Bernoulli gates of iHAS (paper section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from ihas_jax.config import GateConfig
from ihas_jax.nn.gates import gate_penalty, half_product, sample_gates, select_gates
from ihas_jax.nn.mlp import Linear
from ihas_jax.selectors.base import Selected, SelectorParams


@dataclass(frozen=True)
class BernoulliGates:
    """One gate per embedding coordinate, opened with probability sigmoid(w E + b).

    With `config.instance_wise` off the probabilities are sigmoid(w*), one vector for all
    instances (ablation iHAS-4).

    Attributes:
      config: the gates' choices.
      coordinates: K = N * D.
    """

    config: GateConfig
    coordinates: int

    def init(self, key: Array) -> SelectorParams:
        """Fresh parameters: a Linear layer K -> K, or the vector w* of U(-1/sqrt(K), 1/sqrt(K))."""
        if self.config.instance_wise:
            return Linear(self.coordinates).init(key, jnp.zeros((1, self.coordinates)))["params"]
        bound = self.coordinates**-0.5
        vector = jax.random.uniform(key, (self.coordinates,), minval=-bound, maxval=bound)
        return {"vector": vector}

    def logits(self, params: SelectorParams, embeddings: Array) -> Array:
        """Log-odds of open gates, `[B, N, D]` -> `[B, K]`."""
        flat = embeddings.reshape(embeddings.shape[0], -1)
        if not self.config.instance_wise:
            return jnp.broadcast_to(params["vector"], flat.shape)
        if not self.config.gradient_to_tables:
            flat = lax.stop_gradient(flat)
        kernel, bias = params["linear"]["kernel"], params["linear"]["bias"]
        if self.config.matmul == "float32":
            return flat @ kernel + bias
        return half_product(flat, kernel) + bias

    def sample(
        self, params: SelectorParams, embeddings: Array, key: Array, first_row: Array | int = 0
    ) -> tuple[Array, Array]:
        """Stochastic selection and the weighted penalty of equation 5."""
        logits = self.logits(params, embeddings)
        masks = sample_gates(key, logits, temperature=self.config.temperature, first_row=first_row)
        penalty = self.config.weight * gate_penalty(
            jax.nn.sigmoid(logits),
            l0_weight=self.config.l0_weight,
            polarization=self.config.polarization,
            reduction=self.config.reduction,
        )
        return embeddings * masks.reshape(embeddings.shape), penalty

    def select(self, params: SelectorParams, embeddings: Array) -> Selected:
        """Deterministic selection by each instance's threshold."""
        probs = jax.nn.sigmoid(self.logits(params, embeddings))
        masks, thresholds = select_gates(probs, rule=self.config.threshold, bins=self.config.bins)
        return Selected(embeddings * masks.reshape(embeddings.shape), masks, probs, thresholds)
