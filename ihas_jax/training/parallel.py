"""Data parallelism: a mesh for `jit`, and a wrapper for `pmap`.

Both give the numbers of a single device: gradients are means over the whole batch and gate
noise depends on a row's place in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ihas_jax.errors import InputError
from ihas_jax.training.steps import Batch, Metrics

State = TypeVar("State")
Tree = TypeVar("Tree")
_AXIS = "data"


def data_mesh(batch_size: int) -> Mesh:
    """A mesh of all devices, or of one where they don't divide the batch evenly."""
    devices = jax.devices()
    if batch_size % len(devices):
        devices = devices[:1]
    return Mesh(np.array(devices), (_AXIS,))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Puts every array of a tree on all devices of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_rows(rows: np.ndarray, mesh: Mesh) -> Array:
    """Puts row numbers `[R, B]` on the mesh, split along B.

    Raises:
      InputError: they are not integers `[R, B]` from 0 on, or the devices don't divide B evenly.
    """
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.dtype.kind not in "iu" or rows.shape[1] % mesh.size:
        raise InputError(
            f"Row numbers are {rows.dtype} {list(rows.shape)}; integers [R, B] are needed, where B "
            f"is a multiple of the {mesh.size} devices."
        )
    if rows.size and rows.min() < 0:
        raise InputError(f"Row numbers hold {rows.min()}; rows count from 0.")
    return jax.device_put(rows, NamedSharding(mesh, PartitionSpec(None, _AXIS)))


def pmap_step(
    step: Callable[..., tuple[State, Metrics]], *, axis_name: str = _AXIS
) -> Callable[..., tuple[State, Metrics]]:
    """Runs a step on every device by `jax.pmap`, each on its part of the batch.

    Args:
      step: a step made with the same `axis_name`, as its model is.
      axis_name: name of the mapped axis.

    Returns:
      `step(state, *batches)` for the state of a single device and whole batches, whose sizes are
      multiples of the number of devices.
    """
    devices = jax.local_device_count()

    def split(batch: Batch) -> Batch:
        def cut(part: Any) -> Any:
            if part.shape[0] % devices:
                raise ValueError(f"batch of {part.shape[0]} rows on {devices} devices")
            return part.reshape(devices, -1, *part.shape[1:])

        return jax.tree.map(cut, batch)

    def run(state: State, *batches: Batch) -> tuple[State, Metrics]:
        mapped = jax.pmap(
            step, axis_name=axis_name, in_axes=(None, *(0,) * len(batches)), out_axes=None
        )
        return mapped(state, *(split(batch) for batch in batches))

    return run
