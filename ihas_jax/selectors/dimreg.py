"""DimReg: one polarised gate per embedding coordinate, the same for all instances."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.config import Config
from ihas_jax.config.methods import DimRegConfig
from ihas_jax.models.base import SELECTOR, Model
from ihas_jax.models.forward import Lookup, Transformed
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.nn.gates import gate_penalty
from ihas_jax.selectors.base import Recipe, Selector, Weights, weights_of
from ihas_jax.selectors.budget import fill
from ihas_jax.selectors.plan import Plan, SearchResult, single
from ihas_jax.selectors.selection import Selection, kept_coordinates


@dataclass(frozen=True)
class DimRegGates(Selector):
    """Gates g = sigmoid(slope * theta) that are learnt on validation batches.

    Written after the port to PyTorch in Autogrow of the published method: the penalty is
    0.1 mean(l1_ratio g - |g - mean(g)|) with a slope of 5.

    Note: the port sets an L1 ratio of 1.7, "best in their paper", but leaves it out of the
    formula. The default is 1, as it computes; 1.7 closes nearly all gates on small real logs.

    Note: in the port a linear layer stands between the embeddings and the click model, and of a
    field's open coordinates it keeps their number. Here there is no such layer, and the open
    coordinates themselves are kept.

    Attributes:
      config: the method's choices.
      spec: shape of the table, uniform.
    """

    config: DimRegConfig
    spec: EmbeddingSpec

    @property
    def recipe(self) -> Recipe:
        """Bi-level search, then retraining with the open coordinates."""
        return Recipe(gate_batches="validation")

    def init(self, key: Array) -> Weights:
        """Half-open gates: theta `[K]` is 0.

        The polarisation has no gradient until the loss has made the gates differ.
        """
        return Weights({"theta": jnp.zeros(self.spec.coordinates)})

    def sample(self, weights: Weights, lookup: Lookup, key: Array) -> Transformed:
        """Embeddings times gates, without noise, and the weighted regulariser."""
        gates = self._gates(weights)
        total = gate_penalty(gates[None], l0_weight=self.config.l1_ratio)
        penalty = self.config.weight * total / len(gates)
        return Transformed(_gated(lookup, gates), penalty, weights.stats)

    def select(self, weights: Weights, lookup: Lookup) -> Transformed:
        """Embeddings times gates, as in the search; masks mark what retraining would keep."""
        opened = (weights.gates["theta"] > 0).astype(lookup.vectors.dtype)
        masks = jnp.broadcast_to(opened, (lookup.vectors.shape[0], len(opened)))
        return Transformed(_gated(lookup, self._gates(weights)), masks=masks)

    def choose(self, found: SearchResult) -> Plan:
        """Keeps the coordinates with theta > 0; without any, the first one of the largest theta.

        Under a budget the gate is the gain of a coordinate.
        """
        if found.budget is not None:
            gates = np.asarray(self._gates(weights_of(found.variables)))
            gains = gates.reshape(-1, self.spec.dim)
            return single(Selection(fill(gains, self.spec.sizes, found.budget)))
        theta = np.asarray(found.variables.params[SELECTOR]["theta"])
        return single(Selection(kept_coordinates(theta, theta > 0, self.spec.dim)))

    def _gates(self, weights: Weights) -> Array:
        """Gates g `[K]`."""
        return jax.nn.sigmoid(self.config.slope * weights.gates["theta"])


def _gated(lookup: Lookup, gates: Array) -> Array:
    return lookup.vectors * gates.reshape(lookup.vectors.shape[1:])


def build_dimreg(config: Config, model: Model, epoch_steps: int) -> DimRegGates:
    """Builds the gates of DimReg."""
    return DimRegGates(config.of(DimRegConfig), model.embedding)
