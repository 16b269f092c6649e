"""OptEmbed: a supernet that learns which values to keep, and serves any widths of the fields."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ihas_jax.config import AdamConfig, Config
from ihas_jax.config.methods import OptEmbedConfig
from ihas_jax.models.base import EMBEDDING, FACTORS, SELECTOR, Model
from ihas_jax.models.forward import Lookup, Transformed
from ihas_jax.models.local import on_own_devices
from ihas_jax.nn.embedding import EmbeddingSpec, field_of_rows
from ihas_jax.nn.noise import row_keys
from ihas_jax.selectors.base import Recipe, Selector, Weights
from ihas_jax.selectors.budget import fill_in_proportion
from ihas_jax.selectors.evolution import evolve
from ihas_jax.selectors.plan import Plan, SearchResult, single
from ihas_jax.selectors.population import make_population_auc, prefix_masks
from ihas_jax.selectors.refusals import refuse_several_vectors, refuse_zero_start
from ihas_jax.selectors.selection import by_field, mark_largest, select_values


@jax.custom_jvp
def step_function(u: Array) -> Array:
    """1 where u > 0, else 0; its derivative is `surrogate_slope`."""
    return (u > 0).astype(u.dtype)


@step_function.defjvp
def _step_function_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return step_function(primals[0]), surrogate_slope(primals[0]) * tangents[0]


def surrogate_slope(u: Array) -> Array:
    """2 - 4|u| up to |u| = 0.4, then 0.4 up to |u| = 1, then 0."""
    size = jnp.abs(u)
    return jnp.where(size <= 0.4, 2 - 4 * size, jnp.where(size <= 1, 0.4, 0))


def margins(embeddings: Array, thresholds: Array) -> Array:
    """L1 norms of embeddings `[..., D]` less their thresholds `[...]`."""
    return jnp.abs(embeddings).sum(axis=-1) - thresholds


def sample_widths(
    key: Array, rows: int, fields: int, dim: int, first_row: Array | int = 0
) -> Array:
    """Widths `[B, N]` int32 of each instance's fields, uniform from 1 to D.

    Args:
      key: PRNG key of the batch; rows draw from their `row_keys`.
      rows: B.
      fields: N.
      dim: D.
      first_row: place of the first row in the whole batch.
    """
    keys = row_keys(key, rows, first_row)
    return jax.vmap(lambda k: jax.random.randint(k, (fields,), 1, dim + 1, jnp.int32))(keys)


def mean_norm(spec: EmbeddingSpec) -> float:
    """Mean L1 norm of a fresh embedding; a table of zeros counts as the Xavier one does."""
    if spec.init == "normal":
        return spec.dim * math.sqrt(2 / math.pi)
    return spec.dim * math.sqrt(6 / (sum(spec.sizes) + spec.dim)) / 2


@dataclass(frozen=True)
class Supernet(Selector):
    """Drops values whose embeddings have an L1 norm below the learnt threshold of their field.

    From Lyu et al., "OptEmbed: Learning Optimal Embedding Table for Click-through Rate
    Prediction", CIKM 2022. While thresholds are learnt, each field of each instance shows a
    random number of its first coordinates, so that the model serves any widths; these are then
    found by evolution.

    Note: the published steps, 1e-4 times a weight of 1e-6 to 1e-4, leave thresholds where they
    start. Here `config.reach` sets the step, whatever the weight and the length of the log; a
    weight of 0 has the step of a weight of 1.

    Attributes:
      config: the method's choices.
      spec: shape of the table, uniform.
      epoch_steps: training steps of an epoch.
    """

    config: OptEmbedConfig
    spec: EmbeddingSpec
    epoch_steps: int

    @property
    def recipe(self) -> Recipe:
        """Joint training with early stopping, then retraining from its initial weights."""
        return Recipe(gate_batches="training", initial_weights="initial")

    def init(self, key: Array) -> Weights:
        """Thresholds `[N, 1]` of 0, which keep every value."""
        return Weights({"thresholds": jnp.zeros((len(self.spec.sizes), 1))})

    def sample(self, weights: Weights, lookup: Lookup, key: Array) -> Transformed:
        """The kept values' embeddings in random widths; the penalty is the sum of exp(-t)."""
        embeddings, _, first_row = lookup
        rows, fields, dim = embeddings.shape
        shown = embeddings * prefix_masks(sample_widths(key, rows, fields, dim, first_row), dim)
        thresholds = weights.gates["thresholds"]
        penalty = self.config.weight * jnp.exp(-thresholds).sum()
        return Transformed(shown * _kept_values(weights, lookup), penalty, weights.stats)

    def select(self, weights: Weights, lookup: Lookup) -> Transformed:
        """The kept values' embeddings in full width."""
        kept = _kept_values(weights, lookup)
        masks = jnp.broadcast_to(kept, lookup.vectors.shape)
        return Transformed(lookup.vectors * kept, masks=masks.reshape(kept.shape[0], -1))

    def optimizer(self, config: AdamConfig) -> optax.GradientTransformation:
        """Plain SGD; the method sets the step, and `config` does not matter.

        With steps of size r the penalty alone moves a threshold by r * weight * exp(-t), hence
        exp(t) by r * weight: from 0 to T in (exp(T) - 1) / (r * weight) steps.
        """
        steps = self.config.epochs * self.epoch_steps
        distance = math.expm1(self.config.reach * mean_norm(self.spec))
        return optax.sgd(distance / (steps * (self.config.weight or 1.0)))

    def choose(self, found: SearchResult) -> Plan:
        """Keeps the values above their thresholds, and the widths that the evolution finds.

        Without such a value, the one that is least below its threshold is kept. Under a budget
        enough values are kept to fill it in full width, and the evolution scores candidates whose
        widths were changed in proportion until they fill it.
        """
        sizes, dim = self.spec.sizes, self.spec.dim
        variables = on_own_devices(found.variables)
        ((group, table),) = variables.params["tables"][EMBEDDING].items()
        thresholds = variables.params[SELECTOR]["thresholds"]
        of_rows = thresholds[field_of_rows(self.spec, len(table)), 0]
        margin = np.asarray(margins(table, of_rows))[: sum(sizes)]
        values = margin > 0
        if not values.any():
            values[np.argmax(margin)] = True
        if found.budget is not None:
            values |= mark_largest(margin, -(-found.budget // dim))
        factors = values[:, None].astype(np.float32)
        variables = on_own_devices(variables._replace(constants={FACTORS: {group: factors}}))
        score = make_population_auc(found.model, found.valid)
        widths, _ = evolve(
            found.key,
            lambda candidates: score(variables, candidates),
            len(sizes),
            dim,
            self.config,
            partial(self._repaired, values, found.budget),
        )
        kept = tuple(tuple(range(width)) for width in widths)
        return single(select_values(values, self.spec, kept))

    def _repaired(
        self, values: np.ndarray, budget: int | None, candidates: np.ndarray
    ) -> np.ndarray:
        """Widths `[P, N]` near those of candidates that fill a budget, if there is one."""
        if budget is None:
            return candidates
        rows = [int(np.count_nonzero(part)) for part in by_field(values, self.spec)]
        kept = [fill_in_proportion(widths, rows, self.spec, budget) for widths in candidates]
        return np.array([[len(field) for field in fields] for fields in kept], np.int32)


def _kept_values(weights: Weights, lookup: Lookup) -> Array:
    """1 where a value is kept, else 0: `[B, N, 1]`."""
    thresholds = weights.gates["thresholds"][:, 0]
    return step_function(margins(lookup.vectors, thresholds))[..., None]


def build_optembed(config: Config, model: Model, epoch_steps: int) -> Supernet:
    """Builds the supernet of OptEmbed.

    Raises:
      InputError: embeddings of the model are several vectors, or zeros when the search starts.
    """
    refuse_several_vectors(config, model)
    refuse_zero_start(config, model)
    return Supernet(config.of(OptEmbedConfig), model.embedding, epoch_steps)
