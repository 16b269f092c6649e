"""Spectral: the axes that it cuts, what it keeps of them, and what it starts from."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import ClusterConfig, Config, ModelConfig
from ihas_jax.config.shares import SpectralConfig
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING
from ihas_jax.models.forward import init_model
from ihas_jax.nn.axes import moments, single_precision, turn_table, worth_of_numbers
from ihas_jax.selectors.axes import find_axes
from ihas_jax.selectors.budget import fill
from ihas_jax.selectors.plan import SearchResult
from ihas_jax.selectors.selection import select_numbers
from ihas_jax.selectors.spectral import Spectral, build_spectral
from ihas_jax.selectors.usage import count_values
from ihas_jax.selectors.worth import axis_gains, best_expert

SIZES = (12, 30, 5)
MODEL = build_model(ModelConfig(dim=4, hidden=(6,)), SIZES)


@pytest.fixture(scope="module")
def found():
    """A DNN with tables of rank 2, and rows for it."""
    model = build_model(ModelConfig(dim=4, hidden=(6,)), SIZES)
    variables = init_model(jax.random.key(0), model)
    rng = np.random.default_rng(1)
    table = np.concatenate(
        [rng.normal(size=(size, 2)) @ rng.normal(size=(2, 4)) for size in SIZES]
    ).astype(np.float32)
    tables = {EMBEDDING: {"width_4": jnp.asarray(table)}}
    variables = variables._replace(params=variables.params | {"tables": tables})
    ids = np.stack([rng.integers(size, size=300) for size in SIZES], axis=1).astype(np.int32)
    split = Split(ids, rng.integers(2, size=300).astype(np.uint8))
    return SearchResult(model, variables, split, split, jax.random.key(2), 0)


def chosen(found, budget=None, **options):
    selector = Spectral(SpectralConfig(**options), ClusterConfig())
    return selector.choose(found._replace(budget=budget)), selector


def test_the_recipe_trains_without_gates_and_retrains_from_what_is_found(found):
    recipe = chosen(found)[1].recipe
    assert (recipe.gate_batches, recipe.initial_weights) == ("never", "searched")


def test_whole_axes_are_the_first_ones_of_each_field(found):
    plan, _ = chosen(found, budget=2 * sum(SIZES), cut="axes")
    (expert,) = plan.experts
    assert expert.selection.kept == ((0, 1), (0, 1), (0, 1))  # the others are worth nothing
    assert expert.selection.mask is None
    assert plan.facts["worth"] == pytest.approx(1.0, abs=1e-9)
    assert all(part.dtype == np.float32 for part in expert.axes)


def test_numbers_are_those_of_the_largest_worth(found):
    plan, _ = chosen(found, budget=40)
    (expert,) = plan.experts
    axes = find_axes(found.model, found.variables, found.train.ids)
    spec = found.model.embedding
    turned = np.asarray(
        turn_table(spec, found.variables.params["tables"][EMBEDDING], axes)["width_4"]
    )
    counts = np.concatenate(
        [np.bincount(found.train.ids[:, n], minlength=s) for n, s in enumerate(SIZES)]
    )
    starts = np.cumsum((0, *SIZES))
    worth = np.zeros_like(turned, np.float64)
    for n in range(3):
        part = slice(starts[n], starts[n + 1])
        squares = counts[part, None] * turned[part].astype(float) ** 2
        worth[part] = axes.importance[n, 0] * squares / squares.sum(axis=0)
    least = np.sort(worth.ravel())[-40]
    np.testing.assert_array_equal(expert.selection.mask, worth >= least)
    assert plan.facts["worth"] == pytest.approx(worth[worth >= least].sum() / worth.sum())
    # axes that keep no number are no columns of the table
    assert all(max(field, default=0) < 2 for field in expert.selection.kept)
    assert expert.selection.parameters(spec) == 40


def test_the_worth_of_numbers_adds_up_to_that_of_their_axis(found):
    spec, axes = found.model.embedding, find_axes(found.model, found.variables, found.train.ids)
    table = turn_table(spec, found.variables.params["tables"][EMBEDDING], axes)
    counts = count_values(SIZES, found.train.ids)
    worth = worth_of_numbers(spec, table, counts, axes)
    sums = np.stack([part.sum(axis=0) for part in np.split(worth, np.cumsum(SIZES)[:-1])])
    second = moments(spec, table, counts).about(np.zeros((3, 1, 4)))
    occurs = np.einsum("nmii->nmi", second)[:, 0] > 0
    np.testing.assert_allclose(sums, axes.importance[:, 0] * occurs, rtol=1e-6)


def test_values_that_never_occur_are_worth_nothing(found):
    ids = np.minimum(found.train.ids, np.array(SIZES) - 2)
    plan, _ = chosen(found._replace(train=Split(ids, found.train.labels)), budget=60)
    mask = plan.experts[0].selection.mask
    assert mask.sum() == 60 and not mask[np.cumsum(SIZES) - 1].any()


@pytest.mark.parametrize("numbers", [46, 47, 94])
def test_the_first_axis_of_every_field_goes_first_where_there_is_room(numbers):
    importance = np.array([[9.0, 8, 7, 6], [1, 1, 0, 0], [5, 5, 5, 5]])
    gains = axis_gains(importance, SIZES, numbers)
    rooted = importance * np.sqrt(SIZES)[:, None]
    if numbers < 47:
        np.testing.assert_allclose(gains, rooted)
    else:
        np.testing.assert_allclose(gains[:, 1:], rooted[:, 1:])
        # even per number every first one comes before all others
        assert (gains[:, 0] / SIZES).min() > (gains[:, 1:] / np.array(SIZES)[:, None]).max()


@pytest.mark.parametrize(
    ("importance", "sizes"),
    [
        ([[9, 8], [9, 0.1]], (4, 100_000)),
        ([[9] + [8] * 15, [9] + [0] * 15, [1] + [0] * 15], (7, 6040, 3706)),
        ([[0, 0], [0, 0]], (3, 9)),
    ],
)
def test_a_small_field_with_good_axes_does_not_take_the_first_one_of_another(importance, sizes):
    budget = sum(sizes)  # exactly the first axes
    kept = fill(axis_gains(np.array(importance, float), sizes, budget), sizes, budget)
    assert kept == ((0,),) * len(sizes)


def test_a_model_that_can_not_be_turned_keeps_its_coordinates(found, caplog):
    caplog.set_level("INFO")
    model = build_model(ModelConfig("gdcn", dim=4, hidden=(6,)), SIZES)
    variables = init_model(jax.random.key(0), model)
    plan, _ = chosen(found._replace(model=model, variables=variables), budget=60)
    assert plan.experts[0].axes is None
    assert plan.experts[0].selection.parameters(model.embedding) == 60
    assert "The embeddings keep their own coordinates, since" in caplog.text


def test_without_a_budget_the_share_of_the_option_is_kept(found):
    plan, _ = chosen(found, kept=0.5)
    assert plan.experts[0].selection.parameters(found.model.embedding) == 2 * sum(SIZES)
    config = Config(method="spectral").having(SpectralConfig(kept=0.01))
    with pytest.raises(InputError, match=r"--spectral.kept 0.01 is 1 numbers"):
        build_spectral(config, found.model, 1)
    build_spectral(dataclasses.replace(config, budget=0.5), found.model, 1)


def test_a_step_turns_the_model_and_leaves_its_budget(found):
    selector = Spectral(SpectralConfig(steps=(0.5,)), ClusterConfig())
    assert selector.recipe.cuts == (0.5,)
    narrowed = selector.narrow(found._replace(budget=60))
    plan, _ = chosen(found, budget=60)
    factors = narrowed.selection.factors(found.model.embedding)
    np.testing.assert_array_equal(factors == 1, plan.experts[0].selection.mask)
    assert set(np.unique(factors)) == {0, 1}
    axes = find_axes(found.model, found.variables, found.train.ids)
    jax.tree.map(np.testing.assert_array_equal, narrowed.axes, single_precision(axes))
    by_axes = Spectral(SpectralConfig(cut="axes"), ClusterConfig())
    factors = by_axes.narrow(found._replace(budget=94)).selection.factors(found.model.embedding)
    np.testing.assert_array_equal(factors, np.tile([1, 1, 0, 0], (sum(SIZES), 1)))


def test_clusters_have_axes_of_their_own(found):
    cluster = ClusterConfig(clusters=2, min_rows=5, axes="own")
    selector = Spectral(SpectralConfig(clusters=2), cluster)
    plan = selector.choose(found._replace(budget=100))
    assert [e.selection.parameters(found.model.embedding) for e in plan.experts] == [50, 50]
    assert plan.centroids.shape == (2, 12) and sum(plan.shares) == pytest.approx(1)
    first, second = plan.experts
    assert not np.allclose(first.axes.forward, second.axes.forward)
    expected = find_axes(found.model, found.variables, found.train.ids, first.rows)
    np.testing.assert_allclose(first.axes.forward, expected.forward, rtol=1e-6)
    with pytest.raises(InputError, match=r"--spectral.clusters 2 is more than the 1 rows"):
        selector.check(1)
    Spectral(SpectralConfig(), ClusterConfig()).check(1)


@pytest.mark.parametrize(
    ("name", "budget", "options", "words"),
    [
        ("gdcn", None, {"by": "weights"}, "gdcn is none. Choose --spectral.by loss"),
        ("fm", None, {"by": "weights"}, "fm is none"),
        ("dnn", None, {"steps": (0.5, 0.2)}, "--spectral.steps 0.2 is not above the share of 0.25"),
        ("dnn", 0.6, {"steps": (0.5,)}, "--spectral.steps 0.5 is not above the share of 0.6"),
        ("dnn", 0.01, {}, "--budget 0.01 is 1 numbers"),
        ("dnn", 0.1, {"clusters": 4}, "for each of 4 models"),
    ],
)
def test_choices_that_can_not_be_kept_are_refused_at_the_start(name, budget, options, words):
    model = build_model(ModelConfig(name, dim=4, hidden=(6,)), SIZES)
    config = Config(method="spectral", model=ModelConfig(name), budget=budget)
    with pytest.raises(InputError, match=words):
        build_spectral(config.having(SpectralConfig(**options)), model, 1)
    build_spectral(Config(method="spectral").having(SpectralConfig(by="weights")), MODEL, 1)


@pytest.mark.parametrize("own", [True, False])
def test_numbers_are_worth_what_they_are_in_the_rows_of_a_cluster(found, own):
    rows = np.flatnonzero(found.train.ids[:, 1] < 15)
    expert, *_ = best_expert(found._replace(budget=40), "numbers", own=own, rows=rows)
    occurs = count_values(SIZES, found.train.ids, rows) > 0
    assert occurs.sum() < sum(SIZES) - 10
    assert np.count_nonzero(expert.selection.mask[occurs]) == 40
    np.testing.assert_array_equal(expert.rows, rows)


@pytest.mark.parametrize("own", [True, False])
def test_gates_count_for_coordinates_of_the_search_and_not_for_own_axes(found, own):
    found = found._replace(budget=60)
    opened = np.tile([0.0, 0.0, 1.0, 1.0], len(SIZES))
    gated, plain = (
        best_expert(found, "numbers", own=own, opened=shares)[0].selection.mask
        for shares in (opened, None)
    )
    assert np.array_equal(gated, plain) == own
    assert gated[:, :2].any() == own


def test_clusters_are_measured_as_asked(found):
    cluster = ClusterConfig(clusters=2, min_rows=5, axes="own")
    plans = [
        Spectral(SpectralConfig(clusters=2, by=by), cluster).choose(found._replace(budget=100))
        for by in ("loss", "weights")
    ]
    first, second = (plan.experts[0].axes.importance for plan in plans)
    assert not np.allclose(first, second)


@pytest.mark.parametrize("steps", [(0.25, 0.5), (0.5, 0.5), (1.5,), (0.0,)])
def test_steps_that_do_not_fall_are_refused(steps):
    with pytest.raises(InputError, match=r"--spectral.steps"):
        SpectralConfig(steps=steps)


def test_numbers_without_any_leave_a_coordinate_of_zeros(found):
    selection = select_numbers(np.zeros((sum(SIZES), 4), bool), found.model.embedding)
    assert selection.kept == ((0,), (), ()) and selection.parameters(found.model.embedding) == 0
