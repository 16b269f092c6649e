"""The compiled loop over the batches of a chunk, on one device or dealt out to several."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


def on_all_devices(tree: Tree) -> Tree:
    """Puts every array of a tree on all devices of this process, which then share the batches."""
    devices = np.array(jax.local_devices())
    if devices.size == 1:
        return jax.device_put(tree)
    return jax.device_put(tree, NamedSharding(Mesh(devices, ("data",)), PartitionSpec()))


def compile_chunks(function: Callable[[Any, Array, Array], Any]) -> Callable[..., Any]:
    """`(params, ids, count, mesh) -> (outputs, sums)` over `count` rows.

    Ids are `[n, B, N]`, and outputs `[n, B, ...]`. With a mesh of P devices they are
    `[n / P, P, B, N]` and `[n / P, P, B, ...]`, where each device has its place on the second axis:
    whole batches, so that a row has the numbers that one device gives it.

    Products are of float32 on every device. By default JAX rounds their factors to 10 bits on a
    GPU: predictions moved by 3e-4, and some rows went to another cluster.
    """

    def loop(params: Any, ids: Array, count: Array, first: Any = 0, stride: int = 1) -> Any:
        size = ids.shape[1]

        def one(i: Array) -> Any:
            with jax.default_matmul_precision("float32"):
                rows = count - (first + i * stride) * size
                return function(params, ids[i], jnp.arange(size) < rows)

        def body(i: Array, carry: Any) -> Any:
            outputs, sums = one(i)
            stacked = jax.tree.map(lambda leaf, part: leaf.at[i].set(part), carry[0], outputs)
            return stacked, jax.tree.map(jnp.add, carry[1], sums)

        outputs, sums = jax.eval_shape(one, jax.ShapeDtypeStruct((), jnp.int32))
        start = (
            jax.tree.map(lambda leaf: jnp.zeros((len(ids), *leaf.shape), leaf.dtype), outputs),
            jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sums),
        )
        return lax.fori_loop(0, -(-(-(-count // size) - first) // stride), body, start)

    @partial(jax.jit, static_argnums=3)
    def program(params: Any, ids: Array, count: Array, mesh: Mesh | None = None) -> Any:
        if mesh is None:
            return loop(params, ids, count)
        names, devices = mesh.axis_names, mesh.size

        def part(params: Any, ids: Array, count: Array) -> Any:
            outputs, sums = loop(params, ids[:, 0], count, lax.axis_index(names), devices)
            return jax.tree.map(lambda leaf: leaf[:, None], outputs), lax.psum(sums, names)

        same, own = PartitionSpec(), PartitionSpec(None, names)
        shared = jax.shard_map(
            part, mesh=mesh, in_specs=(same, own, same), out_specs=(own, same), check_vma=False
        )
        return shared(params, ids, count)

    return program


def sharing(params: Any, batches: int) -> Mesh | None:
    """The devices that all hold the parameters, if batches can be dealt out to them evenly."""
    held = getattr(next(iter(jax.tree.leaves(params)), None), "sharding", None)
    if not isinstance(held, NamedSharding) or not held.is_fully_replicated:
        return None
    mesh = held.mesh
    if not isinstance(mesh, Mesh) or mesh.size == 1 or batches % mesh.size:
        return None
    return mesh


def deal(ids: np.ndarray, mesh: Mesh) -> Array:
    """Deals batches of ids `[n, B, N]` out to devices, as `[n / P, P, B, N]`."""
    own = NamedSharding(mesh, PartitionSpec(None, mesh.axis_names))
    return jax.device_put(ids.reshape(-1, mesh.size, *ids.shape[1:]), own)


def join(leaf: Array, mesh: Mesh | None, rows: int) -> np.ndarray:
    """The first rows of `[n, B, ...]`, or on a mesh of `[n / P, P, B, ...]`."""
    host = np.asarray(leaf)
    return host.reshape(-1, *host.shape[2 if mesh is None else 3 :])[:rows]
