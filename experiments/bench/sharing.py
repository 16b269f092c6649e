"""Training steps of devices that share tables: what they take, hold and send, and one's part.

A step of P devices has B rows of N fields, and tables of V rows of D numbers. `floor` names what a
device holds and receives by count; `ihas_jax/training/README.md` derives it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import ihas_jax as ihas
from bench.workload import configure, draw_split
from ihas_jax.config.training import TableUpdates
from ihas_jax.models.base import TABLES
from ihas_jax.stages.speed import take_turns
from ihas_jax.training.layout import compile_round
from ihas_jax.training.parallel import computing_on
from ihas_jax.training.rowwise import RowAdam, init_row_adam, update_rows

_COLLECTIVES = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
_ALONE = r"replica_groups=(\{(\{\d+\},?)+\}|mesh\['data'=1,[^]]*\] \{'data'\})"
_STEPS = 8


@dataclass(frozen=True)
class Case:
    """A training step: its numbers, and how its devices hold tables."""

    sizes: tuple[int, ...]
    dim: int
    batch: int
    devices: int
    tables: TableUpdates
    split: bool


def counted(case: Case, network: int) -> dict[str, float]:
    """Bytes that a device holds of tables and moments, and receives in a step.

    Args:
      case: the step.
      network: numbers in the network, whose gradients all devices average.
    """
    values, places = sum(case.sizes), case.batch * len(case.sizes)
    row = 3 * case.dim + {"dense": 0, "rowwise": 1, "deferred": 2}[case.tables]
    others = (case.devices - 1) / case.devices
    held = 4 * values * row / (case.devices if case.split else 1)
    ids, vectors = 4 * places * others, 4 * places * case.dim * others
    sent = 2 * 4 * network * others
    if case.split:
        sent += (2 if case.tables == "dense" else 1) * ids + 2 * vectors
    elif case.tables != "dense":
        sent += ids + vectors
    else:
        sent += 2 * 4 * values * case.dim * others
    return {"bytes held": held, "bytes received": sent}


def measure(case: Case, turns: int) -> dict[str, float]:
    """Milliseconds of a step, and the bytes that a device holds and receives.

    This process has the devices of the case.
    """
    config = configure(case.tables)
    config = replace(config, model=replace(config.model, dim=case.dim))
    model = ihas.build_model(config.model, case.sizes)
    mesh = ihas.data_mesh(case.batch, split_tables=case.split)
    init = partial(ihas.init_train, model=model, config=config.optimizer)
    state = ihas.place(jax.jit(init)(jax.random.key(0)), mesh)
    split = draw_split(case.sizes, case.batch * _STEPS)
    rows = np.arange(case.batch * _STEPS, dtype=np.int32).reshape(_STEPS, -1)
    data = ihas.Batch(jnp.asarray(split.ids), jnp.asarray(split.labels))
    arguments = ihas.replicate(data, mesh), ihas.shard_rows(rows, mesh)
    step = ihas.make_step(model, ihas.model_optimizers(config.optimizer))
    with computing_on(mesh):
        program = compile_round(ihas.make_round(step), state, mesh).lower(state, *arguments)
        compiled = program.compile()
    kept = jax.tree.leaves((state.params[TABLES], state.optimizers[TABLES]))
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in kept if leaf.ndim)

    def turn() -> float:
        nonlocal state
        start = time.perf_counter()
        state, metrics = compiled(state, *arguments)
        jax.block_until_ready(metrics)
        return (time.perf_counter() - start) / _STEPS

    seconds = take_turns({"step": turn}, turns)["step"]
    return {
        "ms": 1e3 * seconds,
        "bytes held": float(held),
        "bytes received": received(compiled.as_text() or "", case.devices),
        "network": float(sum(leaf.size for leaf in jax.tree.leaves(state.params["network"]))),
    }


def received(program: str, devices: int) -> float:
    """Bytes that each of P devices receives in the collectives of a program's text.

    The devices of an all-gather or reduce-scatter receive (P - 1) / P of the larger array, and
    those of an all-reduce twice that.
    """
    total = 0.0
    for line in program.splitlines():
        found = re.search(rf"= (.*?) ({_COLLECTIVES})(-start)?\(", line)
        if found is None or re.search(_ALONE, line):
            continue  # none, or one of each device with itself
        sizes = re.findall(r"[fsu](\d+)\[([\d,]*)\]", found.group(1))
        numbers = sum(
            int(bits) // 8 * int(np.prod([int(n) for n in shape.split(",") if n]))
            for bits, shape in sizes
        )
        times = {"all-reduce": 2.0, "reduce-scatter": float(devices)}.get(found.group(2), 1.0)
        total += times * numbers * (devices - 1) / devices
    return total


def part_of_step(case: Case, turns: int) -> float:
    """Seconds of what one of the devices of a case computes in a step, without what it waits for.

    It reads its rows for the whole batch, passes its part of the batch through the network and
    back, and updates its rows. Ids are uniform, as those of large tables nearly are.
    """
    fields, rows = len(case.sizes), sum(case.sizes) // case.devices
    model = ihas.build_model(replace(configure("rowwise").model, dim=case.dim), (2,) * fields)
    variables = ihas.init_model(jax.random.key(0), model)
    own = case.batch // case.devices
    state = jax.jit(lambda: init_row_adam(jnp.zeros((rows, case.dim))))()

    def step(i: Array, state: RowAdam) -> RowAdam:
        index = jax.random.randint(
            jax.random.fold_in(jax.random.key(1), i), (case.batch * fields,), 0, rows * case.devices
        )
        index = jnp.where(index < rows, index, rows)
        read = state.table.at[index].get(mode="fill", fill_value=0)
        vectors = read.reshape(case.batch, fields, case.dim)[:own]

        def loss(vectors: Array) -> Array:
            seen = {"embedding": {f"width_{case.dim}": vectors}}
            ids = jnp.zeros((own, fields), jnp.int32)
            return ihas.forward(model, variables, ids, vectors=seen).logits.mean()

        gradient = jax.grad(loss)(vectors) + read.reshape(case.devices, own, fields, -1).sum() * 0
        gradients = jnp.broadcast_to(gradient, (case.devices, *gradient.shape))
        flat = gradients.reshape(-1, case.dim)
        return update_rows(state, index, flat, i + 1, 1e-3, 0.0)

    compiled: Callable[[RowAdam], RowAdam] = jax.jit(
        lambda state: jax.lax.fori_loop(0, _STEPS, step, state), donate_argnums=0
    )

    def turn() -> float:
        nonlocal state
        start = time.perf_counter()
        state = jax.block_until_ready(compiled(state))
        return (time.perf_counter() - start) / _STEPS

    return float(take_turns({"part": turn}, turns)["part"])


def describe(case: Case) -> dict[str, Any]:
    """The numbers of a case, for a table."""
    return {
        "V": sum(case.sizes),
        "D": case.dim,
        "N": len(case.sizes),
        "B": case.batch,
        "devices": case.devices,
        "tables": case.tables,
        "split": case.split,
    }
