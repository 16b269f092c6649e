"""The choices of uniform, mixed, magnitude and random, by hand and by NumPy."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import ModelConfig
from ihas_jax.config.shares import MagnitudeConfig, MixedConfig, RandomConfig, UniformConfig
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models import MODELS, build_model
from ihas_jax.models.base import Variables
from ihas_jax.selectors.base import Recipe
from ihas_jax.selectors.budget import numbers_of
from ihas_jax.selectors.magnitude import Magnitude, build_magnitude, mean_squares
from ihas_jax.selectors.mixed import Mixed, build_mixed
from ihas_jax.selectors.plan import SearchResult
from ihas_jax.selectors.random_choice import RandomChoice, build_random
from ihas_jax.selectors.uniform import Uniform, build_uniform

DIM = 8


def chosen(selector, sizes, *, dim=DIM, budget=None, key=1, name="dnn", **rest):
    model = build_model(ModelConfig(name, dim=dim, hidden=(2,)), sizes)
    found = SearchResult(
        model, rest.get("variables"), rest.get("train"), None, jax.random.key(key), 0, budget
    )
    (expert,) = selector.choose(found).experts
    return expert.selection


def widths(selection):
    return [len(field) for field in selection.kept]


def test_uniform_keeps_the_first_coordinates_of_every_field():
    assert chosen(Uniform(3), (5, 70, 2)).kept == ((0, 1, 2),) * 3
    # an FFM of two fields has two vectors side by side
    assert chosen(Uniform(1), (5, 7), dim=2, name="ffm").kept == ((0, 2),) * 2


@pytest.mark.parametrize(
    ("sizes", "budget", "expected"),
    [
        ((5, 70, 2), 3 * 77, [3, 3, 3]),
        ((5, 70, 2), 3 * 77 + 1, [3, 3, 3]),
        ((5, 70, 2), 3 * 77 + 7, [4, 3, 4]),
        ((5, 70, 2), 77, [1, 1, 1]),
        ((50, 70, 60), 2 * 180 + 110, [3, 2, 3]),
        ((50, 70, 60), 130, [0, 1, 1]),
        ((1, 100, 100), 410, [3, 2, 2]),  # seven numbers are left
        # one more of the large field would be too much, so the small ones have far more
        ((5, 300), 350, [8, 1]),
        ((10, 300), 380, [8, 1]),
    ],
)
def test_uniform_within_a_budget(sizes, budget, expected):
    assert widths(chosen(Uniform(3), sizes, budget=budget)) == expected


def test_uniform_has_a_quarter_of_the_models_size_by_default(tiny):
    def built(size, **options):
        config = dataclasses.replace(tiny.config, model=ModelConfig("ffm", dim=size))
        model = build_model(config.model, (3, 4))
        return build_uniform(config.having(UniformConfig(**options)), model, 5).size

    assert [built(size) for size in (1, 4, 16)] == [1, 1, 4]
    assert built(16, dim=16) == 16
    with pytest.raises(InputError, match=r"--uniform.dim 17 .* ffm, which is 16. Choose 16"):
        built(16, dim=17)


def test_mixed_sizes_are_rounded_powers():
    """With lambda = 10 and alpha = 1/2, sizes 1, 4, 16, 400 have 10, 5, 2.5 and .5."""
    mixed = Mixed(MixedConfig(alpha=0.5))
    # lambda just above 10, so that 2.5 is rounded up; at least 1, at most 8
    expected = [8, 5, 3, 1]
    budget = int(np.dot(expected, (1, 4, 16, 400)))
    assert widths(chosen(mixed, (1, 4, 16, 400), budget=budget)) == expected
    assert widths(chosen(Mixed(MixedConfig(alpha=0.0)), (5, 70, 2), budget=154)) == [2, 2, 2]


def test_mixed_keeps_its_share_without_a_budget():
    sizes, mixed = (11, 90, 1000, 4), Mixed(MixedConfig(kept=0.3))
    total = DIM * sum(sizes)
    found = np.dot(widths(chosen(mixed, sizes)), sizes)
    assert 0.98 * 0.3 * total <= found <= 0.3 * total
    assert chosen(mixed, sizes).kept == chosen(mixed, sizes, budget=int(0.3 * total)).kept


def test_random_coordinates_are_those_of_the_seed():
    sizes, choice = (20, 30, 25, 40, 22), RandomChoice(RandomConfig(kept=0.4))
    first, again, other = (chosen(choice, sizes, key=key).kept for key in (1, 1, 2))
    assert first == again != other
    kept = np.dot([len(field) for field in first], sizes)
    assert 0.98 <= kept / (0.4 * DIM * sum(sizes)) <= 1


def test_random_coordinates_do_not_prefer_small_fields():
    """Over seeds a field keeps about the share that one of four times its values keeps."""
    sizes, choice = (250,) * 6 + (1000,) * 6, RandomChoice(RandomConfig(kept=0.4))
    found = np.mean([widths(chosen(choice, sizes, key=key)) for key in range(40)], axis=0)
    assert found[:6].mean() == pytest.approx(0.4 * DIM, abs=0.3)
    assert found[6:].mean() == pytest.approx(0.4 * DIM, abs=0.3)


def trained(sizes, dim):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(sum(sizes), dim)).astype(np.float32)
    ids = np.stack([rng.integers(size, size=5000) for size in sizes], 1).astype(np.int32)
    ids[:, 0] = np.minimum(ids[:, 0], 1)  # all but two values of the first field are unseen
    params = {"tables": {"embedding": {f"width_{dim}": jnp.asarray(table)}}, "network": {}}
    split = Split(ids, np.zeros(5000, np.uint8))
    return SimpleNamespace(table=table, variables=Variables(params), train=split)


@pytest.mark.parametrize(("budget", "count"), [(None, 15), (7, 7)])
def test_magnitude_keeps_the_largest_numbers_of_the_table(budget, count):
    made = trained((5, 3, 4), 4)
    selector = Magnitude(MagnitudeConfig(kept=0.32))  # 15.36 of 48
    found = chosen(selector, (5, 3, 4), dim=4, budget=budget, variables=made.variables)
    smallest = np.sort(np.abs(made.table), axis=None)[-count]
    np.testing.assert_array_equal(found.mask, np.abs(made.table) >= smallest)
    assert widths(found) == [4, 4, 4] and found.mask.sum() == count


def test_norms_are_weighted_by_how_often_values_are_seen():
    sizes = (5, 3, 4)
    made = trained(sizes, 4)
    model = build_model(ModelConfig(dim=4, hidden=(2,)), sizes)
    looked_up = made.table[made.train.ids + np.array([0, 5, 8])]
    wanted = (looked_up.astype(np.float64) ** 2).mean(axis=0)
    found = mean_squares(model, made.variables, made.train)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_structured_magnitude_keeps_whole_coordinates():
    made = trained((6, 6), 4)
    first = np.zeros((12, 4), np.float32)
    first[:6, 2], first[6:, [1, 3]] = 9, 5
    first[3, 0] = 1e3  # of a value that is never seen
    params = {"tables": {"embedding": {"width_4": jnp.asarray(first)}}, "network": {}}
    selector = Magnitude(MagnitudeConfig(structured=True))
    rest = {"dim": 4, "variables": Variables(params), "train": made.train._replace(
        ids=np.minimum(made.train.ids[:, :2], 1)
    )}  # fmt: skip
    assert chosen(selector, (6, 6), budget=18, **rest).kept == ((2,), (1, 3))
    assert chosen(selector, (6, 6), budget=6, **rest).kept == ((2,), ())


def test_only_magnitude_trains_before_it_chooses(tiny):
    builders = (build_uniform, build_mixed, build_random)
    for build in builders:
        recipe = build(tiny.config, tiny.model, 5).recipe
        assert recipe == Recipe(gate_batches="never", epochs=0)
    recipe = build_magnitude(tiny.config, tiny.model, 5).recipe
    assert recipe == Recipe(gate_batches="never", initial_weights="searched")


@pytest.mark.parametrize("name", ["mixed", "magnitude", "random"])
def test_a_share_without_room_is_refused_before_the_run(tiny, name):
    build = {"mixed": build_mixed, "magnitude": build_magnitude, "random": build_random}[name]
    options = {"mixed": MixedConfig, "magnitude": MagnitudeConfig, "random": RandomConfig}[name]
    config = tiny.config.having(options(kept=0.1))  # 2.4 numbers of 24, and a field has three
    with pytest.raises(InputError, match=rf"--{name}.kept 0.1 is 2 numbers .* takes 3"):
        build(config, tiny.model, 5)
    build(dataclasses.replace(config, budget=0.5), tiny.model, 5)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_carry_the_baselines(name):
    config = ModelConfig(name, dim=4, hidden=(4,))
    model = build_model(config, (12, 30, 9))
    numbers = numbers_of(0.5, model.embedding)
    for selector in (Uniform(1), Mixed(MixedConfig()), RandomChoice(RandomConfig())):
        found = SearchResult(model, None, None, None, jax.random.key(0), 0, numbers)
        (expert,) = selector.choose(found).experts
        compact = build_model(config, (12, 30, 9), kept=expert.selection.kept)
        kept = compact.embedding.parameters
        assert kept == expert.selection.parameters(model.embedding) <= numbers
        assert kept >= (0.98 if model.embedding.dim > 1 else 0.5) * numbers
