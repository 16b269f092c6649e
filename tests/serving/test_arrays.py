"""Arrays of a bundle on disk: files that any language reads, without zeros."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.errors import InputError
from ihas_jax.serving.arrays import read_arrays, write_arrays


class Pair(NamedTuple):
    bits: np.ndarray
    ranks: np.ndarray


@pytest.fixture
def tree():
    rng = np.random.default_rng(0)
    sparse = rng.normal(size=(30, 7)).astype(np.float32)
    sparse[rng.random((30, 7)) < 0.9] = 0
    return {
        "table": {"width 2/a": rng.normal(size=(5, 2)).astype(np.float32), "sparse": sparse},
        "subset": Pair(np.array([3, 0], np.uint32), np.array([0, 2], np.int32)),
        "counts": np.array([0, 0, 0, 2**40]),
        "scalar": np.float32(0.5) + np.zeros((), np.float32),
        "none": np.zeros((0, 4), np.float32),
    }


def assert_same(found, tree):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert jax.tree.structure(found) == jax.tree.structure(tree)


def test_what_is_read_is_what_was_written(tree, tmp_path):
    write_arrays(tmp_path / "arrays", tree)
    assert_same(read_arrays(tmp_path / "arrays", tree), tree)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree["table"])
    assert_same(read_arrays(tmp_path / "arrays", {"table": shapes}), {"table": tree["table"]})


@given(st.integers(0, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_any_share_of_zeros_is_kept(tmp_path_factory, size, share, seed):
    rng = np.random.default_rng(seed)
    array = (rng.normal(size=size) * (rng.random(size) < share)).astype(np.float32)
    folder = tmp_path_factory.mktemp("any") / "arrays"
    write_arrays(folder, {"x": array})
    assert_same(read_arrays(folder, {"x": array}), {"x": array})


def test_zeros_take_a_bit(tree, tmp_path):
    write_arrays(tmp_path / "arrays", tree)
    numbers = np.load(tmp_path / "arrays" / "table.sparse.npy")
    bits = np.load(tmp_path / "arrays" / "table.sparse.nonzero.npy")
    sparse = tree["table"]["sparse"]
    np.testing.assert_array_equal(numbers, sparse[sparse != 0])
    assert bits.nbytes == -(-sparse.size // 8)
    flags = [int(bits[i // 8]) >> (i % 8) & 1 for i in range(sparse.size)]
    np.testing.assert_array_equal(np.array(flags).reshape(sparse.shape), sparse != 0)
    names = {path.name for path in (tmp_path / "arrays").iterdir()}
    assert {"counts.npy", "subset.bits.npy", "table.width%202%2Fa.npy"} <= names
    assert [name for name in names if "nonzero" in name] == ["table.sparse.nonzero.npy"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), r"counts\.npy can't be read \(.*No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), r"counts\.npy can't be read"),
        (lambda path: path.write_bytes(b""), r"counts\.npy can't be read"),
        (lambda path: np.save(path, np.array([{}])), r"can't be read \(Object arrays cannot"),
        (
            lambda path: np.save(path, np.arange(3)),
            r"is int64 \[3\] where the model has int",
        ),
        (lambda path: np.save(path, np.zeros(4)), r"is float64 \[4\] where"),
    ],
)
def test_an_array_that_is_none_of_the_tree_is_named(tree, tmp_path, change, words):
    write_arrays(tmp_path / "arrays", tree)
    change(tmp_path / "arrays" / "counts.npy")
    with pytest.raises(InputError, match=words):
        read_arrays(tmp_path / "arrays", tree)


def test_every_flipped_bit_of_a_header_is_an_input_error_or_none(tree, tmp_path):
    write_arrays(tmp_path / "arrays", tree)
    path = tmp_path / "arrays" / "counts.npy"
    before = path.read_bytes()
    unread = 0
    for place, bit in itertools.product(range(len(before) - tree["counts"].nbytes), range(8)):
        damaged = bytearray(before)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            assert_same(read_arrays(tmp_path / "arrays", tree), tree)
        except InputError as error:
            assert str(error).startswith(f"{path} ")
            unread += 1
    assert unread > 800


def test_bits_of_another_array_are_no_bits_of_this_one(tree, tmp_path):
    write_arrays(tmp_path / "arrays", tree)
    path = tmp_path / "arrays" / "table.sparse.nonzero.npy"
    np.save(path, np.zeros_like(np.load(path)))
    with pytest.raises(InputError, match=r"table\.sparse\.npy can't be read"):
        read_arrays(tmp_path / "arrays", tree)
