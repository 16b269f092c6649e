"""Magnitude: the largest numbers of a trained embedding table, the oldest way of pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.config import Config
from ihas_jax.config.shares import MagnitudeConfig
from ihas_jax.data.dataset import Split
from ihas_jax.models.base import EMBEDDING, Model, Variables
from ihas_jax.models.forward import embed
from ihas_jax.models.streaming import Summed
from ihas_jax.nn.embedding import align
from ihas_jax.selectors.base import Recipe, Selector
from ihas_jax.selectors.budget import fill, numbers_to_keep, require_room
from ihas_jax.selectors.plan import Plan, SearchResult, single
from ihas_jax.selectors.selection import Selection, all_coordinates, mark_largest


def mean_squares(model: Model, variables: Variables, split: Split) -> np.ndarray:
    """Mean square of each coordinate of the looked-up embeddings, `[N, D]` float64.

    This is the squared norm of a column of a field's table, its values weighted by how often the
    rows have them.

    Args:
      model: the click model.
      variables: its variables.
      split: the rows to look up.
    """

    def of_batch(variables: Variables, ids: Array, valid: Array) -> Any:
        vectors = align(model.embedding, embed(model, variables, ids)[0][EMBEDDING])
        return (), jnp.square(vectors * valid[:, None, None]).sum(axis=0)

    _, total = Summed(of_batch)(variables, split.ids, title="[choose] magnitude")
    return np.asarray(total) / len(split.ids)


@dataclass(frozen=True)
class Magnitude(Selector):
    """Trains the click model without gates, and keeps the numbers of the largest absolute value.

    All fields are ranked together, as in Han et al., "Learning both Weights and Connections for
    Efficient Neural Networks", NIPS 2015. As there, retraining starts from the weights that are
    left.

    With `config.structured` whole coordinates are kept, by the root of their mean square over the
    training rows.

    Attributes:
      config: the method's choices.
    """

    config: MagnitudeConfig

    @property
    def recipe(self) -> Recipe:
        """Training with early stopping, then retraining from what is kept."""
        return Recipe(gate_batches="never", initial_weights="searched")

    def choose(self, found: SearchResult) -> Plan:
        """Keeps the largest numbers, or the coordinates of the largest norms."""
        spec, numbers = found.model.embedding, numbers_to_keep(found, self.config.kept)
        if self.config.structured:
            gains = np.sqrt(mean_squares(found.model, found.variables, found.train))
            return single(Selection(fill(gains, spec.sizes, numbers)))
        (table,) = found.variables.params["tables"][EMBEDDING].values()
        mask = mark_largest(np.abs(np.asarray(table)), numbers)
        return single(Selection(all_coordinates(spec), mask=mask))


def build_magnitude(config: Config, model: Model, epoch_steps: int) -> Magnitude:
    """Builds the choice by magnitude.

    Raises:
      InputError: `magnitude.kept` has no room for a coordinate.
    """
    options = config.of(MagnitudeConfig)
    if config.budget is None:
        require_room("magnitude.kept", options.kept, model.embedding)
    return Magnitude(options)
