"""Places of rows in a subset, against NumPy."""

from __future__ import annotations

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ihas_jax.nn.subset import empty_subset, index_in, make_subset, subset_bytes

index = jax.jit(index_in)
LENGTHS = (1, 31, 32, 33, 200)  # each compiles anew


@settings(max_examples=40)
@given(length=st.sampled_from(LENGTHS), share=st.sampled_from([0.0, 0.1, 0.5, 1.0]), data=st.data())
def test_places_count_the_chosen_rows_before(length, share, data):
    seed = data.draw(st.integers(0, 10**6))
    chosen = np.random.default_rng(seed).uniform(size=length) < share
    subset = make_subset(chosen)
    expected = np.where(chosen, np.cumsum(chosen), 0)
    np.testing.assert_array_equal(index(subset, np.arange(length, dtype=np.int32)), expected)
    assert sum(part.nbytes for part in subset) == subset_bytes(length)


def test_places_have_the_shape_of_the_rows():
    subset = make_subset(np.array([True, False, True]))
    found = index(subset, np.array([[2, 1], [0, 2]], np.int32))
    np.testing.assert_array_equal(found, [[2, 0], [1, 2]])
    assert found.dtype == np.int32


def test_the_empty_subset_has_no_places():
    empty = empty_subset(40)
    jax.tree.map(np.testing.assert_array_equal, empty, make_subset(np.zeros(40, bool)))
    assert not index(empty, np.arange(40, dtype=np.int32)).any()
