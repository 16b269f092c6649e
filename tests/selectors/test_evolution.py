from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config.methods import OptEmbedConfig
from ihas_jax.selectors.evolution import breed, cross, evolve, fittest, mutate

N, D, COUNT = 4, 4, 3600
KEY = jax.random.key(1)
CONFIG = OptEmbedConfig(generations=12, mutants=6, children=5, parents=4, mutation=0.3)
pytestmark = pytest.mark.usefixtures("float64")


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
