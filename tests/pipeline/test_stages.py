"""What the stages of several runs hand to each other, with the work of each replaced."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ihas_jax.config import ModelConfig, RetrainConfig
from ihas_jax.pipeline import stages as module
from ihas_jax.pipeline.stages import Stages
from ihas_jax.selectors.plan import Expert, Plan
from ihas_jax.selectors.selection import Selection
from ihas_jax.stages.evaluate import Evaluation


def trained(name, seconds=0.0):
    return SimpleNamespace(history=[name], seconds=seconds)


@pytest.fixture
def done(tmp_path, monkeypatch):
    """All stages of two runs, the second of which is by another search, and their effects."""
    runs = [
        SimpleNamespace(
            workdir=tmp_path / name,
            selector="gates",
            searched_by=searched,
            config=SimpleNamespace(
                method="ihas", model=ModelConfig(name="fm"), retrain=RetrainConfig()
            ),
        )
        for name, searched in (("a", None), ("b", ModelConfig(name="dnn")))
    ]
    kept = Selection(((0,),))
    plan = Plan((Expert(kept, "cluster_0"), Expert(kept, "all")), (0, 1), (None, "it is small"))
    saved, published, retrained = [], [], []

    def retrain(run, plan, search):
        retrained.append((run.workdir.name, plan.facts, search))
        return plan, [trained("first", 1e3), trained("second", 2e3)]

    def evaluate(run, base, search, plan, models):
        return Evaluation({"base": {}, "search": {}, "ihas": {}}, f"bundle {run.workdir.name}", {})

    def chosen(run, search):
        return Plan(plan.experts, plan.routes, plan.reasons, facts=run.workdir.name), 3.0

    found = {
        name: SimpleNamespace(
            rewound=None, searched=trained(f"search {name}"), steps=(), seconds=5e3
        )
        for name in ("a", "b")
    }
    for name, work in {
        "train_base": lambda runs: [trained("base", 1e3), trained("base", 4e3)],
        "search": lambda runs: [found[run.workdir.name] for run in runs],
        "choose": chosen,
        "retrain": retrain,
        "evaluate": evaluate,
        "save_bundle": lambda bundle, path, replace: saved.append((bundle, path)),
        "publish": lambda run, *given: published.append(given),
    }.items():
        monkeypatch.setattr(module, name, work)
    seconds = {name: stage.work() for name, stage in Stages(runs).stages.items()}
    return SimpleNamespace(
        seconds=seconds, saved=saved, published=published, retrained=retrained, found=found,
        folder=tmp_path,
    )  # fmt: skip


def test_every_run_is_retrained_and_evaluated_by_its_own_search_and_plan(done):
    assert done.retrained == [(name, name, done.found[name]) for name in ("a", "b")]
    assert done.saved == [(f"bundle {n}", done.folder / n / "bundle") for n in ("a", "b")]
    for name, (_, histories, _) in zip(("a", "b"), done.published, strict=True):
        assert histories == {
            "base": ["base"],
            "search": [f"search {name}"],
            "retrain cluster_0": ["first"],
            "retrain all": ["second"],
        }


def test_seconds_are_those_of_the_longest_of_all_or_the_sum_of_one(done):
    assert list(done.seconds) == ["base", "search", "choose", "retrain", "evaluate"]
    assert done.seconds["base"] == [4e3, 4e3] and done.seconds["search"] == [5e3, 5e3]
    assert done.seconds["choose"] == [3.0, 3.0]
    assert done.seconds["retrain"] == [3e3, 3e3]


def test_metrics_name_the_model_that_was_searched(done):
    models = [metrics["models"] for metrics, *_ in done.published]
    assert models == [
        {"base": "fm", "search": "fm", "ihas": "fm"},
        {"base": "fm", "search": "dnn", "ihas": "fm"},
    ]
