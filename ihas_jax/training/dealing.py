"""Rows of a round on the devices that use them, where the log does not stay on the devices."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ihas_jax import processes
from ihas_jax.data.dataset import Split


class Dealt(NamedTuple):
    """The rows of a round, of which each of P devices has those of its part of each batch.

    Attributes:
      ids: `[P, R * B / P, N]`.
      labels: `[P, R * B / P]`.
    """

    ids: Array
    labels: Array


def part_of(mesh: Mesh) -> tuple[int, int]:
    """The part of each batch that this process reads, and the number of parts."""
    number = len({device.process_index for device in mesh.devices.flat})
    return (processes.index(), number) if number > 1 else (0, 1)


def deal_rows(split: Split, batches: int, mesh: Mesh) -> Dealt:
    """Deals this process's rows of a round out to its devices.

    Args:
      split: `[R * B / n]` rows, batch by batch, for one of n processes.
      batches: R.
      mesh: the devices of all processes, P.
    """
    own = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    devices = len(mesh.local_devices)

    def deal(part: np.ndarray) -> Array:
        rows = part.reshape(batches, devices, -1, *part.shape[1:])
        mine = rows.swapaxes(0, 1).reshape(devices, -1, *part.shape[1:])
        shape = (mesh.size, *mine.shape[1:])
        return jax.make_array_from_process_local_data(own, mine, shape)

    return Dealt(*map(deal, split))


def dealt_numbers(batches: int, size: int, mesh: Mesh) -> np.ndarray:
    """The numbers `[R, B]` of dealt rows: each device counts its own, batch by batch."""
    share = size // mesh.size
    numbers = np.arange(batches * share, dtype=np.int32).reshape(batches, share)
    return np.tile(numbers, (1, mesh.size))


def take_dealt(dealt: Dealt, rows: Array) -> tuple[Array, ...]:
    """Ids `[B, N]` and labels `[B]` of a batch; each device takes its own."""
    batch = PartitionSpec(jax.sharding.get_abstract_mesh().axis_names)

    @partial(jax.shard_map, in_specs=(batch, batch), out_specs=batch)
    def take(part: Array, rows: Array) -> Array:
        return part[0].at[rows].get(mode="promise_in_bounds")

    return tuple(take(part, rows) for part in dealt)
