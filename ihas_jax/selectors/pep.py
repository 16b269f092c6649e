"""PEP: an embedding table pruned by thresholds that rise until enough of it is zero."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ihas_jax.config import AdamConfig, Config
from ihas_jax.config.methods import PepConfig
from ihas_jax.errors import InputError
from ihas_jax.models.base import EMBEDDING, Model, Params
from ihas_jax.models.forward import Lookup, Transformed
from ihas_jax.models.local import on_own_devices
from ihas_jax.nn.embedding import EmbeddingSpec, field_of_rows
from ihas_jax.selectors.base import Recipe, Selector, Weights, weights_of
from ihas_jax.selectors.plan import Plan, SearchResult, single
from ihas_jax.selectors.refusals import refuse_zero_start
from ihas_jax.selectors.selection import Selection, all_coordinates, mark_largest
from ihas_jax.training.optimizers import l2_adam

_L2 = 1e-5


def soft_threshold(values: Array, thresholds: Array) -> Array:
    """sign(v) ReLU(|v| - sigmoid(s)) of values `[..., D]` and thresholds that broadcast to them.

    A pruned value has no gradient, so that the loss does not bring it back.
    """
    return jnp.sign(values) * jax.nn.relu(margins(values, thresholds))


def margins(values: Array, thresholds: Array) -> Array:
    """|v| - sigmoid(s): by how much values exceed their thresholds; shapes as `soft_threshold`."""
    return jnp.abs(values) - jax.nn.sigmoid(thresholds)


@dataclass(frozen=True)
class PepThresholds(Selector):
    """Thresholds under which the numbers of an embedding table are zero.

    From Liu et al., "Learnable Embedding Sizes for Recommender Systems", ICLR 2021. Weight decay
    raises the thresholds: far below 0 their only gradient is that of L2, and Adam turns a
    gradient of any size into a step of the learning rate.

    Note: published runs start at -150 with steps of 1e-3, and prune nothing in the first 140,000
    steps. Here `build_pep` sets the step by the length of the log. Steps get smaller near 0, since
    Adam divides by the gradients of about the last 1,000 steps: a threshold that only L2 moves
    from -15 towards 0 is at -3.9 at the end of the planned time if that has 1,000 steps, and at
    -1.5 if it has 20,000. No threshold passes 0.

    Note: the published code has one Adam for thresholds and model; here the model keeps its own,
    with its own L2.

    Attributes:
      config: the method's choices.
      spec: shape of the table, uniform.
      learning_rate: step of the thresholds.
    """

    config: PepConfig
    spec: EmbeddingSpec
    learning_rate: float

    @property
    def recipe(self) -> Recipe:
        """A search until enough is pruned, then retraining from its initial embeddings."""
        return Recipe(
            gate_batches="training",
            initial_weights="initial_embeddings" if self.config.ticket else "fresh",
            stop_at_share=self.config.kept,
            stopping_split=self.config.stopping,
        )

    def init(self, key: Array) -> Weights:
        """All thresholds at `config.start`."""
        values, fields, dim = sum(self.spec.sizes), len(self.spec.sizes), self.spec.dim
        shape = {
            "global": (1,),
            "coordinate": (dim,),
            "value": (values, 1),
            "field": (fields, 1),
            "value_coordinate": (values, dim),
            "field_coordinate": (fields, dim),
        }[self.config.thresholds]
        return Weights({"thresholds": jnp.full(shape, self.config.start, float)})

    def sample(self, weights: Weights, lookup: Lookup, key: Array) -> Transformed:
        """The pruned embeddings; there is neither noise nor a penalty."""
        return Transformed(self._pruned(weights, lookup))

    def select(self, weights: Weights, lookup: Lookup) -> Transformed:
        """The pruned embeddings, and which coordinates are left."""
        pruned = self._pruned(weights, lookup)
        masks = (pruned != 0).astype(pruned.dtype)
        return Transformed(pruned, masks=masks.reshape(masks.shape[0], -1))

    def _pruned(self, weights: Weights, lookup: Lookup) -> Array:
        thresholds = weights.gates["thresholds"]
        if self.config.thresholds.startswith("value"):
            thresholds = lookup.read(thresholds)
        return soft_threshold(lookup.vectors, thresholds)

    def optimizer(self, config: AdamConfig) -> optax.GradientTransformation:
        """Adam with the published L2 of 1e-5 and the method's step; `config` does not matter."""
        return l2_adam(AdamConfig(self.learning_rate, _L2))

    def kept_share(self, weights: Weights, params: Params) -> Array:
        """Share `[]` of the table's numbers that exceed their thresholds."""
        left = self._table_margins(weights, params)
        # counted, since a sum of ones in float32 ends at 2^24; rows of padding exceed nothing
        return jnp.count_nonzero(left > 0) / self.spec.parameters

    def choose(self, found: SearchResult) -> Plan:
        """Keeps the numbers that exceed their thresholds most: the wanted share of the table.

        Note: the published code keeps what is left after the step that reaches the share. The
        search here measures the share once per epoch; it may have pruned more by then, or have
        ended with more left.
        """
        variables = on_own_devices(found.variables)
        scores = np.asarray(jax.jit(self._table_margins)(weights_of(variables), variables.params))
        scores = scores[: sum(self.spec.sizes)]
        count = max(1, round(self.config.kept * scores.size))
        count = count if found.budget is None else found.budget
        return single(Selection(all_coordinates(self.spec), mask=mark_largest(scores, count)))

    def _table_margins(self, weights: Weights, params: Params) -> Array:
        """Margins `[V, D]` of the whole table."""
        (table,) = params["tables"][EMBEDDING].values()
        thresholds = weights.gates["thresholds"]
        if self.config.thresholds.startswith("field"):
            thresholds = thresholds[field_of_rows(self.spec, len(table))]
        return margins(table, thresholds)


def build_pep(config: Config, model: Model, epoch_steps: int) -> PepThresholds:
    """Builds the thresholds of PEP, whose first step would take them to the end in `pep.epochs`.

    A budget takes the place of `pep.kept`, at which the search stops.

    Raises:
      InputError: `pep.end` is above 0, or embeddings are zeros when the search starts.
    """
    pep = config.of(PepConfig)
    pep = pep if config.budget is None else dataclasses.replace(pep, kept=config.budget)
    refuse_zero_start(config, model)
    if pep.end > 0:
        raise InputError(
            f"--pep.end {pep.end} is above 0, which thresholds can't pass, since weight decay "
            "draws them to 0. Choose an end of 0 or below."
        )
    pace = (pep.end - pep.start) / (pep.epochs * epoch_steps)
    return PepThresholds(pep, model.embedding, pace)
