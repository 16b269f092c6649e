"""AutoField: each field has a weight, and the fields of the largest weights are kept."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import softmax

from ihas_jax.config import Config
from ihas_jax.config.methods import AutoFieldConfig
from ihas_jax.models.base import SELECTOR, Model
from ihas_jax.models.forward import Lookup, Transformed
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors.base import Recipe, Selector, Weights
from ihas_jax.selectors.budget import fill
from ihas_jax.selectors.fields import fields_to_keep, top_fields
from ihas_jax.selectors.plan import Plan, SearchResult, single
from ihas_jax.selectors.relaxed import relaxed_choice, temperature
from ihas_jax.selectors.selection import Selection


@dataclass(frozen=True)
class AutoField(Selector):
    """A choice between dropping and keeping each field, relaxed to the weight of keeping it.

    From Wang et al., "AutoField: Automating Feature Selection in Deep Recommender Systems",
    WWW 2022.

    Note: the paper adds Gumbel noise to log(alpha); here, as in the published code, it is added
    to alpha itself.

    Note: in the published code the temperature falls with every forward pass, those of evaluation
    included, and evaluation draws noise as well. Here it falls with the training steps of the
    search, as in the paper, and evaluation is without noise.

    Note: published alpha are float64; here all is float32.

    Attributes:
      config: the method's choices.
      spec: shape of the table, uniform.
      fields: number of fields to keep.
    """

    config: AutoFieldConfig
    spec: EmbeddingSpec
    fields: int

    @property
    def recipe(self) -> Recipe:
        """Bi-level search, then retraining with the best fields."""
        return Recipe(gate_batches="validation")

    def init(self, key: Array) -> Weights:
        """Alpha `[N, 2]`, for dropping and keeping, at 1/2; and a count of training steps."""
        alpha = jnp.full((len(self.spec.sizes), 2), 0.5, float)
        return Weights({"alpha": alpha}, stats={"steps": jnp.zeros((), jnp.int32)})

    def sample(self, weights: Weights, lookup: Lookup, key: Array) -> Transformed:
        """Fields times their weights, with one draw of noise for the whole batch if any."""
        embeddings = lookup.vectors * self._keep(weights, key)[:, None]
        return Transformed(embeddings, stats={"steps": weights.stats["steps"] + 1})

    def select(self, weights: Weights, lookup: Lookup) -> Transformed:
        """Fields times their weights without noise; soft weights keep all."""
        embeddings = lookup.vectors * self._keep(weights)[:, None]
        masks = jnp.ones((embeddings.shape[0], self.spec.coordinates), embeddings.dtype)
        return Transformed(embeddings, masks=masks)

    def choose(self, found: SearchResult) -> Plan:
        """Keeps the fields whose alpha of keeping is largest, the first of equal ones.

        Under a budget the softmax of alpha over the fields, by which published code ranks them, is
        the gain of each coordinate of a field; the last field may be kept in part.

        Note: the published ranking has the same order as alpha.
        """
        alpha = found.variables.params[SELECTOR]["alpha"][:, 1]
        if found.budget is not None:
            gains = np.repeat(softmax(np.asarray(alpha))[:, None], self.spec.dim, axis=1)
            return single(Selection(fill(gains, self.spec.sizes, found.budget)))
        keep = np.asarray(top_fields(alpha, self.fields))
        coordinates = tuple(range(self.spec.dim))
        return single(Selection(tuple(coordinates if field else () for field in keep)))

    def _keep(self, weights: Weights, key: Array | None = None) -> Array:
        """Weights of keeping `[N]`, with noise from the key if there is one."""
        alpha = weights.gates["alpha"]
        if self.config.weights == "softmax":
            return relaxed_choice(alpha, 1.0)[:, 1]
        cooled = temperature(weights.stats["steps"], self.config.anneal)
        return relaxed_choice(alpha, cooled, key)[:, 1]


def build_autofield(config: Config, model: Model, epoch_steps: int) -> AutoField:
    """Builds the field weights of AutoField.

    Raises:
      InputError: `autofield.fields` is more than there are.
    """
    spec = model.embedding
    fields = fields_to_keep("autofield.fields", config.of(AutoFieldConfig).fields, spec)
    return AutoField(config.of(AutoFieldConfig), spec, fields)
