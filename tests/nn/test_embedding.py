from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ihas_jax.errors import InputError
from ihas_jax.nn.compact import slice_table
from ihas_jax.nn.embedding import (
    EmbeddingSpec,
    align,
    flatten,
    init_table,
    lookup,
    value_index,
)

SIZES, DIM = (3, 4, 2), 3
UNIFORM = EmbeddingSpec(SIZES, DIM)
TABLE = np.arange(27, dtype=np.float32).reshape(9, 3) + 1  # no zeros, all different
IDS = np.array([[0, 0, 0], [2, 3, 1], [1, 3, 0], [2, 1, 1]], np.int32)

coordinates = st.lists(st.integers(0, DIM - 1), unique=True).map(sorted).map(tuple)


def full_rows():
    starts = np.concatenate([[0], np.cumsum(SIZES)[:-1]])
    return TABLE[IDS + starts]


@st.composite
def specs(draw):
    dim = draw(st.integers(1, 6))
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    subset = st.lists(st.integers(0, dim - 1), unique=True).map(sorted).map(tuple)
    kept = draw(st.none() | st.tuples(*(subset for _ in sizes)))
    return EmbeddingSpec(tuple(sizes), dim, kept)


def test_uniform_lookup_is_numpy_indexing_with_field_offsets():
    rows = lookup({"width_3": jnp.asarray(TABLE)}, value_index(UNIFORM, jnp.asarray(IDS)))
    assert list(rows) == ["width_3"]
    np.testing.assert_array_equal(rows["width_3"], full_rows())
    np.testing.assert_array_equal(align(UNIFORM, rows), full_rows())
    np.testing.assert_array_equal(flatten(UNIFORM, rows), full_rows().reshape(4, 9))


@given(spec=specs().filter(lambda spec: spec.groups), seed=st.integers(0, 9))
def test_fields_read_one_after_the_other_are_the_same(spec, seed):
    table = init_table(jax.random.key(seed), spec)
    sizes = jnp.array(spec.sizes)
    ids = jax.random.randint(jax.random.key(seed), (3, len(spec.sizes)), 0, sizes)
    index = value_index(spec, ids)
    together, apart = lookup(table, index), lookup(table, index, by_field=True)
    assert list(together) == list(apart)
    jax.tree.map(np.testing.assert_array_equal, together, apart)


@settings(max_examples=8)  # each compiles anew
@given(kept=st.tuples(coordinates, coordinates, coordinates).filter(any))
def test_a_compact_table_holds_exactly_the_kept_coordinates(kept):
    spec = EmbeddingSpec(SIZES, DIM, kept)

    @jax.jit
    def compute(table, ids):
        compact = slice_table(UNIFORM, {"width_3": table}, spec)
        rows = lookup(compact, value_index(spec, ids))
        return compact, align(spec, rows), flatten(spec, rows)

    table, aligned, flat = compute(TABLE, IDS)
    mask = np.array([[j in field for j in range(DIM)] for field in kept])
    np.testing.assert_array_equal(aligned, full_rows() * mask)
    columns = full_rows().reshape(4, 9)[:, list(spec.columns)]
    np.testing.assert_array_equal(flat, columns)
    assert sum(array.size for array in table.values()) == spec.parameters


def test_columns_go_by_width_then_field_then_coordinate():
    spec = EmbeddingSpec((2, 3, 4, 5), 4, ((1,), (0, 2), (), (1, 3)))
    assert spec.columns == (4, 6, 13, 15, 1)
    assert [group.name for group in spec.groups] == ["width_2", "width_1"]
    assert [group.fields for group in spec.groups] == [(1, 3), (0,)]
    assert [group.offsets for group in spec.groups] == [(0, 3), (0,)]


def test_a_field_that_keeps_nothing_has_no_rows():
    spec = EmbeddingSpec(SIZES, DIM, ((0, 2), (), (1,)))
    table = init_table(jax.random.key(0), spec)
    assert {name: array.shape for name, array in table.items()} == {
        "width_2": (3, 2),
        "width_1": (2, 1),
    }
    assert {name: rows.shape for name, rows in value_index(spec, IDS).items()} == {
        "width_2": (4, 1),
        "width_1": (4, 1),
    }
    assert spec.widths == (2, 0, 1)
    assert not np.asarray(align(spec, lookup(table, value_index(spec, jnp.asarray(IDS)))))[
        :, 1
    ].any()


@given(spec=specs())
def test_shapes_follow_from_sizes_and_kept_coordinates(spec):
    kept = spec.kept or (tuple(range(spec.dim)),) * len(spec.sizes)
    assert spec.widths == tuple(map(len, kept))
    assert sorted(spec.columns) == [n * spec.dim + j for n, js in enumerate(kept) for j in js]
    assert spec.parameters == sum(group.rows * group.width for group in spec.groups)
    assert spec.parameters == sum(s * len(js) for s, js in zip(spec.sizes, kept, strict=True))
    assert spec.coordinates == len(spec.sizes) * spec.dim
    stored = [n for group in spec.groups for n in group.fields]
    assert sorted(stored) == [n for n, js in enumerate(kept) if js]
    assert all(spec.widths[n] == group.width for group in spec.groups for n in group.fields)


@given(spec=specs())
def test_no_two_values_share_a_row(spec):
    rows = {group.name: np.zeros(group.rows, int) for group in spec.groups}
    for group in spec.groups:
        for n, offset in zip(group.fields, group.offsets, strict=True):
            rows[group.name][offset : offset + spec.sizes[n]] += 1
    assert all((counts == 1).all() for counts in rows.values())


