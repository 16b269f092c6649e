"""Where the arrays of a model are: whole on every device, or tables split over them.

Outside of a training and of a call of a program, arrays have their own shapes, and are those of one
process. Those that a mesh splits are NumPy arrays there, so that no device ever holds one as a
whole, and `place` splits them again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ihas_jax.models.base import EMBEDDING, FACTORS, SELECTOR, TABLES
from ihas_jax.nn.split import DATA, MULTIPLE, ROWS, is_padded, padded_rows

Tree = TypeVar("Tree")


def mesh_of(devices: Any, *, split: bool) -> Mesh:
    """A mesh of devices that share batches, and hold tables between them if they are `split`."""
    devices = np.array(devices)
    return Mesh(devices.reshape((1, -1) if split else (-1, 1)), (DATA, ROWS))


def splits_tables(mesh: Mesh) -> bool:
    """Whether the devices of a mesh hold tables between them."""
    return mesh.shape.get(ROWS, 1) > 1


def of_rows(tree: Any, beside: Any = None) -> Any:
    """Whether each array of a tree, or its shape, has a row per value and enough rows to be split.

    Such arrays are tables, factors of tables, what optimisers keep of either, and weights of a
    selector with a row for each row of the embedding table and a column or as many as it has.

    Args:
      tree: the tree.
      beside: tables that belong to it, where it has none itself.
    """
    paths = jax.tree_util.tree_leaves_with_path((tree, {TABLES: beside}))
    tables = {_shape(leaf) for path, leaf in paths if {TABLES, EMBEDDING} <= _names(path)}
    alike = tables | {(shape[0], 1) for shape in tables if shape}

    def large(path: Any, leaf: Any) -> bool:
        names = _names(path)
        if not np.ndim(leaf) or leaf.shape[0] < MULTIPLE:
            return False
        return TABLES in names or FACTORS in names or (SELECTOR in names and _shape(leaf) in alike)

    return jax.tree_util.tree_map_with_path(large, tree)


def row_bytes(tree: Any) -> int:
    """Bytes of the arrays of a tree, or of their shapes, that a mesh can split."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(of_rows(tree)), strict=True)
    return sum(leaf.size * leaf.dtype.itemsize for leaf, large in pairs if large)


def shardings(tree: Any, mesh: Mesh, beside: Any = None) -> Any:
    """The sharding on a mesh of each array of a tree, or of its shape, that `place` has padded."""

    def sharding(leaf: Any, large: bool) -> NamedSharding:
        split = large and splits_tables(mesh) and is_padded(leaf)
        return NamedSharding(mesh, PartitionSpec(ROWS) if split else PartitionSpec())

    return jax.tree.map(sharding, tree, of_rows(tree, beside))


def place(tree: Tree, mesh: Mesh) -> Tree:
    """Puts every array of a tree on the devices of a mesh, and pads those that the mesh splits."""

    def placed(leaf: Any, large: bool) -> Any:
        if not (large and splits_tables(mesh)):
            return put(leaf, NamedSharding(mesh, PartitionSpec()))
        sharding = NamedSharding(mesh, PartitionSpec(ROWS))
        if isinstance(leaf, jax.Array) and is_padded(leaf):
            return put(leaf, sharding)
        host = np.asarray(leaf)

        def block(place: Any) -> np.ndarray:
            rows = host[place[0]]
            lacking = place[0].stop - place[0].start - len(rows)
            return np.pad(rows, ((0, lacking), *((0, 0),) * (host.ndim - 1)))

        shape = (padded_rows(len(leaf)), *leaf.shape[1:])
        return jax.make_array_from_callback(shape, sharding, block)

    return jax.tree.map(placed, tree, of_rows(tree))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Puts arrays on devices, also on those of other processes, each of which has the arrays."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: _put_everywhere(leaf, sharding), tree)


