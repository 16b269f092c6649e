"""Models on the devices that predict: those of this process, or of all processes of a job."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ihas_jax import processes
from ihas_jax.models.placing import mesh_of, of_rows, place, row_bytes, splits_tables
from ihas_jax.nn.split import MULTIPLE, ROWS

SHARE = 0.5
"""The share of a device's memory that tables, and what is kept beside them, may take as a whole."""
Tree = TypeVar("Tree")


def device_bytes() -> float:
    """Memory of a device; devices of a CPU share that of the machine."""
    devices = jax.local_devices()
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return float(limit)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(devices)


def most_devices(suits: Callable[[int], bool]) -> list[jax.Device]:
    """The most devices whose number suits: in a job, of each process as many.

    Where no such number suits, they are devices of this process alone.
    """
    devices, parts = processes.devices(), processes.number()
    own = len(devices) // parts
    if numbers := [n for n in range(1, own + 1) if suits(n * parts)]:
        return [device for i, device in enumerate(devices) if i % own < numbers[-1]]
    with processes.alone():
        return most_devices(suits)


def splitting_mesh() -> Mesh:
    """The devices that can hold tables between them."""
    return mesh_of(most_devices(lambda n: MULTIPLE % n == 0), split=True)


def on_all_devices(tree: Tree) -> Tree:
    """Puts every array of a tree on all devices of this process, which then share the batches."""
    devices = jax.local_devices()
    return jax.device_put(tree) if len(devices) == 1 else place(tree, mesh_of(devices, split=False))


def hold(tree: Tree, split: bool | None = None) -> Tree:
    """Puts arrays on all devices, or leaves them on the host, for `on_devices` to split tables.

    Args:
      tree: arrays on the host.
      split: whether devices hold the rows of large tables between them; None where whole tables
        would not fit on each.
    """
    if split is None:
        split = row_bytes(tree) > SHARE * device_bytes()
    return tree if split and splits_tables(splitting_mesh()) else on_all_devices(tree)


def on_devices(tree: Tree) -> Tree:
    """Puts arrays where a program over rows reads them.

    Large tables that are NumPy arrays are split over the devices. In a job of several processes
    the devices are those of all of them, and all call this at once.
    """
    if not processes.in_job():
        return on_own_devices(tree)
    leaves = jax.tree.leaves(tree)
    if meshes := {leaf.sharding.mesh for leaf in leaves if _is_shared(leaf)}:
        return place(tree, meshes.pop())  # what was made since a training placed the rest
    split = _holds_apart(tree)
    return place(tree, splitting_mesh() if split else mesh_of(processes.devices(), split=False))


def on_own_devices(tree: Tree) -> Tree:
    """Splits the large tables of a tree that are NumPy arrays over the devices of this process."""
    if not any(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(tree)):
        return tree
    with processes.alone():
        return place(tree, splitting_mesh()) if _holds_apart(tree) else tree


def _holds_apart(tree: Any) -> bool:
    """Whether large tables of a tree are on the host, or split already."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(of_rows(tree)), strict=True)
    return any(large and (isinstance(leaf, np.ndarray) or _is_split(leaf)) for leaf, large in pairs)


def _is_split(leaf: Any) -> bool:
    sharding = getattr(leaf, "sharding", None)
    return isinstance(sharding, NamedSharding) and ROWS in sharding.spec


def _is_shared(leaf: Any) -> bool:
    """Whether other processes hold a part or a copy of an array."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
