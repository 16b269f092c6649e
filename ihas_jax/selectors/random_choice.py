"""Random coordinates, a baseline that every selection must beat."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from ihas_jax.config import Config
from ihas_jax.config.shares import RandomConfig
from ihas_jax.models.base import Model
from ihas_jax.selectors.base import UNTRAINED, Recipe, Selector
from ihas_jax.selectors.budget import fill, numbers_to_keep, require_room
from ihas_jax.selectors.plan import Plan, SearchResult, single
from ihas_jax.selectors.selection import Selection


@dataclass(frozen=True)
class RandomChoice(Selector):
    """Keeps coordinates in a random order of all N * D, as long as they fit into the budget.

    Note: where a large field's coordinate no longer fits, those of smaller fields fill the rest.

    Attributes:
      config: the method's choices.
    """

    config: RandomConfig

    @property
    def recipe(self) -> Recipe:
        """Nothing is learnt before the choice."""
        return UNTRAINED

    def choose(self, found: SearchResult) -> Plan:
        """Keeps random coordinates; another seed keeps others."""
        spec = found.model.embedding
        rows = np.array(spec.sizes)
        draws = jax.random.uniform(found.key, (len(rows), spec.dim))
        # gains per number are the draws, or small fields would be preferred
        gains = np.asarray(draws) * rows[:, None]
        return single(Selection(fill(gains, rows, numbers_to_keep(found, self.config.kept))))


def build_random(config: Config, model: Model, epoch_steps: int) -> RandomChoice:
    """Builds the random choice.

    Raises:
      InputError: `random.kept` has no room for a coordinate.
    """
    options = config.of(RandomConfig)
    if config.budget is None:
        require_room("random.kept", options.kept, model.embedding)
    return RandomChoice(options)
