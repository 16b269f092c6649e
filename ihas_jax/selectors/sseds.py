"""SSEDS: the coordinates to which the loss of a trained model is most sensitive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ihas_jax.config import Config
from ihas_jax.config.methods import SsedsConfig
from ihas_jax.data.dataset import Split
from ihas_jax.models.base import Model, Variables
from ihas_jax.models.forward import Lookup, Transformed, forward
from ihas_jax.models.streaming import Summed
from ihas_jax.selectors.base import Recipe, Selector
from ihas_jax.selectors.budget import fill
from ihas_jax.selectors.plan import Plan, SearchResult, single
from ihas_jax.selectors.selection import Selection, kept_coordinates, mark_largest


def saliency(model: Model, variables: Variables, split: Split) -> np.ndarray:
    """Mean over batches of |dL / d alpha| at alpha = 1, `[N, D]` float64.

    alpha multiplies the coordinates of all embeddings alike, and L is a batch's mean binary
    cross-entropy without dropout, with running statistics of batch norm. Batches are 4096 rows
    in the order of the split, as in a published port, and the last may be smaller.

    Note: scores are not normalised, which would not change their order.

    Args:
      model: the click model.
      variables: its variables.
      split: the rows to take gradients on.
    """
    spec = model.embedding

    def of_batch(variables: Variables, columns: Array, valid: Array) -> Any:
        ids, labels = columns[:, :-1], columns[:, -1]

        def loss(alpha: Array) -> Array:
            def scale(variables: Variables, lookup: Lookup, key: Array | None) -> Transformed:
                return Transformed(lookup.vectors * alpha)

            logits = forward(model, variables, ids, scale).logits
            losses = optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))
            return jnp.where(valid, losses, 0).sum() / valid.sum()

        gradient = jax.grad(loss)(jnp.ones((len(spec.sizes), spec.dim)))
        return (), (jnp.abs(gradient), jnp.ones(()))

    columns = np.column_stack([split.ids, split.labels])  # one array, so that both are streamed
    _, (total, batches) = Summed(of_batch)(variables, columns, title="[choose] saliency")
    return np.asarray(total / batches)


@dataclass(frozen=True)
class Saliency(Selector):
    """Trains the click model without gates, and keeps its most salient coordinates.

    From Qu et al., "Single-shot Embedding Dimension Search in Recommender System", SIGIR 2022.

    Note: `config.kept` is a share of the K coordinates, as in a published port. The paper's budget
    is a share of the parameters, as `--budget` is.

    Note: retrained models have no layers that project fields of unlike sizes to a common size.
    Where vectors of fields are multiplied with each other, missing coordinates are zeros.

    Attributes:
      config: the method's choices.
    """

    config: SsedsConfig

    @property
    def recipe(self) -> Recipe:
        """Training with early stopping, then retraining with the kept coordinates."""
        return Recipe(gate_batches="never")

    def choose(self, found: SearchResult) -> Plan:
        """Keeps the share `config.kept` of all coordinates, and at least one.

        Under a budget saliency is the gain of a coordinate.
        """
        scores = saliency(found.model, found.variables, found.valid)
        if found.budget is not None:
            return single(Selection(fill(scores, found.model.embedding.sizes, found.budget)))
        dim, scores = scores.shape[1], scores.ravel()
        chosen = mark_largest(scores, round(self.config.kept * len(scores)))
        return single(Selection(kept_coordinates(scores, chosen, dim)))


def build_sseds(config: Config, model: Model, epoch_steps: int) -> Saliency:
    """Builds SSEDS, which every model can carry."""
    return Saliency(config.of(SsedsConfig))
