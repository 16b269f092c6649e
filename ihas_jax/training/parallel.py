"""Data parallelism: a mesh for `jit`, and a wrapper for `pmap`.

Both give the numbers of a single device: gradients are means over the whole batch and gate
noise depends on a row's place in the batch. Under `jit` XLA averages; under `pmap` the step does,
over the axis of its model.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ihas_jax import processes
from ihas_jax.errors import InputError
from ihas_jax.models.local import most_devices
from ihas_jax.models.placing import mesh_of, put
from ihas_jax.nn.split import DATA, MULTIPLE
from ihas_jax.progress import warn
from ihas_jax.training.steps import Batch, Metrics

State = TypeVar("State")
Tree = TypeVar("Tree")


def data_mesh(batch_size: int, *, split_tables: bool = False) -> Mesh:
    """A mesh of all devices, or of the most that divide a batch evenly, which is then said.

    In a job of several processes it has as many devices of each; where their number does not
    divide a batch, each process computes all of it by itself.

    Args:
      batch_size: rows of a batch, which the devices share.
      split_tables: whether devices hold the rows of large tables between them; see
        `ihas_jax.nn.split`.
    """
    devices, parts = processes.devices(), processes.number()

    def holds(number: int) -> bool:
        return not split_tables or MULTIPLE % number == 0

    known = most_devices(holds)
    used = most_devices(lambda n: holds(n) and batch_size % n == 0)
    if parts > 1 and len({device.process_index for device in used}) == 1:
        warn(
            f"Each of {parts} processes computes whole batches by itself, since they do not divide "
            f"a batch of {batch_size} rows evenly; batches of a multiple of {parts} rows "
            "(--train.batch-size) are shared."
        )
    elif len(used) < len(known):
        warn(
            f"{len(used)} of {len(devices)} devices compute, the most that divide a batch of "
            f"{batch_size} rows evenly; batches of a multiple of {len(known)} rows "
            "(--train.batch-size) use more."
        )
    elif len(used) < len(devices):
        warn(
            f"{len(used)} of {len(devices)} devices compute, since tables are split over a divisor "
            f"of {MULTIPLE} devices alone."
        )
    return mesh_of(used, split=split_tables)


def computing_on(mesh: Mesh) -> AbstractContextManager[Any]:
    """Tells a step that is compiled while the block runs which devices share its batches.

    Row-wise tables and tables that are split need that; see `ihas_jax.training.optimizers`.
    """
    return jax.set_mesh(mesh) if mesh.size > 1 else nullcontext()


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Puts every array of a tree on all devices of the mesh."""
    return put(tree, NamedSharding(mesh, PartitionSpec()))


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
    return put(rows, NamedSharding(mesh, PartitionSpec(None, mesh.axis_names)))


def pmap_step(
    step: Callable[..., tuple[State, Metrics]], *, axis_name: str = DATA
) -> Callable[..., tuple[State, Metrics]]:
    """Runs a step on every device by `jax.pmap`, each on its part of the batch.

    The state is that of a single device, with a copy of each array on every device. A step takes
    over the arrays of the state that it is given, as `jit` does with `donate_argnums=0`, so that
    nothing is copied between steps: go on with the state that it returns.

    Args:
      step: `step(state, *batches)` of a model that was built with the same `axis_name`.
      axis_name: name of the mapped axis.

    Returns:
      `step(state, *batches) -> (state, metrics)` for whole batches. It raises an InputError where
      a batch's rows are not a multiple of the devices, and where the new state or a metric
      would depend on the device, since the step or a part of it does not average over the axis.
    """
    mesh = Mesh(np.array(jax.local_devices()), (axis_name,))
    spread = NamedSharding(mesh, PartitionSpec(axis_name))
    copied = NamedSharding(mesh, PartitionSpec())

    def each(state: State, parts: tuple[Batch, ...]) -> tuple[State, Metrics]:
        # runs once per program, when it is traced
        _require_equal(step, axis_name, state, parts)
        return step(state, *parts)

    mapped = jax.pmap(each, axis_name=axis_name, in_axes=(None, 0), out_axes=None, donate_argnums=0)

    def run(state: State, *batches: Batch) -> tuple[State, Metrics]:
        parts = jax.tree.map(lambda part: _split(part, mesh.size), batches)
        # device_put takes longer than a look, even where there is nothing to do
        if any(getattr(leaf, "sharding", None) != copied for leaf in jax.tree.leaves(state)):
            state = jax.device_put(state, copied)
        return mapped(state, jax.device_put(parts, spread))

    return run


def _split(part: Any, devices: int) -> Any:
    """`[B, ...]` as `[P, B / P, ...]`."""
    rows = len(part)
    if not rows or rows % devices:
        raise InputError(
            f"A batch of {rows} rows can't be split evenly among {devices} devices. pmap needs "
            f"batches of a multiple of {devices} rows."
        )
    return part.reshape(devices, rows // devices, *part.shape[1:])


def _require_equal(
    step: Callable[..., Any], axis_name: str, state: Any, parts: tuple[Batch, ...]
) -> None:
    """Refuses a step whose results depend on the device; nothing is computed.

    `vmap` knows which results of a function depend on the place along the mapped axis, however
    the function is wrapped, and `pmap` does not: it returns those of the first device.

    Raises:
      InputError: the step returns such a result, or averages over another axis.
    """
    differing: list[str] = []

    @custom_vmap
    def look(results: Any) -> Any:
        return results

    @look.def_vmap
    def note(axis_size: int, in_batched: list[Any], results: Any) -> tuple[Any, Any]:
        for (place, *path), batched in jax.tree_util.tree_leaves_with_path(in_batched[0]):
            if batched:
                result = ("state", "metrics")[place.idx]
                differing.append(result + jax.tree_util.keystr(tuple(path)))
        return results, in_batched[0]

    def everywhere(state: Any, parts: tuple[Batch, ...]) -> Any:
        return look(step(state, *parts))

    size = lax.axis_size(axis_name)
    whole = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape), x.dtype), parts)
    try:
        jax.eval_shape(jax.vmap(everywhere, (None, 0), axis_name=axis_name), state, whole)
    except NameError as error:
        if "axis name" not in str(error):
            raise
        raise InputError(
            f"The step averages over another axis than '{axis_name}' "
            f"({str(error).partition('.')[0]}). Give build_model and pmap_step the same axis_name."
        ) from None
    if differing:
        raise InputError(
            f"Of the arrays that the step returns, {len(differing)} would differ from device to "
            f"device, such as {', '.join(differing[:3])}: the step does not average them over the "
            f"axis '{axis_name}'. Build its model with axis_name='{axis_name}'; in a step of your "
            "own, average gradients, statistics and metrics by jax.lax.pmean over that axis."
        )
