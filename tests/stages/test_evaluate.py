"""What evaluation makes of trained models: bundles, their sizes, their scores."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import ClusterConfig
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.schema import Field, Schema
from ihas_jax.errors import InputError
from ihas_jax.models.base import SELECTOR, Variables
from ihas_jax.models.forward import init_model
from ihas_jax.selectors.plan import SERVE_SEARCHED, Expert, Plan
from ihas_jax.selectors.selection import Selection
from ihas_jax.serving.bundle import Bundle, Served
from ihas_jax.stages import bundles, evaluate
from ihas_jax.stages.run import Run

KEPT = (((0,), (1,), ()), ((0, 1), (), (0, 1)))
CENTROIDS = np.array([[9.0] * 6, [0.0] * 6], np.float32)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    fields = tuple(
        Field(f"f{n}", tuple("abcdefg"[: size - 1])) for n, size in enumerate(tiny.sizes)
    )
    split = Split(np.asarray(tiny.data.ids), np.asarray(tiny.data.labels))
    data = Dataset(Schema("label", fields), split, split, split)
    config = tiny.config.having(ClusterConfig(clusters=2))
    return Run(config, data, tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def search(run):
    """A search with random weights."""
    params, stats, constants = init_model(jax.random.key(0), run.model)
    gates = run.selector.init(jax.random.key(1)).gates
    variables = Variables(params | {SELECTOR: gates}, stats, constants)
    searched = SimpleNamespace(history=[{}, {}, {}])  # of three epochs
    return SimpleNamespace(variables=variables, searched=searched, steps=())


@pytest.fixture(scope="module")
def plan():
    experts = tuple(Expert(Selection(kept), f"cluster_{c}") for c, kept in enumerate(KEPT))
    return Plan(experts, (1, 0), (None, None), CENTROIDS, (0.25, 0.75))


@pytest.fixture(scope="module")
def retrained(run, plan):
    models = [run.expert_model(expert) for expert in plan.experts]
    return [
        SimpleNamespace(variables=init_model(jax.random.key(c), model))
        for c, model in enumerate(models)
    ]


def mlp(inputs):
    """Weights and biases of an MLP of one hidden layer of 4."""
    return inputs * 4 + 4 + 4 + 1


def test_sizes_are_those_of_models_and_router_by_formula(run, search, plan, retrained):
    bundle = bundles.outcome_bundle(run, search, plan, retrained)
    # five values of width 1 and three; five of width 2 and four
    first, second = 5 + 3 + mlp(2), 2 * (5 + 4) + mlp(4)
    assert [served.parameters for served in bundle.models] == [first, second]
    assert bundle.parameters == first + second
    assert bundle.routes == plan.routes
    tables, gates, centroids = 2 * (5 + 3 + 4), 6 * 6 + 6, 2 * 6
    assert bundle.router_parameters == tables + gates + centroids
    assert bundle.bytes == 4 * (first + second + tables + gates + centroids)
    base = bundles.base_bundle(run, retrained[0])
    assert base.router_parameters == 0


def test_one_model_needs_no_router(run, search, plan, retrained):
    alone = dataclasses.replace(plan, experts=plan.experts[:1], routes=(0, 0))
    bundle = bundles.outcome_bundle(run, search, alone, retrained[:1])
    assert bundle.router is not None and bundle.router_parameters == 0


def test_what_a_mask_or_values_remove_is_not_counted(run):
    mask = np.ones((12, 2), bool)
    mask[:3] = False
    values = np.arange(12) % 2 == 0
    for selection, numbers in (
        (Selection(((0, 1),) * 3, mask=mask), 18),
        (Selection(((0, 1),) * 3, values=values), 12),
    ):
        expert = Expert(selection)
        variables = init_model(jax.random.key(0), run.expert_model(expert))
        constants = jax.tree.map(
            jnp.asarray, selection.constants(run.expert_model(expert).embedding)
        )
        trained = SimpleNamespace(variables=variables._replace(constants=constants))
        served = bundles._compact(run, expert, trained)
        assert served.parameters == numbers + mlp(6)
        (table,) = served.variables.params["tables"]["embedding"].values()
        assert np.count_nonzero(table) == numbers and not served.variables.constants.get("factors")
        assert served.bytes == 4 * mlp(6) + selection.bytes(run.model.embedding)


class Number(Served):
    """A model that predicts its own number."""

    def begin(self, ids, *, title, rows=None):
        probs = np.full(len(ids if rows is None else rows), self.bytes)
        return lambda: SimpleNamespace(probs=probs, kept=None)


def test_each_row_gets_the_model_of_its_cluster(run):
    models = tuple(Number(None, None, 0, number) for number in (10, 20, 30))
    bundle = Bundle(run.config, run.config.model, run.data.schema, models, (2, 0, 1))
    clusters = np.array([0, 1, 2, 2, 0, 1])
    found = bundle.predict_assigned(np.zeros((6, 3), np.int32), clusters)
    np.testing.assert_array_equal(found, [30, 10, 20, 20, 30, 10])


def test_metrics_describe_each_cluster_by_its_own_model(run, search, plan, retrained):
    base = retrained_base = SimpleNamespace(variables=init_model(jax.random.key(5), run.model))
    found = evaluate.evaluate(run, base, search, plan, retrained)
    metrics, bundle = found.metrics, found.bundle
    beside = {"gain", "microseconds"}
    assert set(metrics) == {"base", "search", "ihas", "clusters", "gates"} | beside
    assert metrics["gain"]["auc"] == metrics["ihas"]["auc"] - metrics["base"]["auc"]
    assert metrics["microseconds"].keys() == {"base", "ihas", "ratio", "turns"}
    assert metrics["search"]["gate_updates"] == 3 * run.epoch_steps // run.config.search.gate_every
    assert 0 <= metrics["search"]["differ"] <= 0.5
    probs, clusters = bundle.predict_ids(run.data.test.ids), bundle.assign(run.data.test.ids)
    assert (clusters == 1).all()  # by far the nearest of small embeddings is the centroid at 0
    assert 0 < metrics["search"]["kept"] < 1
    for c, (cluster, route) in enumerate(zip(metrics["clusters"], plan.routes, strict=True)):
        widths = [len(kept) for kept in KEPT[route]]
        assert list(cluster["widths"].values()) == widths
        assert cluster["kept"] == sum(widths) / 6
        assert (cluster["share"], cluster["model"]) == (plan.shares[c], f"cluster_{route}")
        rows = int((clusters == c).sum())
        assert (cluster["test"] or {"rows": 0})["rows"] == rows
    labels = run.data.test.labels
    logloss = -np.mean(np.where(labels == 1, np.log(probs), np.log1p(-probs)))
    assert metrics["ihas"]["logloss"] == pytest.approx(logloss, rel=1e-5)
    assert metrics["ihas"]["router_parameters"] == bundle.router_parameters > 0
    sizes = run.data.schema.sizes
    kept = sum(
        size * len(field) for model in KEPT for size, field in zip(sizes, model, strict=True)
    )
    assert metrics["ihas"]["table_share"] == kept / (2 * sum(sizes))
    assert found.shown["probs"].shape == (40, 6)
    assert evaluate.evaluate_base(run, retrained_base).metrics["base"] == metrics["base"]


def test_a_plan_without_experts_serves_the_searched_model(run, search):
    base = SimpleNamespace(variables=init_model(jax.random.key(5), run.model))
    metrics, bundle, _ = evaluate.evaluate(run, base, search, SERVE_SEARCHED, [])
    assert set(metrics) == {"base", "ihas", "gain", "microseconds"}
    assert 0 < metrics["ihas"]["kept"] < 1
    (served,) = bundle.models
    assert served.transform is not None and served.variables is search.variables


def test_a_model_that_diverged_is_named(run):
    params, stats, constants = init_model(jax.random.key(0), run.model)
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    trained = SimpleNamespace(variables=Variables(broken, stats, constants))
    words = "'base' can't be scored .* The prediction in row 0 is nan.*--optimizer.learning-rate"
    with pytest.raises(InputError, match=words):
        evaluate.evaluate_base(run, trained)
