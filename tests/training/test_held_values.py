"""A model whose removed values have no rows learns what its full-size twin learns under a mask."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import ModelConfig, OptimizerConfig
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING, FACTORS
from ihas_jax.models.cut import cut_network
from ihas_jax.models.forward import predict
from ihas_jax.nn.compact import slice_table
from ihas_jax.selectors.selection import select_values
from ihas_jax.training.rounds import make_round
from ihas_jax.training.steps import Batch, init_train, make_step, model_optimizers

SIZES = (5, 3, 40)
VALUES = np.random.default_rng(0).integers(2, size=sum(SIZES)).astype(bool)
IDS = np.stack([np.random.default_rng(1).integers(n, size=32) for n in SIZES], 1).astype(np.int32)
DATA = Batch(IDS, np.random.default_rng(2).integers(2, size=32).astype(np.uint8))
ROWS = np.arange(32).reshape(4, 8)
pytestmark = pytest.mark.usefixtures("float64")


def started(state, tables, network, constants, optimizer):
    params = {"tables": tables, "network": network}
    optimizers = {n: o.init(params[n]) for n, o in model_optimizers(optimizer).items()}
    return dataclasses.replace(state, params=params, constants=constants, optimizers=optimizers)


@pytest.mark.parametrize("tables", ["dense", "rowwise"])
@pytest.mark.parametrize(
    ("name", "kept"), [("deepfm", ((0, 1), (1,), (0, 1))), ("ffm", None), ("lr", None)]
)
def test_it_learns_what_its_masked_twin_learns(name, kept, tables):
    config = ModelConfig(name, dim=2, hidden=(4,), linear_init="normal")
    optimizer = OptimizerConfig(learning_rate=0.1, l2=0.01, tables=tables)
    full = build_model(config, SIZES)
    selection = select_values(VALUES, full.embedding, kept, scale=1.5)
    held = selection.stored_values(full.embedding)
    model = build_model(config, SIZES, kept=selection.kept, stored_values=held)
    fresh = jax.jit(lambda key: init_train(key, full, optimizer))(jax.random.key(0))
    twin_params = fresh.params["tables"], fresh.params["network"]
    compact = jax.jit(lambda key: init_train(key, model, optimizer))(jax.random.key(0))

    # the twin has all rows and coordinates, and factors of 0 for those removed
    chosen = np.zeros((len(SIZES), full.embedding.dim))
    for n, field in enumerate(selection.kept):
        chosen[n, list(field)] = 1
    mask = 1.5 * np.repeat(chosen, SIZES, axis=0) * VALUES[:, None]
    (group,) = fresh.params["tables"][EMBEDDING]
    twin = started(fresh, *twin_params, {FACTORS: {group: mask}}, optimizer)

    own = {
        table: slice_table(
            full.tables[table], part, model.tables[table], VALUES if table == EMBEDDING else None
        )
        for table, part in twin_params[0].items()
    }
    network = cut_network(full, model, twin_params[1], compact.params["network"])
    constants = selection.constants(model.embedding)
    ours = started(compact, own, network, constants, optimizer)
    ours = dataclasses.replace(ours, keys=twin.keys)

    def trained(model, state):
        state, metrics = make_round(make_step(model, model_optimizers(optimizer)))(
            state, jax.tree.map(jnp.asarray, DATA), ROWS
        )
        return predict(model, state.variables, IDS), metrics["loss"], state

    probs, loss, state = jax.jit(lambda s: trained(model, s))(ours)
    expected, expected_loss, _ = jax.jit(lambda s: trained(full, s))(twin)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    np.testing.assert_allclose(probs, expected, rtol=1e-5)
    for part in state.params["tables"][EMBEDDING].values():
        assert not part[0].any() and part[1:].any()
