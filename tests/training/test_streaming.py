from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.training.streaming import Streamed

BATCH = 4096  # rows go to the device in batches of this size


def function(params, ids):
    """A row's outputs, of two kinds; wrong if a row is not where it should be."""
    return {"sum": ids.sum(axis=1) * params, "both": ids + jnp.int32(params)}


def make_ids(rows):
    return np.stack([np.arange(rows), np.arange(rows)[::-1] + 3], axis=1).astype(np.int32)


def expected(ids):
    return {"sum": ids.sum(axis=1) * np.float32(2), "both": ids + 2}


@pytest.fixture(scope="module")
def streamed():
    return Streamed(function, "test")


@pytest.mark.parametrize("rows", [1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 5])
def test_outputs_are_those_of_all_rows_in_their_order(streamed, rows):
    ids = make_ids(rows)
    found = streamed(np.float32(2), ids)
    for name, want in expected(ids).items():
        np.testing.assert_array_equal(found[name], want)
        assert isinstance(found[name], np.ndarray)


def test_a_subset_of_the_rows_comes_in_the_order_asked_for(streamed):
    ids = make_ids(2 * BATCH)
    rows = np.random.default_rng(0).permutation(2 * BATCH)[: BATCH + 7].astype(np.int32)
    found = streamed(np.float32(2), ids, rows)
    np.testing.assert_array_equal(found["both"], ids[rows] + 2)


@pytest.mark.parametrize("rows", [None, np.arange(2 * BATCH + 10)[::-1]])
def test_chunks_cut_the_rows_without_gaps_and_pad_only_inside(streamed, rows):
    ids = make_ids(2 * BATCH + 10)
    stop, order = 0, ids if rows is None else ids[rows]
    for part, found in streamed.chunks(np.float32(2), ids, rows, chunk_rows=BATCH):
        assert part.start == stop
        stop = part.stop
        np.testing.assert_array_equal(found["both"], order[part] + 2)
    assert stop == 2 * BATCH + 10
    assert part == slice(2 * BATCH, stop)


def test_other_row_counts_and_parameters_compile_nothing_new():
    streamed = Streamed(function, "test")
    for params, rows in [(1, 2 * BATCH + 5), (2, 2 * BATCH + 5), (3, 3 * BATCH), (4, BATCH)]:
        for _ in streamed.chunks(np.float32(params), make_ids(rows), chunk_rows=BATCH):
            pass
    assert streamed._map._cache_size() == 1
    for params in (1, 2):
        streamed(np.float32(params), make_ids(2 * BATCH + 5))
    assert streamed._map._cache_size() == 2


def test_no_rows_are_an_error_that_says_so(streamed):
    with pytest.raises(ValueError, match="no rows to stream"):
        streamed(np.float32(1), make_ids(0))
