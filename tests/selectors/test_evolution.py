from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.data.store import Split
from ihas_jax.method_config import OptEmbedConfig
from ihas_jax.models import build_model
from ihas_jax.models.base import init_model
from ihas_jax.selectors.evolution import (
    auc_of_counts,
    breed,
    class_counts,
    cross,
    evolve,
    fittest,
    make_population_auc,
    mutate,
    prefix_masks,
)
from ihas_jax.training.metrics import auc

N, D, COUNT = 4, 4, 3600
KEY = jax.random.key(1)
CONFIG = OptEmbedConfig(generations=12, mutants=6, children=5, parents=4, mutation=0.3)
pytestmark = pytest.mark.usefixtures("float64")


def test_a_width_of_w_shows_the_first_w_coordinates():
    found = prefix_masks(jnp.array([[1, 3], [2, 2]]), 3)
    expected = [[[1, 0, 0], [1, 1, 1]], [[1, 1, 0], [1, 1, 0]]]
    np.testing.assert_array_equal(found, expected)


mutated = jax.jit(mutate, static_argnums=(2, 3))
crossed = jax.jit(cross, static_argnums=2)


def test_mutants_draw_a_width_anew_as_often_as_told_and_any_width_alike():
    parents = jnp.full((3, N), 2, jnp.int32)
    found = np.asarray(mutated(KEY, parents, COUNT, D, 0.3))
    assert found.shape == (COUNT, N) and found.dtype == np.int32
    np.testing.assert_array_equal(parents, np.full((3, N), 2))  # they are left alone
    shares = np.bincount(found.ravel(), minlength=6) / found.size
    expected = np.array([0, 0.3 / 4, 0.7 + 0.3 / 4, 0.3 / 4, 0.3 / 4, 0])
    error = np.sqrt(expected * (1 - expected) / found.size)
    assert (np.abs(shares - expected) <= 4 * error).all()
    changed = found != 2
    together = (changed[:, 0] & changed[:, 1]).mean()  # fields are drawn one by one
    assert abs(together - 0.225**2) < 4 * 0.225 / np.sqrt(COUNT)


def test_without_mutations_mutants_are_copies_of_all_parents_alike():
    parents = np.array([[1, 2, 3, 4], [3, 3, 3, 3], [2, 1, 1, 4]], np.int32)
    found = np.asarray(mutated(KEY, parents, COUNT, D, 0.0))
    copies = (found[:, None] == parents).all(axis=2)
    assert (copies.sum(axis=1) == 1).all()
    assert (np.abs(copies.mean(axis=0) - 1 / 3) < 4 * np.sqrt(2 / 9 / COUNT)).all()


def test_children_are_cut_between_fields_at_every_place_alike_from_two_parents():
    parents = np.repeat([[1], [2], [3]], N, axis=1).astype(np.int32)
    found = np.asarray(crossed(KEY, parents, COUNT))
    seen = Counter(map(tuple, found))
    expected = {
        (first,) * cut + (second,) * (N - cut)
        for first, second in itertools.permutations((1, 2, 3), 2)
        for cut in (1, 2, 3)
    }
    assert set(seen) == expected
    mean = COUNT / len(expected)
    assert max(abs(n - mean) for n in seen.values()) < 4 * np.sqrt(mean)


@pytest.mark.parametrize("parents", [[[2], [5]], [[2, 7, 4]]])
def test_one_field_or_one_parent_leaves_children_that_are_copies(parents):
    found = np.asarray(crossed(KEY, np.array(parents, np.int32), 20))
    assert {tuple(child) for child in found} == {tuple(parent) for parent in parents}


def test_a_generation_is_mutants_then_children_of_their_own_draws():
    parents = np.random.default_rng(0).integers(1, D + 1, size=(3, N)).astype(np.int32)
    config = OptEmbedConfig(mutants=COUNT, children=COUNT, mutation=0.2)
    found = breed(KEY, parents, D, config)
    mutating, crossing = jax.random.split(KEY)
    np.testing.assert_array_equal(found[:COUNT], mutated(mutating, parents, COUNT, D, 0.2))
    np.testing.assert_array_equal(found[COUNT:], crossed(crossing, parents, COUNT))


def test_the_fittest_are_different_and_the_earlier_ones_of_equals():
    candidates = np.array([[3, 1], [2, 3], [3, 1], [1, 1], [2, 2], [1, 2]])
    scores = np.array([0.5, 0.7, 0.5, 0.9, 0.7, 0.1])
    for count, best in ((3, [3, 1, 4]), (4, [3, 1, 4, 0]), (9, [3, 1, 4, 0, 5])):
        found, found_scores = fittest(candidates, scores, count)
        np.testing.assert_array_equal(found, candidates[best])
        np.testing.assert_array_equal(found_scores, scores[best])


def recorded(score):
    """A score of a population, and the list of populations it has seen."""
    seen = []

    def evaluate(widths):
        seen.append(widths)
        return score(widths)

    return evaluate, seen


def test_evolution_finds_planted_widths_and_remembers_the_best_of_all_generations():
    planted = np.array([4, 1, 2, 3, 1, 4])

    def score(widths):
        return -np.abs(widths - planted).sum(axis=1).astype(float)

    evaluate, seen = recorded(score)
    config = dataclasses.replace(CONFIG, generations=40)
    found = evolve(KEY, evaluate, 6, 4, config)
    np.testing.assert_array_equal(found.widths, planted)
    assert [len(widths) for widths in seen] == [11] * 40
    best = np.maximum.accumulate([score(widths).max() for widths in seen])
    np.testing.assert_array_equal(found.history, best)
    assert best[0] < best[5] < best[-1] == 0