def _put_everywhere(leaf: Any, sharding: NamedSharding) -> Array:
    if isinstance(leaf, jax.Array):
        if leaf.sharding == sharding:
            return leaf
        if _is_key(leaf):
            data = _put_everywhere(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        if not leaf.is_fully_addressable:
            return _moved_to(sharding)(leaf)
    host = np.asarray(leaf)
    # device_put would have the processes compare the array
    return jax.make_array_from_callback(host.shape, sharding, lambda place: host[place])


def whole(tree: Tree, like: Any) -> Tree:
    """A tree of arrays of this process, where split ones are NumPy arrays of the shapes of `like`.

    All processes that hold the tree call this at once.
    """

    def own(leaf: Any, shape: Any) -> Any:
        sharding = getattr(leaf, "sharding", None)
        if not isinstance(sharding, NamedSharding):
            return leaf
        if ROWS not in sharding.spec:
            return leaf if sharding.is_fully_addressable else _of_this_process(leaf)
        host = np.asarray(leaf) if sharding.is_fully_addressable else _gathered(leaf)
        return host[: shape.shape[0]]

    return jax.tree.map(own, tree, like)


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _of_this_process(leaf: Any) -> Any:
    """The copies of an array on the devices of this process."""
    if _is_key(leaf):
        data = _of_this_process(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    copies = [shard.data for shard in leaf.addressable_shards]
    if len(copies) == 1:
        return copies[0]
    mesh = mesh_of([copy.device for copy in copies], split=False)
    same = NamedSharding(mesh, PartitionSpec())
    return jax.make_array_from_single_device_arrays(leaf.shape, same, copies)


def _gathered(leaf: Array) -> np.ndarray:
    """A split array whose blocks other processes hold, passed on block by block."""
    mesh = cast(NamedSharding, leaf.sharding).mesh
    program = _block_of(mesh)
    parts = [np.asarray(program(leaf, np.int32(i))) for i in range(mesh.shape[ROWS])]
    return np.concatenate(parts)


@lru_cache(maxsize=16)
def _moved_to(sharding: NamedSharding) -> Callable[[Array], Array]:
    """A program that lays an array out anew on its devices."""
    return jax.jit(lambda leaf: leaf, out_shardings=sharding)


@lru_cache(maxsize=4)
def _block_of(mesh: Mesh) -> Callable[[Array, np.int32], Array]:
    """A program that gives all devices the block of one of them."""

    def each(block: Array, number: Array) -> Array:
        # a sum of floats would lose the sign of -0
        kind = jnp.dtype(f"u{block.dtype.itemsize}")
        bits = lax.bitcast_convert_type(block, kind)
        mine = lax.axis_index(ROWS) == number
        return lax.bitcast_convert_type(lax.psum(jnp.where(mine, bits, 0), ROWS), block.dtype)

    rows, same = PartitionSpec(ROWS), PartitionSpec()
    shared = jax.shard_map(each, mesh=mesh, in_specs=(rows, same), out_specs=same, check_vma=False)
    return jax.jit(shared)


def make(function: Callable[..., Tree], mesh: Mesh, *arguments: Any, beside: Any = None) -> Tree:
    """What a pure function of arrays makes, where no device makes a whole array that is split.

    Within the function `init_table` draws the rows of each device there; `beside` as in `of_rows`.
    """
    if not splits_tables(mesh):
        return jax.jit(function)(*arguments)
    same = NamedSharding(mesh, PartitionSpec())
    arguments = put(arguments, same)
    shapes = jax.eval_shape(function, *arguments)

    def padded(*arguments: Any) -> Tree:
        made = function(*arguments)
        return jax.tree.map(_padded, made, of_rows(made, beside))

    with jax.set_mesh(mesh):
        placed = shardings(jax.eval_shape(padded, *arguments), mesh, beside)
        return whole(jax.jit(padded, out_shardings=placed)(*arguments), shapes)


def copied(tree: Tree) -> Tree:
    """A tree in new arrays, since a training takes those of its start.

    Arrays on the host stay as they are: a training copies them when it places them.
    """
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, np.ndarray) else jnp.copy(leaf), tree)


def _padded(leaf: Any, large: bool) -> Any:
    lacking = padded_rows(len(leaf)) - len(leaf) if large else 0
    return jnp.pad(leaf, ((0, lacking), *((0, 0),) * (leaf.ndim - 1))) if lacking else leaf


def _names(path: tuple[Any, ...]) -> set[Any]:
    """Keys and field names on the way to a leaf."""
    return {getattr(key, "key", getattr(key, "name", None)) for key in path}


def _shape(leaf: Any) -> tuple[int, ...]:
    """The shape with padded rows."""
    return (padded_rows(leaf.shape[0]), *leaf.shape[1:]) if np.ndim(leaf) else ()
