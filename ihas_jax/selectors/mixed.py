"""Mixed dimensions: embedding sizes by a power of the number of values of a field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ihas_jax.config import Config
from ihas_jax.config.shares import MixedConfig
from ihas_jax.models.base import Model
from ihas_jax.selectors.base import UNTRAINED, Recipe, Selector
from ihas_jax.selectors.budget import fill_in_proportion, numbers_to_keep, require_room
from ihas_jax.selectors.plan import Plan, SearchResult, single
from ihas_jax.selectors.selection import Selection


@dataclass(frozen=True)
class Mixed(Selector):
    """A field of V values has lambda V^(-alpha) coordinates, rounded, from 1 to D.

    From Ginart et al., "Mixed Dimension Embeddings with Application to Memory-Efficient
    Recommendation Systems", ISIT 2021 (arXiv 1909.11810). Lambda is the largest that the budget
    allows, and what rounding leaves of the budget is filled with further coordinates.

    Note: the paper projects fields of unlike sizes to one size by a matrix each. Here there are no
    such layers; where vectors of fields are multiplied with each other, missing coordinates are
    zeros.

    Attributes:
      config: the method's choices.
    """

    config: MixedConfig

    @property
    def recipe(self) -> Recipe:
        """Nothing is learnt before the choice."""
        return UNTRAINED

    def choose(self, found: SearchResult) -> Plan:
        """Keeps the first coordinates of every field, as many as its number of values says."""
        spec, numbers = found.model.embedding, numbers_to_keep(found, self.config.kept)
        weights = np.array(spec.sizes) ** -self.config.alpha
        return single(Selection(fill_in_proportion(weights, spec.sizes, spec, numbers)))


def build_mixed(config: Config, model: Model, epoch_steps: int) -> Mixed:
    """Builds the choice of mixed dimensions.

    Raises:
      InputError: `mixed.kept` has no room for a coordinate.
    """
    options = config.of(MixedConfig)
    if config.budget is None:
        require_room("mixed.kept", options.kept, model.embedding)
    return Mixed(options)
