"""Whether the devices of a training each hold its tables, or hold them between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ihas_jax import processes
from ihas_jax.config import TrainConfig
from ihas_jax.models.base import TABLES
from ihas_jax.models.local import SHARE, device_bytes
from ihas_jax.models.placing import row_bytes, shardings, splits_tables
from ihas_jax.progress import say
from ihas_jax.training.parallel import data_mesh
from ihas_jax.training.row_tables import is_deferred
from ihas_jax.training.steps import TrainState, settle


def training_mesh(config: TrainConfig, state: TrainState) -> Mesh:
    """The devices of a training, and whether they split its tables (`train.table_sharding`).

    Args:
      config: the choices of training.
      state: the state, or the shapes of its arrays.
    """
    return data_mesh(config.batch_size, split_tables=splits(config, state))


def say_split(title: str, mesh: Mesh, state: TrainState) -> None:
    """Says how much of the tables each device holds, if they are split."""
    if splits_tables(mesh):
        total = row_bytes(state)
        say(
            f"[{title}] {mesh.size} devices hold the tables and their moments between them, "
            f"{total / mesh.size / 1e6:,.1f} of {total / 1e6:,.1f} MB each"
        )


def compile_round(
    round_: Callable[..., Any], state: Any, mesh: Mesh, *, seeds: bool = False
) -> jax.stages.Wrapped:
    """Compiles a round that takes over the arrays of its state, and leaves them where they are.

    Args:
      round_: `round_(state, ...) -> (state, metrics)`.
      state: the state of one seed, as it is on the devices.
      mesh: the devices.
      seeds: whether the round is one of the stacked states of several seeds.
    """
    if not splits_tables(mesh):
        return jax.jit(round_, donate_argnums=0)
    same = NamedSharding(mesh, PartitionSpec())
    layout = stacked_shardings(state, mesh) if seeds else shardings(state, mesh)
    return jax.jit(round_, donate_argnums=0, out_shardings=(layout, same))


def compile_settle(
    state: Any, mesh: Mesh, over: Callable[..., Any] | None = None
) -> Callable[[Any], Any]:
    """Compiles `settle` for a state as a round of `compile_round` leaves it.

    Args:
      state: the state of one seed, as it is on the devices.
      mesh: the devices.
      over: makes a round of one seed one of the stacked states of several.
    """
    if not is_deferred(state.optimizers.get(TABLES)):
        return lambda state: state

    def settled(state: Any) -> tuple[Any, dict[str, Any]]:
        return settle(state), {}

    round_ = over(settled) if over else settled
    program = compile_round(round_, state, mesh, seeds=over is not None)
    return lambda state: program(state)[0]


def stacked_shardings(state: Any, mesh: Mesh) -> Any:
    """The shardings of stacked states, of which `state` is one."""

    def behind_seeds(own: NamedSharding) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(None, *own.spec) if own.spec else own.spec)

    return jax.tree.map(behind_seeds, shardings(state, mesh))


def splits(config: TrainConfig, state: TrainState) -> bool:
    """Whether the devices of a training split its tables; see `training_mesh`."""
    if config.table_sharding != "auto" or len(processes.devices()) == 1:
        return config.table_sharding == "rows"
    # beside the state there are the best tables and, in a dense step, a gradient
    needed = row_bytes(state) + 2 * row_bytes(state.params)
    return processes.agreed(lambda: needed > SHARE * device_bytes())
