"""The filler of budgets against brute force, and its promises for tables of any size."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.errors import InputError
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors.budget import fill, fill_in_proportion, numbers_of, require_room

seeds = st.integers(0, 10**6)


def widths_of(kept):
    return np.array([len(field) for field in kept])


def gain_of(gains, kept):
    return sum(gains[n, list(field)].sum() for n, field in enumerate(kept))


def draw(seed, fields, dim, largest):
    """Gains, some of them zero, and numbers of values."""
    rng = np.random.default_rng(seed)
    gains = rng.uniform(size=(fields, dim)) * rng.integers(2, size=(fields, dim))
    return rng, gains, rng.integers(1, largest, size=fields)


def best_of_all(gains, rows, budget):
    """The largest gain of any choice within the budget, of those of 98 % if there are any."""
    totals = np.pad(-np.sort(-gains, axis=1), ((0, 0), (1, 0))).cumsum(axis=1)
    found = []
    for widths in product(range(gains.shape[1] + 1), repeat=len(rows)):
        kept = np.dot(rows, widths)
        if kept <= budget:
            gain = sum(totals[n, d] for n, d in enumerate(widths))
            found.append((bool(kept >= 0.98 * budget), gain))
    return max(found)


@given(seed=seeds, fields=st.integers(1, 4), dim=st.integers(1, 4), share=st.floats(0.02, 1))
def test_the_choice_is_the_best_of_all(seed, fields, dim, share):
    _, gains, rows = draw(seed, fields, dim, 40)
    budget = max(int(rows.min()), int(share * rows.sum() * dim))
    kept = fill(gains, rows, budget)
    used = rows @ widths_of(kept)
    assert used <= budget
    full, gain = best_of_all(gains, rows, budget)
    assert bool(used >= 0.98 * budget) == full
    assert gain_of(gains, kept) == pytest.approx(gain, rel=1e-6, abs=1e-12)


@given(seed=seeds, fields=st.integers(1, 39), dim=st.integers(1, 16), share=st.floats(0.01, 1))
def test_budgets_of_large_tables_are_honoured(seed, fields, dim, share):
    rng, gains, _ = draw(seed, fields, dim, 2)
    rows = (10 ** rng.uniform(0, 6, size=fields)).astype(int)
    budget = max(int(rows.min()), int(share * rows.sum() * dim))
    widths = widths_of(kept := fill(gains, rows, budget))
    left = budget - rows @ widths
    assert left >= 0 and widths.sum() >= 1
    assert (rows[widths < dim] > left).all()  # nothing more fits
    for field, gain in zip(kept, gains, strict=True):  # the best coordinates of each field
        rest = np.delete(gain, list(field))
        assert not (field and rest.size) or gain[list(field)].min() >= rest.max()


@given(seed=seeds, fields=st.integers(1, 39), dim=st.integers(1, 16))
def test_no_less_than_98_percent_is_kept_where_a_choice_keeps_99(seed, fields, dim):
    rng, gains, _ = draw(seed, fields, dim, 2)
    rows = (10 ** rng.uniform(0, 6, size=fields)).astype(int)
    some = rows @ rng.integers(0, dim + 1, size=fields) or rows[0]
    budget = int(some / 0.99)
    kept = rows @ widths_of(fill(gains, rows, budget))
    assert 0.98 * budget <= kept <= budget


@given(
    seed=seeds,
    fields=st.integers(1, 39),
    dim=st.integers(1, 16),
    numerator=st.integers(1, 16),
    largest=st.sampled_from([2, 50, 10**6]),
)
def test_a_share_of_k_coordinates_keeps_k_of_every_field(seed, fields, dim, numerator, largest):
    rows = np.random.default_rng(seed).integers(1, largest, size=fields)
    k = min(numerator, dim)
    spec = EmbeddingSpec(tuple(rows.tolist()), dim)
    budget = numbers_of(k / dim, spec)
    assert budget == k * rows.sum()
    # equal gains per number, and equal fields of equal gains
    even = fill(np.repeat(0.1 * rows[:, None], dim, axis=1), rows, budget)
    alike = fill(np.ones((fields, dim)), np.full(fields, rows[0]), k * fields * int(rows[0]))
    equal = fill_in_proportion(np.ones(fields), rows, spec, budget)
    for kept in (even, alike, equal):
        assert kept == (tuple(range(k)),) * fields


def test_two_large_columns_are_kept_although_small_ones_gain_more():
    """Choosing by gain per number alone would leave half of the budget."""
    gains = np.ones((3, 16))
    kept = widths_of(fill(gains, [10, 10, 100_000], 200_040))
    assert kept[2] == 2 and kept.sum() == 6


def test_coordinates_without_gain_fill_the_budget():
    assert widths_of(fill(np.zeros((3, 4)), [10, 20, 30], 240)).tolist() == [4, 4, 4]
    gains = np.zeros((2, 3))
    gains[1, 2] = 1
    kept = fill(gains, [10, 10], 20)
    assert kept[1] in ((2,), (0, 2)) and widths_of(kept).sum() == 2


def test_fields_without_values_keep_nothing():
    assert fill(np.ones((3, 2)), [5, 0, 4], 100) == ((0, 1), (), (0, 1))


@pytest.mark.parametrize("gain", [-1.0, np.nan])
def test_gains_that_are_none_are_refused(gain):
    with pytest.raises(ValueError, match="not negative"):
        fill(np.array([[1.0, gain]]), [3], 3)


def test_a_budget_without_room_is_refused():
    assert fill(np.ones((2, 2)), [7, 9], 7) == ((0,), ())
    with pytest.raises(InputError, match=r"has 6 numbers .* takes 7. Choose a larger --budget"):
        fill(np.ones((2, 2)), [7, 9], 6)


def test_widths_are_rounded_products_of_lambda_and_weight():
    """For lambda = 4 the products are 4, 2.4, 1.6 and 0.2: widths 4, 2, 2 and 1."""
    rows, spec = np.array([3, 5, 7, 11]), EmbeddingSpec((3, 5, 7, 11), 6)
    weights = np.array([1, 0.6, 0.4, 0.05])
    wanted = [4, 2, 2, 1]
    kept = fill_in_proportion(weights, rows, spec, int(rows @ wanted))
    assert kept == tuple(tuple(range(width)) for width in wanted)
    # for lambda = 2.4 they are 2.4, 1.56 and 0.72; cut off instead of rounded, 3, 1 and 1 would fit
    spec = EmbeddingSpec((10, 10, 10), 6)
    kept = fill_in_proportion(np.array([1, 0.65, 0.3]), spec.sizes, spec, 50)
    assert kept == ((0, 1), (0, 1), (0,))


def test_no_field_has_more_than_the_most():
    spec = EmbeddingSpec((10, 10, 10), 8)
    kept = fill_in_proportion(np.array([5.0, 1, 1]), spec.sizes, spec, 10**6, most=3)
    assert kept == ((0, 1, 2),) * 3


def test_each_of_several_vectors_keeps_its_first_coordinates():
    spec = EmbeddingSpec((10, 30), 8, vectors_per_field=2)
    kept = fill_in_proportion(np.ones(2), spec.sizes, spec, 4 * 40)
    assert kept == ((0, 1, 4, 5),) * 2


@pytest.mark.parametrize(("share", "numbers"), [(0.29, 29), (1 / 3, 33), (0.07, 7), (1.0, 100)])
def test_a_share_is_rounded_down_but_for_float_error(share, numbers):
    assert numbers_of(share, EmbeddingSpec((20, 80), 1)) == numbers
    assert numbers_of(numbers / 300, EmbeddingSpec((100, 200), 1)) == numbers


def test_room_is_required_before_anything_is_trained():
    spec = EmbeddingSpec((20, 80), 4)
    require_room("budget", 0.1, spec, 2)
    with pytest.raises(InputError, match=r"--budget 0.1 is 13 numbers .* each of 3 models"):
        require_room("budget", 0.1, spec, 3)
    words = r"--mixed.kept 0.01 is 4 .* field takes 20. .* --mixed.kept of at least 0.05"
    with pytest.raises(InputError, match=words):
        require_room("mixed.kept", 0.01, spec)
    with pytest.raises(InputError, match=r"one value takes 4. .* of at least 0.0045"):
        require_room("budget", 0.001, EmbeddingSpec((3, 221), 4))
    require_room("budget", 0.0045, EmbeddingSpec((3, 221), 4))
    with pytest.raises(InputError, match=r"--budget 0.002 is 3 .* takes 4. .* of at least 0.0023"):
        require_room("budget", 0.004, EmbeddingSpec((3, 221), 4), unit=2.0)
    with pytest.raises(
        InputError, match=r"100 numbers .* each of 3 models.* Choose fewer clusters"
    ):
        require_room("budget", 1.0, EmbeddingSpec((150,), 2), 3)
