from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.data.split import _GOLDEN, _splitmix64, assign_splits, split_counts


def test_the_generator_is_splitmix64():
    # The published sequence of the generator seeded with 1234567.
    states = np.uint64(1234567) + np.arange(5, dtype=np.uint64) * _GOLDEN
    assert _splitmix64(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(rows=st.integers(10, 3000), seed=st.integers(-(1 << 70), 1 << 70))
def test_sizes_are_exact(rows, seed):
    splits = assign_splits(rows, seed)
    assert splits.dtype == np.uint8
    assert tuple(np.bincount(splits, minlength=3)) == split_counts(rows)
    assert sum(split_counts(rows)) == rows
    assert min(split_counts(rows)) >= 1


def test_sizes_by_hand():
    assert split_counts(10) == (8, 1, 1)
    assert split_counts(19) == (15, 1, 3)
    assert split_counts(1_000_209) == (800_167, 100_020, 100_022)


def test_the_split_is_a_function_of_the_seed():
    np.testing.assert_array_equal(assign_splits(1000, 3), assign_splits(1000, 3))
    share = (assign_splits(10_000, 3) == assign_splits(10_000, 4)).mean()
    assert abs(share - (0.8**2 + 2 * 0.1**2)) < 0.02  # independent of one another
    # Anywhere and always: a change here changes every store that was ever made.
    assert "".join(map(str, assign_splits(30, 0))) == "000020100000000001202001000000"


def test_no_place_in_the_log_is_preferred():
    splits = assign_splits(100_000, 0).reshape(10, -1)
    assert np.all(abs((splits == 2).mean(1) - 0.1) < 0.01)
    assert np.all(abs((splits == 1).mean(1) - 0.1) < 0.01)


def test_too_few_rows():
    with pytest.raises(ValueError, match="at least 10"):
        assign_splits(9, 0)
