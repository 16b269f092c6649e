"""The compiled loop over the batches of a chunk, on one device or dealt out to several."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ihas_jax.models.placing import put, splits_tables
from ihas_jax.nn.split import ROWS, Block, splitting

Specs = tuple[PartitionSpec, ...]
"""How devices hold each array of a tree."""


def compile_chunks(function: Callable[[Any, Array, Array], Any]) -> Callable[..., Any]:
    """`(params, ids, count, mesh, specs) -> (outputs, sums)` over `count` rows.

    Ids are `[n, B, N]`, and outputs `[n, B, ...]`. With a mesh of P devices they are
    `[n / P, P, B, N]` and `[n / P, P, B, ...]`, where each device has its place on the second axis:
    whole batches, so that a row has the numbers that one device gives it. The specs say how they
    hold the parameters.

    Products are of float32 on every device. By default JAX rounds their factors to 10 bits on a
    GPU: predictions moved by 3e-4, and some rows went to another cluster.
    """

    def loop(params: Any, ids: Array, count: Array, first: Any = 0, stride: int = 1) -> Any:
        size = ids.shape[1]
        # devices that read tables for each other go through as many batches
        ahead = 0 if splitting() else first

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
        return lax.fori_loop(0, -(-(-(-count // size) - ahead) // stride), body, start)

    @partial(jax.jit, static_argnums=(3, 4))
    def program(
        params: Any, ids: Array, count: Array, mesh: Mesh | None = None, specs: Specs = ()
    ) -> Any:
        if mesh is None:
            return loop(params, ids, count)
        names, devices = mesh.axis_names, mesh.size

        def part(params: Any, ids: Array, count: Array) -> Any:
            params = jax.tree.map(
                lambda leaf, own: Block(leaf) if ROWS in own else leaf, params, held
            )
            outputs, sums = loop(params, ids[:, 0], count, lax.axis_index(names), devices)
            return jax.tree.map(lambda leaf: leaf[:, None], outputs), lax.psum(sums, names)

        same, own = PartitionSpec(), PartitionSpec(None, names)
        held = jax.tree.unflatten(jax.tree.structure(params), specs)
        shared = jax.shard_map(
            part, mesh=mesh, in_specs=(held, own, same), out_specs=(own, same), check_vma=False
        )
        return shared(params, ids, count)

    return program


def sharing(params: Any, batches: int) -> tuple[Mesh | None, Specs]:
    """The devices that hold the parameters, if batches can be dealt out to them evenly, and how."""
    leaves = jax.tree.leaves(params)
    mesh = _mesh(leaves)
    if mesh is None or batches % mesh.size:
        return None, ()
    return mesh, tuple(_spec(leaf) for leaf in leaves)


def reading(params: Any) -> AbstractContextManager[Any]:
    """Tells a program that is compiled while the block runs which devices split its tables."""
    mesh = _mesh(jax.tree.leaves(params))
    return nullcontext() if mesh is None or not splits_tables(mesh) else jax.set_mesh(mesh)


def _mesh(leaves: list[Any]) -> Mesh | None:
    held = getattr(leaves[0], "sharding", None) if leaves else None
    if not isinstance(held, NamedSharding) or not isinstance(held.mesh, Mesh) or held.mesh.size < 2:
        return None
    return held.mesh if held.is_fully_replicated or splits_tables(held.mesh) else None


def _spec(leaf: Any) -> PartitionSpec:
    held = getattr(leaf, "sharding", None)
    return held.spec if isinstance(held, NamedSharding) else PartitionSpec()


def deal(ids: np.ndarray, mesh: Mesh) -> Array:
    """Deals batches of ids `[n, B, N]` out to devices, as `[n / P, P, B, N]`."""
    own = NamedSharding(mesh, PartitionSpec(None, mesh.axis_names))
    return put(ids.reshape(-1, mesh.size, *ids.shape[1:]), own)


def join(leaf: Array, mesh: Mesh | None, rows: int) -> np.ndarray:
    """The first rows of `[n, B, ...]`, or on a mesh of `[n / P, P, B, ...]`."""
    host = np.asarray(_everywhere(leaf))
    return host.reshape(-1, *host.shape[2 if mesh is None else 3 :])[:rows]


def _everywhere(leaf: Array) -> Array:
    """An array with a copy on every device, if other processes hold a part of it."""
    held = leaf.sharding
    if leaf.is_fully_addressable or not isinstance(held, NamedSharding):
        return leaf
    return put(leaf, NamedSharding(held.mesh, PartitionSpec()))
