from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.models.streaming import Streamed, Summed

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
    return Streamed(function)


@pytest.mark.parametrize("rows", [1, 16, 17, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 5])
def test_outputs_are_those_of_all_rows_in_their_order(streamed, rows):
    ids = make_ids(rows)
    found = streamed(np.float32(2), ids, title="test")
    for name, want in expected(ids).items():
        np.testing.assert_array_equal(found[name], want)
        assert isinstance(found[name], np.ndarray)


def test_a_subset_of_the_rows_comes_in_the_order_asked_for(streamed):
    ids = make_ids(2 * BATCH)
    rows = np.random.default_rng(0).permutation(2 * BATCH)[: BATCH + 7].astype(np.int32)
    found = streamed(np.float32(2), ids, title="test", rows=rows)
    np.testing.assert_array_equal(found["both"], ids[rows] + 2)


@pytest.mark.parametrize("rows", [None, np.arange(2 * BATCH + 10)[::-1]])
def test_chunks_cut_the_rows_without_gaps_and_pad_only_inside(streamed, rows):
    ids = make_ids(2 * BATCH + 10)
    stop, order = 0, ids if rows is None else ids[rows]
    for part, found in streamed.chunks(
        np.float32(2), ids, title="test", rows=rows, chunk_rows=BATCH
    ):
        assert part.start == stop
        stop = part.stop
        np.testing.assert_array_equal(found["both"], order[part] + 2)
    assert stop == 2 * BATCH + 10
    assert part == slice(2 * BATCH, stop)


def test_few_programs_are_compiled_whatever_the_number_of_rows():
    # a function of its own, since equal ones share their programs
    streamed = Streamed(lambda params, ids: function(params, ids))
    for rows in (1, 16, 17, 300, 5000, 4 * BATCH + 1):
        streamed(np.float32(1), make_ids(rows), title="test")
    assert streamed._map._cache_size() == 5
    for rows in (2, 15, 60, 256, 257, 1000, BATCH, BATCH + 1, 3 * BATCH, 9 * BATCH, 65 * BATCH):
        streamed(np.float32(1), make_ids(rows), title="test")
    assert streamed._map._cache_size() == 5


def test_a_part_may_have_any_number_of_rows(streamed):
    parts = streamed.chunks(np.float32(1), make_ids(1000), title="test", chunk_rows=300)
    assert [part.stop - part.start for part, _ in parts] == [300, 300, 300, 100]
    parts = streamed.chunks(
        np.float32(1), make_ids(70 * BATCH), title="test", chunk_rows=66 * BATCH
    )
    assert [part.stop - part.start for part, _ in parts] == [66 * BATCH, 4 * BATCH]


def test_programs_that_have_begun_compute_before_the_first_one_ends(streamed, monkeypatch):
    began, program, ids = [], streamed._map, make_ids(2 * BATCH)

    def remember(params, *more):
        began.append(float(params))
        return program(params, *more)

    monkeypatch.setattr(streamed, "_map", remember)
    rows = (np.arange(3), np.arange(3, 2 * BATCH))
    first, second = (
        streamed.begin(np.float32(p), ids, title="test", rows=some)
        for p, some in zip((5, 7), rows, strict=True)
    )
    assert began == [5, 7]
    np.testing.assert_array_equal(second()["both"], ids[3:] + 7)
    np.testing.assert_array_equal(first()["both"], ids[:3] + 5)
    assert began == [5, 7]


def test_a_chunk_computes_while_the_one_before_is_used(streamed, monkeypatch):
    counts, program = [], streamed._map

    def remember(params, ids, count, *layout):
        counts.append(int(count))
        return program(params, ids, count, *layout)

    monkeypatch.setattr(streamed, "_map", remember)
    parts = streamed.chunks(np.float32(1), make_ids(25), title="test", chunk_rows=10)
    assert counts == [10]
    next(parts)
    assert counts == [10, 10]
    assert [part.stop for part, _ in parts] == [20, 25]
    assert counts == [10, 10, 5]


def test_products_are_of_float32_on_every_device():
    streamed = Streamed(lambda params, ids: ids.astype(np.float32) @ params)
    program = streamed._map.lower(np.ones((2, 3), np.float32), np.zeros((1, 16, 2), np.int32), 1)
    assert "precision = [HIGHEST, HIGHEST]" in program.as_text()


def test_a_small_call_does_not_pay_for_a_large_shape():
    shapes = []

    def remember(params, ids):
        shapes.append(ids.shape)
        return ids.sum(axis=1)

    streamed = Streamed(remember)
    for rows in (1, 17, 300):
        streamed(np.float32(1), make_ids(rows), title="test")
    assert set(shapes) == {(16, 2), (64, 2), (256, 2)}


@pytest.mark.parametrize("rows", [1, 20, BATCH + 1, 2 * BATCH + 5])
def test_sums_are_over_all_rows_and_no_padding(rows):
    def both(params, ids, valid):
        return ids[:, 0], {"rows": valid.sum(), "sum": (ids * valid[:, None]).sum(axis=0) + params}

    ids = make_ids(rows)
    found, sums = Summed(both)(np.int32(0), ids, title="test")
    np.testing.assert_array_equal(found, ids[:, 0])
    assert sums["rows"] == rows
    np.testing.assert_array_equal(sums["sum"], ids.sum(axis=0))
    assert sums["sum"].dtype == np.float64


@pytest.mark.parametrize(("rows", "expected"), [(16, 1), (2 * BATCH, 2), (2 * BATCH + 5, 3)])
def test_no_batch_of_padding_alone_is_computed(rows, expected):
    def count(params, ids, valid):
        return ids[:, 0], jnp.int32(1)

    _, batches = Summed(count)(np.int32(0), make_ids(rows), title="test")
    assert batches == expected


def test_no_rows_are_an_error_that_says_so(streamed):
    with pytest.raises(ValueError, match="no rows to stream"):
        streamed(np.float32(1), make_ids(0), title="test")
