"""Every method keeps to a budget, whatever its search has found."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ihas_jax.config import Config, ModelConfig
from ihas_jax.config.methods import AutoDimConfig, AutoEmbConfig, OptEmbedConfig, PepConfig
from ihas_jax.config.shares import MagnitudeConfig
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING, SELECTOR, Variables
from ihas_jax.models.forward import init_model
from ihas_jax.nn.axes import identity
from ihas_jax.selectors import METHODS, optembed, sseds, worth
from ihas_jax.selectors.budget import numbers_of
from ihas_jax.selectors.evolution import evolve
from ihas_jax.selectors.plan import SearchResult
from ihas_jax.selectors.registry import build_selector
from ihas_jax.selectors.selection import select_values
from ihas_jax.selectors.usage import Usage, count_values

DIM = 4
CONFIG = Config(
    model=ModelConfig(dim=DIM, hidden=(2,)),
    options=(
        AutoDimConfig(dims=(1, 2, 4)),
        OptEmbedConfig(generations=2, mutants=2, children=2, parents=2),
    ),
)
SERVED = tuple(name for name, method in METHODS.items() if method.serves_searched)
# iHAS fits clusters, see test_clusters
CHOOSING = tuple(name for name in METHODS if name not in SERVED and name != "ihas")
NUMBERS, VALUES = ("pep", "magnitude", "spectral"), ("optfs",)


@pytest.fixture(scope="module", autouse=True)
def scored():
    """Made-up saliency, worth and validation scores, since shapes change with every example."""
    rng = np.random.default_rng(0)

    def saliency(model, variables, split):
        return rng.uniform(size=(len(model.embedding.sizes), model.embedding.dim))

    def find_usage(model, variables, ids, rows, *, turned, curved):
        return Usage(count_values(model.embedding.sizes, ids, rows), None)

    def axes_by(model, variables, usage, *, by, turned):
        axes = identity(model.embedding)
        return axes._replace(importance=rng.uniform(size=axes.importance.shape))

    def make_population_auc(model, split):
        return lambda variables, widths: np.sin(widths.sum(axis=1) * 7.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sseds, "saliency", saliency)
        patch.setattr(worth, "find_usage", find_usage)
        patch.setattr(worth, "axes_by", axes_by)
        patch.setattr(optembed, "make_population_auc", make_population_auc)
        yield


def searched(method, sizes, share, seed=0, config=CONFIG):
    """What a method keeps of random weights and gates, its table and its budget."""
    config = dataclasses.replace(config, method=method, budget=share)
    model, rng = build_model(config.model, sizes), np.random.default_rng(seed)
    selector = build_selector(config, model, 10)
    params = jax.eval_shape(lambda: init_model(jax.random.key(0), model)).params
    table = rng.normal(size=(sum(sizes), model.embedding.dim)).astype(np.float32)
    tables = params["tables"] | {EMBEDDING: {f"width_{model.embedding.dim}": jnp.asarray(table)}}
    gates = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) + 2 * (method == "optembed"),
        jax.eval_shape(selector.init, jax.random.key(0)).gates,
    )
    variables = Variables({"tables": tables, SELECTOR: gates})
    spec, rows = model.embedding, Split(np.zeros((9, len(sizes)), np.int32), np.zeros(9, np.uint8))
    found = SearchResult(
        model, variables, rows, rows, jax.random.key(seed), seed, numbers_of(share, spec)
    )
    (expert,) = selector.choose(found).experts
    return SimpleNamespace(
        selection=expert.selection,
        kept=expert.selection.parameters(spec),
        budget=found.budget,
        spec=spec,
        table=table,
        gates=gates,
    )


@pytest.mark.parametrize("method", CHOOSING)
@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    share=st.floats(0.02, 1),
)
@example(seed=0, sizes=[30, 30, 30], share=0.25)
def test_budgets_are_honoured(method, seed, sizes, share):
    spec = build_model(CONFIG.model, tuple(sizes)).embedding
    if numbers_of(share, spec) < max(min(sizes), DIM):
        with pytest.raises(InputError, match=r"Choose (a (larger )?--budget|fewer clusters)"):
            searched(method, tuple(sizes), share, seed)
        return
    found = searched(method, tuple(sizes), share, seed)
    left = found.budget - found.kept
    assert left >= 0 and found.kept > 0
    if method in NUMBERS:
        assert left == 0
    elif method in VALUES:
        assert left < DIM
    elif method != "uniform":  # nothing more fits
        rows = np.array(found.selection.stored_values(found.spec) or sizes)
        narrow = np.array([len(field) for field in found.selection.kept]) < DIM
        assert (rows[narrow & (rows > 0)] > left).all()


@pytest.mark.parametrize("method", [m for m in CHOOSING if m not in (*NUMBERS, *VALUES)])
def test_98_percent_are_kept_where_fields_are_small(method):
    found = searched(method, (90, 40, 70, 20, 1, 6, 55, 33), 0.31)
    assert 0.98 * found.budget <= found.kept <= found.budget


def test_pep_keeps_the_largest_margins_to_the_number():
    found = searched("pep", (5, 7), 0.3)
    margins = np.abs(found.table) - 1 / (1 + np.exp(-found.gates["thresholds"]))
    smallest = np.sort(margins, axis=None)[-14]  # of 48 * 0.3 = 14.4
    np.testing.assert_array_equal(found.selection.mask, margins >= smallest)


def test_the_search_of_pep_stops_at_the_budget(tiny):
    config = dataclasses.replace(tiny.config, method="pep", budget=0.3)
    config = config.having(PepConfig(kept=0.7))
    assert build_selector(config, tiny.model, 5).recipe.stop_at_share == 0.3


def test_optfs_keeps_the_values_of_the_largest_gates():
    found = searched("optfs", (5, 7), 0.3)
    gates = found.gates["gates"][:, 0]  # 14 numbers are three values of 4
    np.testing.assert_array_equal(found.selection.values, gates >= np.sort(gates)[-3])


def test_autofield_keeps_the_last_field_in_part():
    found = searched("autofield", (10, 10, 10), 0.5)
    order = np.argsort(-found.gates["alpha"][:, 1])
    widths = [len(field) for field in found.selection.kept]
    assert [widths[n] for n in order] == [4, 2, 0]


def test_autodim_keeps_prefixes_by_the_probability_of_larger_sizes():
    found = searched("autodim", (10, 10, 10), 0.5)
    weights = np.exp(found.gates["alpha"])
    weights /= weights.sum(axis=1, keepdims=True)
    # sizes 1, 2, 4: coordinates 0, 1, 2 and 3 belong to all, the last two, and the last one
    gains = np.stack([np.ones(3), weights[:, 1:].sum(axis=1), weights[:, 2], weights[:, 2]], 1)
    best = np.sort(np.argsort(-gains, axis=None, kind="stable")[:6])
    assert [n * 4 + j for n, field in enumerate(found.selection.kept) for j in field] == [*best]
    assert all(field == tuple(range(len(field))) for field in found.selection.kept)


def test_a_size_does_not_count_for_the_coordinate_after_its_last():
    """One field surely has one coordinate, the other two; three are kept."""
    config = dataclasses.replace(CONFIG, method="autodim")
    model = build_model(CONFIG.model, (10, 10))
    alpha = jnp.array([[9.0, 0, 0], [0, 9, 0]])
    found = SearchResult(
        model, Variables({SELECTOR: {"alpha": alpha}}), None, None, jax.random.key(0), 0, 30
    )
    (expert,) = build_selector(config, model, 10).choose(found).experts
    assert expert.selection.kept == ((0,), (0, 1))


def test_dimreg_keeps_the_largest_gates():
    found = searched("dimreg", (10, 10, 10), 0.5)
    best = np.sort(np.argsort(-found.gates["theta"])[:6])
    assert [n * 4 + j for n, field in enumerate(found.selection.kept) for j in field] == [*best]


def test_optembed_has_values_enough_to_fill_the_budget():
    """Thresholds that no value reaches would leave one value, of four numbers."""
    config = dataclasses.replace(CONFIG, method="optembed", budget=0.5)
    model = build_model(CONFIG.model, (12, 8))
    table = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    params = {
        "tables": {EMBEDDING: {"width_4": jnp.asarray(table)}},
        SELECTOR: {"thresholds": jnp.full((2, 1), 99.0)},
    }
    found = SearchResult(model, Variables(params), None, None, jax.random.key(0), 0, 40)
    (expert,) = build_selector(config, model, 10).choose(found).experts
    norms = np.abs(table).sum(axis=1)
    values = norms >= np.sort(norms)[-10]
    assert expert.selection.kept == select_values(values, model.embedding).kept
    np.testing.assert_array_equal(expert.selection.values, values)
    assert expert.selection.parameters(model.embedding) == 40


def test_an_evolution_scores_what_was_repaired():
    seen = []

    def evaluate(widths):
        seen.append(widths)
        return widths[:, 0].astype(float)

    config = OptEmbedConfig(generations=3, mutants=3, children=3, parents=2)
    best, _ = evolve(jax.random.key(0), evaluate, 5, 8, config, lambda widths: widths // 2)
    assert np.concatenate(seen).max() <= 4 and best.max() <= 4
    none = dataclasses.replace(config, generations=0)
    assert (
        evolve(jax.random.key(0), evaluate, 5, 8, none, lambda w: w // 2).widths.tolist() == [4] * 5
    )


@pytest.mark.parametrize("method", SERVED)
def test_methods_that_serve_their_searched_model_are_refused(tiny, method):
    config = dataclasses.replace(tiny.config, method=method, budget=0.5)
    config = config.having(AutoEmbConfig(dims=(2,)))
    with pytest.raises(InputError, match=rf"{method} serves its searched .* smaller --model.dim"):
        build_selector(config, tiny.model, 5)


def test_each_cluster_of_ihas_needs_room(tiny):
    config = dataclasses.replace(tiny.config, budget=0.3)  # 7 numbers of 24, 3 for each of two
    build_selector(config, tiny.model, 5)
    config = dataclasses.replace(tiny.config, budget=0.2)
    with pytest.raises(InputError, match=r"--budget 0.2 is 2 numbers .* each of 2 models"):
        build_selector(config, tiny.model, 5)


def test_structured_magnitude_fills_the_budget(monkeypatch):
    config = CONFIG.having(MagnitudeConfig(structured=True))
    rng = np.random.default_rng(0)
    monkeypatch.setattr(
        "ihas_jax.selectors.magnitude.mean_squares", lambda *_: rng.uniform(size=(4, DIM))
    )
    found = searched("magnitude", (90, 40, 70, 20), 0.4, config=config)
    assert found.selection.mask is None
    assert 0.98 * found.budget <= found.kept <= found.budget
