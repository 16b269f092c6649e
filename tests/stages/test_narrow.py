"""Cuts in steps of a method that has gates, as one from outside may."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import Config, ModelConfig, SearchConfig, TrainConfig
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.errors import InputError
from ihas_jax.models.forward import Transformed
from ihas_jax.selectors.base import Recipe, Selector, Weights, weights_of
from ihas_jax.selectors.plan import SERVE_SEARCHED, single
from ihas_jax.selectors.selection import Selection
from ihas_jax.stages.choose import choose
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import search


@dataclass(frozen=True)
class Scaled(Selector):
    """A factor for each field, learnt on training batches; half of the coordinates are kept."""

    @property
    def recipe(self):
        return Recipe("training", epochs=1, initial_weights="searched", cuts=(0.5,))

    def init(self, key):
        return Weights({"scale": jnp.ones((4, 1))}, stats={"steps": jnp.zeros(())})

    def sample(self, weights, lookup, key):
        stats = {"steps": weights.stats["steps"] + 1}
        return Transformed(lookup.vectors * weights.gates["scale"], stats=stats)

    def choose(self, found):
        half = found.budget // (found.model.embedding.parameters // found.model.embedding.dim)
        seen.append((found.budget, weights_of(found.variables)))
        return single(Selection((tuple(range(half)),) * 4, scale=2.0))


seen = []


@pytest.fixture
def run(tmp_path):
    log = synthetic(SyntheticConfig(rows=400, context=1, own=1, noise=0, values=5))
    config = Config(
        method="ihas",
        model=ModelConfig(dim=4, hidden=(4,)),
        train=TrainConfig(batch_size=100, round_batches=2, max_epochs=1),
        search=SearchConfig(pretrain_epochs=0),
        budget=0.25,
    )
    run = Run(config, log, tmp_path)
    vars(run)["selector"] = Scaled()
    return run


def test_gates_stay_as_the_search_left_them(run):
    seen.clear()
    assert len(run.model.embedding.sizes) == 4
    (found,) = search([run])
    choose(run, found)
    before, after = (weights for _, weights in seen)
    table = run.model.embedding.parameters
    assert [budget for budget, _ in seen] == [table // 2, table // 4]
    assert before.gates["scale"].min() != 1
    np.testing.assert_array_equal(after.gates["scale"], before.gates["scale"])
    assert after.stats["steps"] == before.stats["steps"] > 0
    (step,) = found.steps
    assert step.share == 0.5 and step.selection.kept == ((0, 1),) * 4
    (kept,) = found.variables.params["tables"]["embedding"].values()
    (whole,) = found.searched.variables.params["tables"]["embedding"].values()
    assert not kept[:, 2:].any() and np.count_nonzero(kept) == table // 2
    assert step.trained.history[0]["epoch"] == -1
    assert np.abs(kept[:, :2] / whole[:, :2] - 2).max() < 1  # the start has the scale


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (SERVE_SEARCHED, "has 0 models, .* a method narrow"),
        (single(Selection(((0, 1, 2, 3),) * 4)), "keeps .* more than the .* of its share"),
    ],
)
def test_a_step_needs_one_choice_within_its_share(run, monkeypatch, chosen, words):
    monkeypatch.setattr(Scaled, "choose", lambda self, found: chosen)
    with pytest.raises(InputError, match=words):
        search([run])
    assert not (run.workdir / "search" / "plan_0").exists()


@pytest.mark.parametrize("cuts", [(0.3, 0.5), (1.5,), (0.5, 0.5), (0.5, 0.0)])
def test_cuts_are_falling_shares(cuts):
    with pytest.raises(InputError, match=r"Recipe\.cuts must be falling shares"):
        Recipe("never", cuts=cuts)
