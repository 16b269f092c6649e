"""Arrays of one row per value, such as tables, whose rows are split over the devices of a mesh.

A mesh has two axes: every device has rows of a batch of its own, and devices along `ROWS` hold the
rows of an array between them, in blocks. Where that axis has one device, each holds all rows. An
array of at least `MULTIPLE` rows is padded with zeros to a multiple of that number, which does not
depend on the number of devices; a smaller one is not worth it and stays whole.

Code that is compiled under `jax.set_mesh` reads and updates such arrays with the functions of this
module, which move rows of the batch and never an array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec

DATA, ROWS = "data", "rows"
"""Names of the axes of a mesh."""
MULTIPLE = 3840
"""2^8 * 3 * 5: devices whose number divides it can split an array, up to 256 of them."""
Tree = TypeVar("Tree")


class Block(NamedTuple):
    """A device's rows of a split array, in a program that each device runs for itself.

    Attributes:
      rows: `[V / P, ...]`, for P devices along `ROWS`.
    """

    rows: Array


def padded_rows(rows: int) -> int:
    """Rows of an array of `rows` rows where it is split."""
    return rows if rows < MULTIPLE else -(-rows // MULTIPLE) * MULTIPLE


def splitting() -> bool:
    """Whether the devices that compute hold large arrays between them."""
    return bool(jax.sharding.get_abstract_mesh().shape.get(ROWS, 1) > 1)


def is_split(array: Any) -> bool:
    """Whether the devices that compute hold the array `[V, ...]` between them."""
    return isinstance(array, Block) or (splitting() and is_padded(array))


def is_padded(array: Any) -> bool:
    """Whether an array `[V, ...]` has a number of rows that devices can split."""
    return array.shape[0] >= MULTIPLE and array.shape[0] % MULTIPLE == 0


def read_rows(array: Array | Block, index: Array) -> Array:
    """`array[index]` for an array `[V, ...]`, split or not, and an index `[B, ...]` in 0..V-1.

    Of a split array each device reads the rows that it holds, for all devices, and they exchange
    what they have read.
    """
    if isinstance(array, Block):
        return _exchanged(array.rows, index)
    if not is_split(array):
        return array.at[index].get(mode="promise_in_bounds")
    mesh = jax.sharding.get_abstract_mesh()
    if len(index) % mesh.size == 0:
        batch, read = PartitionSpec((DATA, ROWS)), _exchanged
    else:
        batch, read = PartitionSpec(), _summed
    shared = jax.shard_map(
        read, in_specs=(PartitionSpec(ROWS), batch), out_specs=batch, check_vma=False
    )
    return shared(array, index)


def _exchanged(block: Array, index: Array) -> Array:
    """The rows that this device asks for, as each of the devices along `ROWS` does."""
    asked = lax.all_gather(index, ROWS, tiled=True)
    return lax.psum_scatter(_own(block, asked), ROWS, tiled=True)


def _summed(block: Array, index: Array) -> Array:
    """The rows that all devices along `ROWS` ask for."""
    return lax.psum(_own(block, index), ROWS)


def _own(block: Array, index: Array) -> Array:
    """The rows of this device's block, and zeros in place of others."""
    return block.at[local_index(block, index)].get(mode="fill", fill_value=0)


def local_index(block: Array, index: Array) -> Array:
    """The index in this device's block; its length for rows of other devices."""
    local = index - lax.axis_index(ROWS) * len(block)
    return jnp.where((local >= 0) & (local < len(block)), local, len(block))


def make_blocks(block: Callable[[Array, int], Array], rows: int) -> Array:
    """An array `[rows, ...]`, which devices split if they can, and each of which makes its block.

    Args:
      block: `(first row, number of rows) -> those rows`.
      rows: the number of all rows, padded.
    """
    devices = jax.sharding.get_abstract_mesh().shape[ROWS]
    if rows % MULTIPLE:
        return block(jnp.int32(0), rows)

    def each() -> Array:
        return block(lax.axis_index(ROWS) * (rows // devices), rows // devices)

    return jax.shard_map(each, in_specs=(), out_specs=PartitionSpec(ROWS), check_vma=False)()


def on_blocks(function: Callable[..., Tree], arrays: Any, index: Array, *others: Array) -> Tree:
    """Calls `function(blocks, local index, *others)` on every device.

    Args:
      function: a function that leaves out an index that is the length of a block. It returns
        arrays that are split as the given ones.
      arrays: a tree of split arrays.
      index: `[P]`, rows of them, each in 0..V-1, which all devices get.
      others: arrays that all devices get, such as a gradient `[P, d]`.
    """

    def each(blocks: Any, index: Array, *others: Array) -> Tree:
        first = jax.tree.leaves(blocks)[0]
        return function(blocks, local_index(first, index), *others)

    split, same = PartitionSpec(ROWS), PartitionSpec()
    specs = (split, same, *(same for _ in others))
    shared = jax.shard_map(each, in_specs=specs, out_specs=split, check_vma=False)
    return shared(arrays, index, *others)
