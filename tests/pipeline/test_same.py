"""Options that matter to a method's choice alone: runs that differ in them have one search."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from ihas_jax.config import (
    Config,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.config.methods import AutoDimConfig
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.flags import option_kinds, replaced
from ihas_jax.pipeline.about import About
from ihas_jax.pipeline.same import same_stages
from ihas_jax.selectors.base import Recipe, Selector
from ihas_jax.selectors.registry import METHODS, Method, register_method
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import search

PLAIN = Config(
    model=ModelConfig(dim=4, hidden=(8,)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=1),
    search=SearchConfig(pretrain_epochs=1, gate_every=2),
    options=(AutoDimConfig(dims=(2, 4)),),
)
OTHER = {
    "autofield": {"fields": 1},
    "optembed": {"generations": 3, "mutants": 2, "children": 2, "parents": 3, "mutation": 0.9},
    "sseds": {"kept": 0.2},
    "spectral": {"kept": 0.4, "cut": "axes", "clusters": 2, "by": "weights"},
    "uniform": {"dim": 3},
    "mixed": {"alpha": 0.9, "kept": 0.6},
    "magnitude": {"kept": 0.6, "structured": True},
    "random": {"kept": 0.6},
    "cluster": {
        "clusters": 3,
        "batch_rows": 64,
        "starts": 2,
        "segment_rows": 50,
        "max_passes": 2,
        "tolerance": 0.1,
        "router": "compiled",
        "min_agreement": 0.4,
        "majority": 0.1,
        "min_rows": 7,
        "cut": "axes",
        "axes": "own",
    },
}
"""Another value of every option that is said to matter to the choice alone."""
CHOOSING = [m for m, known in METHODS.items() if any(kind.choice for kind in known.options)]


@pytest.fixture(scope="module")
def log():
    return synthetic(SyntheticConfig(rows=900, own=2, noise=2, values=20))


def changed(config):
    """A config of a method with other values of all options that matter to its choice alone."""
    for kind in METHODS[config.method].options:
        for name in kind.choice:
            config = replaced(config, f"{kind.flag}.{name}", OTHER[kind.flag][name])
    return config


def test_every_such_option_has_another_value():
    named = {flag: {*kind.choice} for flag, kind in option_kinds().items() if kind.choice}
    assert named == {flag: {*values} for flag, values in OTHER.items()}
    config = Config()
    for flag, values in OTHER.items():
        for name, value in values.items():
            assert getattr(config.of(option_kinds()[flag]), name) != value
    assert {*CHOOSING} == {*OTHER, "ihas"} - {"cluster"}


@pytest.mark.parametrize("method", CHOOSING)
def test_the_searched_model_does_not_depend_on_them(log, tmp_path, method):
    config = dataclasses.replace(PLAIN, method=method)
    old, new = (Run(c, log, tmp_path / n) for n, c in (("old", config), ("new", changed(config))))
    assert old.config != new.config
    found = [search([run])[0] for run in (old, new)]
    assert any(one.pretrained.history or one.searched.history for one in found)
    pretrained, searched = ([getattr(one, name).variables for one in found] for name in STAGES)
    jax.tree.map(np.testing.assert_array_equal, *pretrained)
    jax.tree.map(np.testing.assert_array_equal, *searched)
    assert "search" in same_stages(About(config, "data", None), new)


STAGES = ("pretrained", "searched")


@dataclasses.dataclass(frozen=True)
class OwnConfig(MethodConfig):
    flag = "own"
    choice = ("kept",)
    kept: float = 0.5
    kept_most: float = 0.5


@dataclasses.dataclass(frozen=True)
class Own(Selector):
    cuts: tuple[float, ...] = ()

    @property
    def recipe(self):
        return Recipe(gate_batches="never", cuts=self.cuts)

    def choose(self, found):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("cuts", "flag", "value", "same"),
    [
        ((), "own.kept", 0.25, True),
        ((), "own.kept_most", 0.25, False),  # whose name begins alike
        ((0.5,), "own.kept", 0.25, False),  # steps of the search may cut by it
        ((0.5,), "budget", 0.25, True),
        ((), "cluster.clusters", 3, False),  # which is no option of the method
    ],
)
def test_a_method_from_outside_says_so_too(log, tmp_path, cuts, flag, value, same):
    register_method("own", Method("Own", lambda *_: Own(cuts), (OwnConfig,)))
    config = dataclasses.replace(PLAIN, method="own")
    run = Run(replaced(config, flag, value), log, tmp_path)
    assert ("search" in same_stages(About(config, "data", None), run)) == same
