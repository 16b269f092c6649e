"""What compact tables keep of full-size ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.nn.compact import carry_kept, slice_table
from ihas_jax.nn.embedding import EmbeddingSpec, init_table

SIZES, DIM = (3, 4, 2), 3
UNIFORM = EmbeddingSpec(SIZES, DIM)


def test_values_go_with_tables_that_lack_some():
    table = {"width_3": jnp.zeros((9, 3))}
    for target, values in (
        (EmbeddingSpec(SIZES, DIM, stored_values=(3, 4, 2)), None),
        (UNIFORM, np.ones(9, bool)),
    ):
        with pytest.raises(ValueError, match="only there"):
            slice_table(UNIFORM, table, target, values)


def test_only_values_with_rows_are_taken_behind_a_row_of_zeros():
    table = jnp.arange(27.0).reshape(9, 3)
    values = np.array([1, 0, 1, 0, 1, 0, 0, 0, 1], bool)
    target = EmbeddingSpec(SIZES, DIM, ((0, 2), (1, 2), (1,)), stored_values=(2, 1, 1))
    found = slice_table(UNIFORM, {"width_3": table}, target, values)
    np.testing.assert_array_equal(found["width_2"], [[0, 0], [0, 2], [6, 8], [13, 14]])
    np.testing.assert_array_equal(found["width_1"], [[0], [25]])


@pytest.mark.parametrize(
    "source",
    [
        EmbeddingSpec((3, 4, 3), DIM),
        EmbeddingSpec(SIZES, 4),
        EmbeddingSpec(SIZES, DIM, ((0,), (0,), (0,))),
    ],
)
def test_only_a_uniform_table_of_the_same_shape_is_sliced(source):
    with pytest.raises(ValueError, match="uniform source"):
        slice_table(source, init_table(jax.random.key(0), source), UNIFORM)


KEPT = ((0, 2), (), (1,))


def test_a_table_of_the_same_shape_keeps_what_another_keeps():
    assert carry_kept(KEPT, UNIFORM, UNIFORM) == KEPT
    one = EmbeddingSpec(SIZES, 1)
    assert carry_kept(((0,), (), (0,)), one, one) == ((0,), (), (0,))


def test_each_of_several_vectors_side_by_side_keeps_the_same_coordinates():
    target = EmbeddingSpec(SIZES, 3 * DIM, vectors_per_field=3)
    carried = carry_kept(KEPT, UNIFORM, target)
    assert carried == ((0, 2, 3, 5, 6, 8), (), (1, 4, 7))
    mask, wide = (
        np.array([[j in field for j in range(dim)] for field in kept])
        for kept, dim in ((KEPT, DIM), (carried, 3 * DIM))
    )
    np.testing.assert_array_equal(wide.reshape(3, 3, DIM), np.stack([mask] * 3, axis=1))
    assert EmbeddingSpec(SIZES, 3 * DIM, carried).parameters == 3 * (3 * 2 + 2)


def test_a_field_that_keeps_nothing_loses_its_single_number():
    assert carry_kept(KEPT, UNIFORM, EmbeddingSpec(SIZES, 1)) == ((0,), (), (0,))


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (UNIFORM, EmbeddingSpec(SIZES, 4), "vectors have 3 coordinates, not 4"),
        (UNIFORM, EmbeddingSpec(SIZES, 2 * DIM), "vectors have 3 coordinates, not 6"),
        (
            UNIFORM,
            EmbeddingSpec(SIZES, 4 * DIM, vectors_per_field=6),
            "vectors have 3 coordinates, not 2",
        ),
        (
            EmbeddingSpec(SIZES, 6),
            EmbeddingSpec(SIZES, 6, vectors_per_field=2),
            "6 coordinates, not 3",
        ),
        (EmbeddingSpec(SIZES, 6, vectors_per_field=2), UNIFORM, "has 2 vectors for each field"),
    ],
)  # fmt: skip
def test_coordinates_are_not_carried_to_vectors_of_another_size(source, target, words):
    with pytest.raises(ValueError, match=words):
        carry_kept(KEPT, source, target)
