"""AutoDim: a choice of embedding sizes for each field."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy.special import softmax

from ihas_jax.config import Config
from ihas_jax.config.methods import AutoDimConfig
from ihas_jax.errors import InputError
from ihas_jax.models.base import SELECTOR, Model, Stats
from ihas_jax.models.forward import Lookup, Transformed
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.nn.mlp import Linear
from ihas_jax.selectors.base import Recipe, Selector, Weights
from ihas_jax.selectors.budget import fill
from ihas_jax.selectors.normalize import fresh_norm, normalize
from ihas_jax.selectors.plan import Plan, SearchResult, single
from ihas_jax.selectors.refusals import refuse_several_vectors
from ihas_jax.selectors.relaxed import relaxed_choice, temperature
from ihas_jax.selectors.selection import Selection


@dataclass(frozen=True)
class AutoDim(Selector):
    """A choice among candidate sizes d_1 < ... < d_C for each field, relaxed to their weights.

    From Zhao et al., "AutoDim: Field-aware Embedding Dimension Search in Recommender Systems",
    WWW 2021, with weight sharing: a field's candidate of size d is the first d coordinates of its
    embedding. The candidates of all fields are brought to D coordinates by one linear layer for
    each size and a batch norm without scale and bias; the click model sees their weighted sum.

    Note: retrained models have no such layers. Where the paper projects fields of unlike sizes
    for models with products of their vectors, coordinates that a field lacks are zeros here.

    Attributes:
      config: the method's choices.
      spec: shape of the table, uniform.
      axis_name: mapped axis over which batch statistics are averaged.
    """

    config: AutoDimConfig
    spec: EmbeddingSpec
    axis_name: str | None = None

    @property
    def recipe(self) -> Recipe:
        """Bi-level search, then retraining with the best sizes."""
        return Recipe(gate_batches="validation")

    def init(self, key: Array) -> Weights:
        """Alpha `[N, C]` at 0, a linear layer for each size, and a count of training steps."""
        sizes, dim = self.config.dims, self.spec.dim
        keys = jax.random.split(key, len(sizes))
        return Weights(
            gates={"alpha": jnp.zeros((len(self.spec.sizes), len(sizes)))},
            layers={
                f"size_{size}": Linear(dim).init(k, jnp.zeros((1, size)))["params"]["linear"]
                for size, k in zip(sizes, keys, strict=True)
            },
            stats={
                "steps": jnp.zeros((), jnp.int32),
                "norms": {f"size_{size}": fresh_norm(dim, affine=False)[1] for size in sizes},
            },
        )

    def sample(self, weights: Weights, lookup: Lookup, key: Array) -> Transformed:
        """The candidates' sum by weights with Gumbel noise, one draw for the whole batch."""
        mix = relaxed_choice(weights.gates["alpha"], self._temperature(weights), key)
        embeddings, norms = self._mixed(weights, lookup, mix, train=True)
        stats = {"steps": weights.stats["steps"] + 1, "norms": norms}
        return Transformed(embeddings, stats=stats)

    def select(self, weights: Weights, lookup: Lookup) -> Transformed:
        """The candidates' sum without noise, with running statistics; soft weights keep all."""
        mix = relaxed_choice(weights.gates["alpha"], self._temperature(weights))
        embeddings, _ = self._mixed(weights, lookup, mix, train=False)
        masks = jnp.ones((embeddings.shape[0], self.spec.coordinates), embeddings.dtype)
        return Transformed(embeddings, masks=masks)

    def pretrain(self, weights: Weights, lookup: Lookup, key: Array | None) -> Transformed:
        """The candidates' mean; the temperature falls in the search alone."""
        embeddings, norms = self._mixed(weights, lookup, self._equal(), train=key is not None)
        return Transformed(embeddings, stats=weights.stats | {"norms": norms})

    def with_axis(self, axis_name: str | None) -> AutoDim:
        """The selector with batch statistics of all devices together."""
        return dataclasses.replace(self, axis_name=axis_name)

    def choose(self, found: SearchResult) -> Plan:
        """Keeps the size of the largest alpha of each field, the smaller size of equal ones.

        Under a budget a coordinate's gain is the probability that the size of its field is larger
        than its place, by the softmax of alpha.
        """
        alpha = np.asarray(found.variables.params[SELECTOR]["alpha"])
        if found.budget is not None:
            larger = np.array(self.config.dims)[:, None] > np.arange(self.spec.dim)  # [C, D]
            gains = softmax(alpha, axis=1) @ larger
            return single(Selection(fill(gains, self.spec.sizes, found.budget)))
        best = np.argmax(alpha, axis=1)
        return single(Selection(tuple(tuple(range(self.config.dims[choice])) for choice in best)))

    def _temperature(self, weights: Weights) -> Array:
        return temperature(weights.stats["steps"], self.config.anneal)

    def _equal(self) -> Array:
        """Equal weights `[N, C]`, since pretraining has no gates yet."""
        number = len(self.config.dims)
        return jnp.full((len(self.spec.sizes), number), 1 / number)

    def _mixed(
        self, weights: Weights, lookup: Lookup, mix: Array, *, train: bool
    ) -> tuple[Array, Stats]:
        """The sum `[B, N, D]` by weights `mix [N, C]`, and the new running statistics."""
        mixed, norms = jnp.zeros_like(lookup.vectors), {}
        for size, weight in zip(self.config.dims, mix.T, strict=True):
            name = f"size_{size}"
            layer, stats = weights.layers[name], weights.stats["norms"][name]
            bias = lax.stop_gradient(layer["bias"])  # the norm takes it away again
            candidate = lookup.vectors[..., :size] @ layer["kernel"] + bias
            candidate, norms[name] = normalize(
                candidate, stats, train=train, axis_name=self.axis_name
            )
            mixed += weight[:, None] * candidate
        return mixed, norms


def build_autodim(config: Config, model: Model, epoch_steps: int) -> AutoDim:
    """Builds the size weights of AutoDim.

    Raises:
      InputError: embeddings of the model are several vectors, or smaller than a candidate.
    """
    spec, name, largest = model.embedding, config.model.name, max(config.of(AutoDimConfig).dims)
    refuse_several_vectors(config, model)
    if largest > spec.dim:
        remedy = "--model.dim" if spec.dim == config.model.dim else "--model"
        raise InputError(
            f"--autodim.dims has a size of {largest}, but embeddings of --model {name} have only "
            f"{spec.dim}. Choose smaller sizes, or change {remedy}."
        )
    return AutoDim(config.of(AutoDimConfig), spec)
