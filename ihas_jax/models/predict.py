"""Click probabilities of any number of rows."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
from jax import Array

from ihas_jax.models.base import Model, Variables
from ihas_jax.models.forward import Transform, forward
from ihas_jax.models.prior import split_prior
from ihas_jax.models.streaming import Streamed


class Prediction(NamedTuple):
    """Predictions of rows.

    Attributes:
      probs: `[n]` click probabilities.
      kept: `[n]` share of the coordinates that a selection keeps; None without a selection.
    """

    probs: Any
    kept: Any


def predictor(model: Model, transform: Transform | None = None) -> Streamed:
    """A program from `(variables, ids [n, N])` to a `Prediction`.

    It is compiled once per model and transform, however often they are trained and evaluated, and
    whatever their prior.
    """
    return _predictor(split_prior(model)[0], transform)


@lru_cache(maxsize=64)
def _predictor(model: Model, transform: Transform | None) -> Streamed:
    def batch(variables: Variables, ids: Array) -> Prediction:
        output = forward(model, variables, ids, transform, by_field=True)
        kept = None if output.masks is None else output.masks.mean(axis=1)
        return Prediction(jax.nn.sigmoid(output.logits), kept)

    return Streamed(batch)