def test_a_uniform_generation_then_parents_are_the_best_of_all_candidates_so_far():
    rng = np.random.default_rng(0)
    value = rng.normal(size=(9,) * 4)  # by widths, without any order that evolution could find
    evaluate, seen = recorded(lambda widths: value[tuple(widths.T)])
    config = OptEmbedConfig(generations=6, mutants=200, children=30, parents=3, mutation=1.0)
    evolve(KEY, evaluate, 4, 8, config)
    shares = np.bincount(seen[0].ravel(), minlength=9)[1:] / seen[0].size
    assert (np.abs(shares - 1 / 8) < 4 * np.sqrt(7 / 64 / seen[0].size)).all()
    elsewhere = 0
    for generation in range(1, 6):
        before = {tuple(widths) for widths in np.concatenate(seen[:generation])}
        parents = sorted(before, key=lambda widths: -value[widths])[:3]
        expected = {
            a[:cut] + b[cut:] for a, b in itertools.permutations(parents, 2) for cut in (1, 2, 3)
        }
        assert {tuple(child) for child in seen[generation][200:]} <= expected
        elsewhere += any(p not in set(map(tuple, seen[generation - 1])) for p in parents)
        assert (seen[generation][:200] != seen[generation - 1][:200]).any(axis=1).mean() > 0.9
    assert elsewhere  # some parents are older than the last generation


@pytest.mark.parametrize(("generations", "dim"), [(0, 4), (5, 1)])
def test_without_generations_or_a_choice_all_widths_are_full(generations, dim):
    config = dataclasses.replace(CONFIG, generations=generations)
    found = evolve(KEY, None, 3, dim, config)  # nothing to evaluate
    np.testing.assert_array_equal(found.widths, [dim] * 3)
    assert found.history == []


def test_log_odds_fall_into_equal_bins_by_class_and_rows_that_do_not_count_into_none():
    width = 1 / 1024
    logits = np.array([[-20, -16, -16 + 1.5 * width, 0, 16 - width / 2, 99, 0], np.zeros(7)])
    labels = np.array([0, 1, 0, 1, 1, 1, 0], np.int32)
    valid = np.array([1, 1, 1, 1, 1, 1, 0], bool)
    found = np.asarray(class_counts(logits, labels, valid))
    assert found.shape == (2, 2, 1 << 15)
    expected = np.zeros_like(found)
    expected[0, 0, [0, 1]] = 1
    expected[0, 1, [0, 1 << 14, (1 << 15) - 1]] = 1, 1, 2
    expected[1, :, 1 << 14] = 2, 4
    np.testing.assert_array_equal(found, expected)


def test_auc_of_counts_by_hand():
    counts = np.array([
        [[1, 2, 1], [0, 1, 1]],  # a click beats 1 + 2/2 of 4 others, the other one 3 + 1/2
        [[0, 0, 3], [2, 0, 0]],
        [[4, 0, 0], [0, 0, 0]],
    ], float)  # fmt: skip
    np.testing.assert_array_equal(auc_of_counts(counts), [5.5 / 8, 0, 0.5])


SIZES = (50, 30, 40)


@pytest.fixture(scope="module")
def trained(tiny):
    """A model with numbers of size one, some values removed, and rows for more than one batch."""
    with jax.enable_x64(True):
        model = build_model(dataclasses.replace(tiny.config.model, dim=D), SIZES)
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(lambda key: init_model(key, model), KEY)[0]
        params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
        factors = (np.arange(120) % 4 > 0).astype(float)[:, None]
        ids = np.stack([rng.integers(size, size=5000) for size in SIZES], 1).astype(np.int32)
        labels = rng.integers(2, size=5000).astype(np.uint8)
        score = make_population_auc(model, Split(ids, labels))

        def scores(widths):
            return score(params, {"factors": {"width_4": factors}}, np.array(widths, np.int32))

        yield scores, params, factors, ids, labels


def log_odds(params, factors, ids, widths):
    """The model's formula: rows of the table, cut off after each field's width, through the MLP."""
    x = (params["tables"]["embedding"]["width_4"] * factors)[ids + np.array([0, 50, 80])]
    x = np.where(np.arange(D) < np.array(widths)[:, None], x, 0).reshape(len(ids), -1)
    hidden, output = (params["network"]["mlp"][name] for name in ("hidden_0", "output"))
    x = np.maximum(x @ hidden["kernel"] + hidden["bias"], 0)
    return (x @ output["kernel"] + output["bias"])[:, 0]


def tied(labels, values):
    """Share of the pairs of a click and another row that have the same value."""
    same = np.unique(values, return_inverse=True)[1]
    others, clicks = (np.bincount(same[labels == k], minlength=same.max() + 1) for k in (0, 1))
    return (others * clicks).sum() / (others.sum() * clicks.sum())


WIDTHS = [[4, 4, 4], [1, 1, 1], [2, 4, 1], [3, 1, 2]]


def test_scores_of_a_population_are_aucs_up_to_pairs_in_the_same_bin(trained):
    scores, *parts, labels = trained
    found = scores(WIDTHS)
    assert found.dtype == np.float64
    for widths, score in zip(WIDTHS, found, strict=True):
        logits = log_odds(*parts, widths)
        bins = np.floor((logits + 16) * 1024)
        np.testing.assert_allclose(score, auc(labels, bins), rtol=1e-12)
        bound = (tied(labels, bins) - tied(labels, logits)) / 2
        assert abs(score - auc(labels, logits)) <= bound
        assert 0 < bound < 5e-4
    assert np.ptp(found) > 10 * bound


def test_a_candidate_scores_the_same_alone(trained):
    scores = trained[0]
    np.testing.assert_array_equal(scores(WIDTHS[2:3]), scores(WIDTHS)[2:3])
