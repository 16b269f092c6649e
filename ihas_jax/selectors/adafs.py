"""AdaFS: a controller weighs the fields of each instance, or keeps the best of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from ihas_jax.config import Config
from ihas_jax.config.methods import AdaFSConfig
from ihas_jax.models.base import Model, Stats
from ihas_jax.models.forward import Lookup, Transformed
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.nn.mlp import Linear
from ihas_jax.nn.noise import fixed_draws, row_keys
from ihas_jax.selectors.base import Recipe, Selector, Weights
from ihas_jax.selectors.fields import fields_to_keep, top_fields
from ihas_jax.selectors.normalize import fresh_norm, normalize, unit_product_scale
from ihas_jax.selectors.plan import SERVE_SEARCHED, Plan, SearchResult


def row_dropout(key: Array, x: Array, rate: float, first_row: Array | int = 0) -> Array:
    """Dropout of `[B, N]`; rows draw from their `row_keys`."""
    keys = row_keys(key, len(x), first_row)
    dropout = cast(Any, nn.Dropout(rate, deterministic=False))
    return jax.vmap(lambda k, row: dropout.apply({}, row, rng=k))(keys, x)


def field_weights(scores: Array, config: AdaFSConfig, kept: Array | None = None) -> Array:
    """Weights of an instance's fields, softmax of scores `[B, N]`.

    Note: published weights add up to 1, so that inputs shrink N-fold when pretraining ends. The
    batch norm of published networks makes up for it; ours have none by default, and weights are
    multiplied by the number of kept fields instead.

    Args:
      scores: `[B, N]`.
      config: whether kept weights are divided by their sum (`reweight`), or 1 (not `weighted`),
        and whether weights are multiplied by the number of kept fields (`rescale`).
      kept: `[B, N]`, 1 for the kept fields and 0 for the others, whose weights are 0, equally many
        in each row; None keeps all.
    """
    weights = jax.nn.softmax(scores)
    number = scores.shape[1] if kept is None else kept[:1].sum()
    if kept is not None:
        if not config.weighted:
            return kept
        weights = weights * kept
        weights = weights / weights.sum(axis=1, keepdims=True) if config.reweight else weights
    return number * weights if config.rescale else weights


@dataclass(frozen=True)
class AdaFS(Selector):
    """Field weights a = softmax(Dropout(ReLU(BN(Linear(E))))) of normalised embeddings E.

    From Lin et al., "AdaFS: Adaptive Feature Selection in Deep Recommender System", KDD 2022. E
    are the embeddings after their batch norm, over the batch and the fields. In
    pretraining the click model sees E, in the search a_n E_n. The choice of fields has no
    gradient; the weights of the kept fields have one.

    Note: the published code also updates running statistics in the controller's steps on
    validation batches; here training batches alone do.

    Note: the batch norm of the embeddings starts at scale 1 in the published code, whose model is
    an MLP. For sums of inner products that is far too much (`config.unit_products`).

    Note: ReLU closes so many fields that in two fifths of the rows closed ones are kept, too.
    Which of them is a fixed random order of each row, by its values; torch's top-k, which the
    published code calls, leaves the order open.

    Note: where kept fields are not `weighted`, nothing but L2 moves the controller.

    Attributes:
      config: the method's choices.
      spec: shape of the table, uniform.
      fields: fields that an instance keeps in AdaFS-hard; None for AdaFS-soft.
      axis_name: mapped axis over which batch statistics are averaged.
    """

    config: AdaFSConfig
    spec: EmbeddingSpec
    fields: int | None = None
    axis_name: str | None = None

    @property
    def recipe(self) -> Recipe:
        """Bi-level search, whose model is the outcome."""
        return Recipe(gate_batches="validation")

    def init(self, key: Array) -> Weights:
        """The controller as gates, and the batch norm of the embeddings as a layer."""
        number, dim = len(self.spec.sizes), self.spec.dim
        scale = unit_product_scale(number, dim) if self.config.unit_products else 1.0
        layer = Linear(number).init(key, jnp.zeros((1, self.spec.coordinates)))["params"]
        of_scores, controller = fresh_norm(number)
        of_embeddings, embeddings = fresh_norm(dim, scale=scale)
        return Weights(
            gates={"linear": layer["linear"], "norm": of_scores},
            layers={"norm": of_embeddings},
            stats={"embeddings": embeddings, "controller": controller},
        )

    def sample(self, weights: Weights, lookup: Lookup, key: Array) -> Transformed:
        """Normalised embeddings times weights, with the batch's statistics and dropout."""
        embeddings, norm = self._normalized(weights, lookup, train=True)
        scores, controller = self._scores(weights, embeddings, train=True)
        if self.config.relu:
            scores = row_dropout(key, scores, self.config.dropout, lookup.first_row)
        factors = field_weights(scores, self.config, self._kept(scores, lookup))
        stats = {"embeddings": norm, "controller": controller}
        return Transformed(embeddings * factors[..., None], stats=stats)

    def select(self, weights: Weights, lookup: Lookup) -> Transformed:
        """Embeddings times weights, with running statistics; masks mark the kept fields."""
        embeddings, _ = self._normalized(weights, lookup, train=False)
        scores, _ = self._scores(weights, embeddings, train=False)
        kept = self._kept(scores, lookup)
        factors = field_weights(scores, self.config, kept)
        masks = jnp.repeat(jnp.ones_like(scores) if kept is None else kept, self.spec.dim, axis=1)
        return Transformed(embeddings * factors[..., None], masks=masks)

    def choose(self, found: SearchResult) -> Plan:
        """Nothing is retrained: the controller is needed in prediction."""
        return SERVE_SEARCHED

    def pretrain(self, weights: Weights, lookup: Lookup, key: Array | None) -> Transformed:
        """Normalised embeddings; the controller's statistics wait for the search."""
        embeddings, norm = self._normalized(weights, lookup, train=key is not None)
        return Transformed(embeddings, stats=weights.stats | {"embeddings": norm})

    def with_axis(self, axis_name: str | None) -> AdaFS:
        """The selector with batch statistics of all devices together."""
        return dataclasses.replace(self, axis_name=axis_name)

    def _kept(self, scores: Array, lookup: Lookup) -> Array | None:
        """1 for the fields of the largest scores `[B, N]`, else 0; None where all are kept."""
        if self.fields is None:
            return None
        if self.config.relu:  # scores at 0 are equal
            scores = jnp.where(scores > 0, scores, -fixed_draws(lookup.row_index))
        return top_fields(scores, self.fields)

    def _normalized(self, weights: Weights, lookup: Lookup, *, train: bool) -> tuple[Array, Stats]:
        """E `[B, N, D]`, and the new statistics of its batch norm."""
        stats, affine = weights.stats["embeddings"], weights.layers["norm"]
        return normalize(lookup.vectors, stats, affine, train=train, axis_name=self.axis_name)

    def _scores(self, weights: Weights, embeddings: Array, *, train: bool) -> tuple[Array, Stats]:
        """The controller's scores `[B, N]` before dropout, and the new statistics."""
        layer = weights.gates["linear"]
        bias = lax.stop_gradient(layer["bias"])  # the norm takes it away again
        scores = embeddings.reshape(embeddings.shape[0], -1) @ layer["kernel"] + bias
        stats, affine = weights.stats["controller"], weights.gates["norm"]
        scores, stats = normalize(scores, stats, affine, train=train, axis_name=self.axis_name)
        return jax.nn.relu(scores) if self.config.relu else scores, stats


def build_adafs_soft(config: Config, model: Model, epoch_steps: int) -> AdaFS:
    """Builds the controller of AdaFS-soft, which weighs all fields."""
    return AdaFS(config.of(AdaFSConfig), model.embedding)


def build_adafs_hard(config: Config, model: Model, epoch_steps: int) -> AdaFS:
    """Builds the controller of AdaFS-hard, which keeps the best fields.

    Raises:
      InputError: `adafs.fields` is more than there are.
    """
    spec = model.embedding
    return AdaFS(
        config.of(AdaFSConfig),
        spec,
        fields_to_keep("adafs.fields", config.of(AdaFSConfig).fields, spec),
    )
