"""The Bernoulli gates of iHAS (paper section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ihas_jax.config import Config, GateConfig
from ihas_jax.models.base import Model
from ihas_jax.nn.gates import gate_penalty, half_product, sample_gates, select_gates
from ihas_jax.nn.mlp import Linear
from ihas_jax.selectors.base import (
    Applied,
    Looked,
    Recipe,
    Selected,
    Selector,
    SelectorParams,
    Weights,
)


class Gates(NamedTuple):
    """Deterministic gates of a batch.

    Attributes:
      masks: `[B, K]` of 0 and 1.
      probs: `[B, K]` probabilities behind the masks.
      thresholds: `[B]` thresholds applied to them.
    """

    masks: Array
    probs: Array
    thresholds: Array


@dataclass(frozen=True)
class BernoulliGates(Selector):
    """One gate per embedding coordinate, opened with probability sigmoid(w E + b).

    With `config.instance_wise` off the probabilities are sigmoid(w*), one vector for all
    instances (ablation iHAS-4).

    Attributes:
      config: the gates' choices.
      coordinates: K = N * D.
    """

    config: GateConfig
    coordinates: int

    @property
    def recipe(self) -> Recipe:
        """Bi-level search, then clusters (Algorithm 1)."""
        return Recipe(gates="validation", outcome="clusters")

    @property
    def summed_penalty(self) -> bool:
        """Whether equation 5 sums over instances, as the paper writes it."""
        return self.config.reduction == "sum"

    def init(self, key: Array) -> Weights:
        """Fresh gates: a Linear layer K -> K, or the vector w* of U(-1/sqrt(K), 1/sqrt(K))."""
        if self.config.instance_wise:
            layer = Linear(self.coordinates).init(key, jnp.zeros((1, self.coordinates)))
            return Weights(layer["params"])
        bound = self.coordinates**-0.5
        vector = jax.random.uniform(key, (self.coordinates,), minval=-bound, maxval=bound)
        return Weights({"vector": vector})

    def logits(self, gates: SelectorParams, embeddings: Array) -> Array:
        """Log-odds of open gates, `[B, N, D]` -> `[B, K]`."""
        flat = embeddings.reshape(embeddings.shape[0], -1)
        if not self.config.instance_wise:
            return jnp.broadcast_to(gates["vector"], flat.shape)
        if not self.config.gradient_to_tables:
            flat = lax.stop_gradient(flat)
        kernel, bias = gates["linear"]["kernel"], gates["linear"]["bias"]
        if self.config.matmul == "float32":
            return flat @ kernel + bias
        return half_product(flat, kernel) + bias

    def sample(self, weights: Weights, looked: Looked, key: Array) -> Applied:
        """Stochastic selection and the weighted penalty of equation 5."""
        embeddings, _, first = looked
        logits = self.logits(weights.gates, embeddings)
        masks = sample_gates(key, logits, temperature=self.config.temperature, first_row=first)
        penalty = self.config.weight * gate_penalty(
            jax.nn.sigmoid(logits),
            l0_weight=self.config.l0_weight,
            polarization=self.config.polarization,
            reduction=self.config.reduction,
        )
        return Applied(embeddings * masks.reshape(embeddings.shape), penalty, weights.stats)

    def gates(self, weights: Weights, embeddings: Array) -> Gates:
        """Gates `[B, K]` that each instance's threshold opens, of embeddings `[B, N, D]`."""
        probs = jax.nn.sigmoid(self.logits(weights.gates, embeddings))
        masks, thresholds = select_gates(probs, rule=self.config.threshold, bins=self.config.bins)
        return Gates(masks, probs, thresholds)

    def select(self, weights: Weights, looked: Looked) -> Selected:
        """Deterministic selection by each instance's threshold."""
        embeddings = looked.embeddings
        masks = self.gates(weights, embeddings).masks
        return Selected(embeddings * masks.reshape(embeddings.shape), masks)


def build_bernoulli(config: Config, model: Model, epoch_steps: int) -> BernoulliGates:
    """Builds the gates of iHAS."""
    return BernoulliGates(config.gates, model.embedding.coordinates)
