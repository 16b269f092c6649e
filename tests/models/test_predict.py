"""Predictions of rows: probabilities of clicks, and what a selection leaves of a row."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.models.forward import Transformed, forward, init_model
from ihas_jax.models.predict import predictor


@dataclasses.dataclass(frozen=True)
class First:
    """Leaves the first three of the six coordinates, and none of rows whose first is negative."""

    def __call__(self, variables, lookup, key):
        masks = jnp.broadcast_to(jnp.arange(6) < 3, (len(lookup.vectors), 6))
        masks = masks & (lookup.vectors[:, 0, :1] >= 0)
        return Transformed(lookup.vectors * masks.reshape(-1, 3, 2), masks=masks.astype(float))


@pytest.mark.parametrize("transform", [None, First()])
def test_probabilities_are_those_of_the_logits_and_shares_those_of_the_masks(tiny, transform):
    @jax.jit
    def start(key):
        variables = init_model(key, tiny.model)
        return variables, forward(tiny.model, variables, tiny.data.ids, transform).logits

    variables, logits = start(jax.random.key(4))
    logits = np.asarray(logits, float)
    probs, kept = predictor(tiny.model, transform)(variables, tiny.data.ids, title="rows")
    np.testing.assert_allclose(probs, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    if transform is None:
        assert kept is None
    else:
        (table,) = variables.params["tables"]["embedding"].values()
        positive = np.asarray(table)[tiny.data.ids[:, 0], 0] >= 0
        np.testing.assert_array_equal(kept, positive * 0.5)