def test_the_number_of_parameters_is_that_of_the_table():
    assert UNIFORM.parameters == 27
    assert EmbeddingSpec(SIZES, DIM, ((0, 2), (), (1,))).parameters == 3 * 2 + 2


def test_xavier_fills_the_bound_of_the_whole_table():
    spec = EmbeddingSpec((600, 392), 8)
    (values,) = init_table(jax.random.key(0), spec).values()
    bound = np.sqrt(6 / (992 + 8))
    values = np.asarray(values, np.float64)
    assert values.dtype == np.float64 and values.shape == (992, 8)
    assert 0.999 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
    # standard errors of mean and mean square of n uniforms on [-1, 1]
    unit, n = values / bound, values.size
    assert abs(unit.mean()) < 4 * np.sqrt(1 / 3 / n)
    assert abs((unit**2).mean() - 1 / 3) < 4 * np.sqrt((1 / 5 - 1 / 9) / n)


@pytest.mark.parametrize("kept", [None, ((0, 5, 7), tuple(range(8)))])
def test_tables_side_by_side_start_as_tables_of_their_own(kept, optimised):
    key, sizes = jax.random.key(0), (600, 396)
    # numbers near 0 agree to this many digits where a product and a sum are rounded once
    init = jax.jit(init_table, static_argnums=1)
    together, apart = (
        np.concatenate([np.ravel(part) for part in init(key, spec).values()])
        for spec in (
            EmbeddingSpec(sizes, 8, kept),
            EmbeddingSpec(sizes, 8, kept, vectors_per_field=2, separate_init=True),
        )
    )
    bounds = np.sqrt(6 / (996 + 8)), np.sqrt(6 / (996 + 4))
    for values, bound in zip((together, apart), bounds, strict=True):
        assert 0.999 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
    # the same draw at another scale
    np.testing.assert_allclose(apart, together * bounds[1] / bounds[0], rtol=1e-5)


def test_a_compact_table_starts_at_the_scale_of_the_full_one():
    spec = EmbeddingSpec((600, 392), 8, ((0,), (0, 1, 2)))
    bound = np.sqrt(6 / 1000)
    for values in init_table(jax.random.key(0), spec).values():
        assert 0.99 * bound < np.abs(np.asarray(values)).max() <= bound * (1 + 1e-6)


def test_width_groups_start_from_different_noise():
    spec = EmbeddingSpec((4, 4), 2, ((0,), (0, 1)))
    table = init_table(jax.random.key(0), spec)
    first = np.asarray(table["width_1"]).ravel()
    assert not np.isin(first, np.asarray(table["width_2"])).any()


def test_other_initialisers():
    normal = init_table(jax.random.key(0), EmbeddingSpec((1000,), 4, init="normal"))["width_4"]
    assert abs(np.asarray(normal).std() - 1) < 4 * np.sqrt(1 / 2 / 4000)
    zeros = init_table(jax.random.key(0), EmbeddingSpec((5,), 4, init="zeros"))["width_4"]
    assert not np.asarray(zeros).any()


@pytest.mark.parametrize(
    "kept",
    [
        ((0,), (1,)),  # a field short
        ((0,), (1,), (2,), (0,)),  # one too many
        ((0, 0), (), ()),  # twice
        ((1, 0), (), ()),  # not ascending
        ((3,), (), ()),  # no such coordinate
        ((-1,), (), ()),
    ],
)
def test_kept_coordinates_that_do_not_fit_are_refused(kept):
    with pytest.raises(ValueError, match="kept"):
        EmbeddingSpec(SIZES, DIM, kept)


def test_where_some_values_have_no_rows_each_array_has_one_for_them():
    spec = EmbeddingSpec(SIZES, DIM, ((0, 1), (), (2,)), stored_values=(2, 4, 1))
    assert [group.rows for group in spec.groups] == [3, 2]
    assert [group.values for group in spec.groups] == [3, 2]
    assert spec.parameters == 3 * 2 + 2 * 1
    table = init_table(jax.random.key(0), spec)
    assert {name: part.shape for name, part in table.items()} == {
        "width_2": (3, 2),
        "width_1": (2, 1),
    }


@pytest.mark.parametrize("held", [(1, 2), (1, 5, 2), (1, 2, -1)])
def test_as_many_values_have_rows_as_there_are_at_most(held):
    with pytest.raises(ValueError, match="stored_values"):
        EmbeddingSpec(SIZES, DIM, stored_values=held)


@pytest.mark.parametrize("kept", [None, ((0, 2), (), (1,))])
def test_ids_that_are_none_have_no_positions(kept):
    spec = EmbeddingSpec(SIZES, DIM, kept)
    for wrong, words in [
        (IDS + np.array([0, 0, 1]), r"hold 2 in row 1 of field 2 \(counted from 0\)"),
        (-IDS, "hold -2 in row 1 of field 0"),
        (IDS[:, :1], r"shape \[4, 1\]; \[n, 3\] is needed"),
        (IDS[0], r"shape \[3\]; \[n, 3\] is needed"),
        (IDS.astype(float), "integers are needed"),
    ]:
        for make in (np.asarray, jnp.asarray):
            with pytest.raises(InputError, match=words):
                value_index(spec, make(wrong))
        if "hold" not in words:  # under jit shapes alone are known
            with pytest.raises(InputError, match=words):
                jax.eval_shape(lambda ids: value_index(spec, ids), wrong)
