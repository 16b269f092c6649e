"""Models on the devices of this process, for programs that predict."""

from __future__ import annotations

import os
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from ihas_jax.models.placing import mesh_of, of_rows, place, row_bytes, splits_tables
from ihas_jax.nn.split import MULTIPLE

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


def splitting_mesh() -> Mesh:
    """The devices of this process that can hold tables between them."""
    devices = jax.local_devices()
    number = max(n for n in range(1, len(devices) + 1) if MULTIPLE % n == 0)
    return mesh_of(devices[:number], split=True)


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
    """Splits the large tables of a tree that are NumPy arrays over the devices of this process."""
    leaves = jax.tree.leaves(tree)
    if not any(isinstance(leaf, np.ndarray) for leaf in leaves):
        return tree
    pairs = zip(leaves, jax.tree.leaves(of_rows(tree)), strict=True)
    large = any(isinstance(leaf, np.ndarray) and of_values for leaf, of_values in pairs)
    return place(tree, splitting_mesh()) if large else tree
