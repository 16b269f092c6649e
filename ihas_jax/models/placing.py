"""Where the arrays of a model are: whole on every device, or tables split over them.

Outside of a training and of a call of a program, arrays have their own shapes. Those that a mesh
splits are NumPy arrays there, so that no device ever holds one as a whole, and `place` splits them
again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
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

    def put(leaf: Any, large: bool) -> Any:
        if not (large and splits_tables(mesh)):
            return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec()))
        sharding = NamedSharding(mesh, PartitionSpec(ROWS))
        if isinstance(leaf, jax.Array) and is_padded(leaf):
            return jax.device_put(leaf, sharding)
        host = np.asarray(leaf)

        def block(place: Any) -> np.ndarray:
            rows = host[place[0]]
            lacking = place[0].stop - place[0].start - len(rows)
            return np.pad(rows, ((0, lacking), *((0, 0),) * (host.ndim - 1)))

        shape = (padded_rows(len(leaf)), *leaf.shape[1:])
        return jax.make_array_from_callback(shape, sharding, block)

    return jax.tree.map(put, tree, of_rows(tree))


def whole(tree: Tree, like: Any) -> Tree:
    """A tree whose split arrays are NumPy arrays without padding, of the shapes of `like`."""

    def trim(leaf: Any, shape: Any) -> Any:
        sharding = getattr(leaf, "sharding", None)
        if not isinstance(sharding, NamedSharding) or ROWS not in sharding.spec:
            return leaf
        return np.asarray(leaf)[: shape.shape[0]]

    return jax.tree.map(trim, tree, like)


def make(function: Callable[..., Tree], mesh: Mesh, *arguments: Any, beside: Any = None) -> Tree:
    """What a pure function of arrays makes, where no device makes a whole array that is split.

    Within the function `init_table` draws the rows of each device there; `beside` as in `of_rows`.
    """
    if not splits_tables(mesh):
        return jax.jit(function)(*arguments)
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
