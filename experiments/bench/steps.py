"""Times of single steps: training, search, and training as tables grow."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import jax
import numpy as np

import ihas_jax as ihas
from bench.common import HAS_TORCH, Row, Settings, Side, TorchKind, milliseconds, resident, timed
from bench.workload import Shape, configure, draw_split, sizes_of
from ihas_jax.config import Config, GateConfig
from ihas_jax.config.training import TableUpdates
from ihas_jax.data.dataset import Split
from ihas_jax.stages.speed import take_turns

if HAS_TORCH:
    import torch

    from bench import torch_baseline as baseline


_RANK = 32


def measure_training_step(shape: Shape, settings: Settings) -> Row:
    """A training step of the base model, by update of the tables, and torch's."""
    sizes = sizes_of(shape, settings.shrink)
    data = draw_split(sizes, settings.batch_size * settings.steps)
    updates: tuple[TableUpdates, ...] = ("rowwise", "deferred", "dense")
    sides: dict[str, Side] = {
        tables: our_training(sizes, data, tables, settings) for tables in updates
    }
    if HAS_TORCH:
        kinds: tuple[TorchKind, ...] = ("sparse", "fused", "adam")
        for kind in kinds:
            sides[f"torch {kind}"] = torch_training(sizes, data, kind, settings)
    return Row(
        f"training step, {shape} shape",
        "ms",
        milliseconds(take_turns(sides, settings.turns)),
        {"torch fused": 5, "torch sparse": 3, "torch adam": 20},
        facts={"values": sum(sizes), "fields": len(sizes), "batch": settings.batch_size},
    )


def our_training(
    sizes: tuple[int, ...], data: Split, tables: TableUpdates, settings: Settings
) -> Side:
    """Training steps of the base model; a turn returns its seconds per step."""
    config = configure(tables)
    return time_training(ihas.build_model(config.model, sizes), config.optimizer, data, settings)


def time_training(
    model: ihas.Model, optimizer: ihas.OptimizerConfig, data: Split, settings: Settings
) -> Side:
    """Training steps of any model, in one round; a turn returns its seconds per step."""
    round_, state, arguments = our_round(model, optimizer, data, settings)
    return timed(round_, state, arguments, settings)


def our_round(
    model: ihas.Model, optimizer: ihas.OptimizerConfig, data: Split, settings: Settings
) -> tuple[Any, ihas.TrainState, tuple[Any, ...]]:
    """The jitted round, a fresh state, and the round's other arguments."""
    state = ihas.init_train(jax.random.key(0), model, optimizer)
    step = ihas.make_step(model, ihas.model_optimizers(optimizer))
    return jax.jit(ihas.make_round(step), donate_argnums=0), state, resident(data, settings)


def torch_training(
    sizes: tuple[int, ...], data: Split, kind: TorchKind, settings: Settings
) -> Side:
    """Training steps of the base model in torch."""
    config = Config()
    model = baseline.ClickModel(sizes, config.model, sparse=kind == "sparse")
    optimizers = baseline.make_optimizers(
        model, kind, config.optimizer.learning_rate, config.optimizer.l2
    )
    batches = _torch_batches(data, settings)

    def turn() -> float:
        start = time.perf_counter()
        for ids, labels in batches:
            baseline.train_step(model, optimizers, ids, labels)
        return (time.perf_counter() - start) / len(batches)

    return turn


def measure_search_step(settings: Settings, shape: Shape = "criteo") -> Row:
    """A step of the search, one gate update per 100 included, and the two products it can't avoid.

    `products` is the time of E W and of its gradient G W^T, K x K by B, alone.
    """
    sizes = sizes_of(shape, settings.shrink)
    # the gates cost far more than the rest, so a fifth of the steps make a turn
    settings = replace(settings, steps=max(2, settings.steps // 5))
    data = draw_split(sizes, settings.batch_size * settings.steps)
    sides: dict[str, Side] = {
        tables: _our_search(sizes, data, configure(tables), settings)
        for tables in ("rowwise", "dense")
    }
    low = configure("rowwise").having(GateConfig(rank=_RANK))
    sides[f"rowwise, rank {_RANK}"] = _our_search(sizes, data, low, settings)
    sides["products"] = _products(len(sizes) * Config().model.dim, settings)
    if HAS_TORCH:
        kinds: tuple[TorchKind, ...] = ("sparse", "fused")
        for kind in kinds:
            sides[f"torch {kind}"] = _torch_search(sizes, data, kind, settings)
    return Row(
        f"search step, {shape} shape",
        "ms",
        milliseconds(take_turns(sides, settings.turns)),
        {"torch sparse": 3},
        facts={"values": sum(sizes), "gates": len(sizes) * Config().model.dim},
    )


def _our_search(sizes: tuple[int, ...], data: Split, config: Config, settings: Settings) -> Side:
    model = ihas.build_model(config.model, sizes)
    selector = ihas.BernoulliGates(config.of(GateConfig), model.embedding.coordinates)
    state = ihas.init_search(jax.random.key(0), config, model, selector)
    round_ = jax.jit(ihas.make_search_round(config, model, selector), donate_argnums=0)
    batches, rows = resident(data, settings)
    return timed(round_, state, (batches, rows, batches, rows[:1]), settings)


def _torch_search(sizes: tuple[int, ...], data: Split, kind: TorchKind, settings: Settings) -> Side:
    config = Config()
    model = baseline.ClickModel(sizes, config.model, sparse=kind == "sparse")
    gates = baseline.Gates(len(sizes) * config.model.dim, config.of(GateConfig))
    optimizer, gate_optimizer = config.optimizer, config.search.gate_optimizer
    optimizers = baseline.make_optimizers(model, kind, optimizer.learning_rate, optimizer.l2)
    (own,) = baseline.make_optimizers(
        gates, "fused", gate_optimizer.learning_rate, gate_optimizer.l2
    )
    batches = _torch_batches(data, settings)
    steps = 0

    def turn() -> float:
        nonlocal steps
        start = time.perf_counter()
        for batch in batches:
            steps += 1
            due = steps % config.search.gate_every == 0
            baseline.search_step(model, gates, optimizers, own, batch, batches[0] if due else None)
        return (time.perf_counter() - start) / len(batches)

    return turn


def _products(coordinates: int, settings: Settings) -> Side:
    key = jax.random.key(0)
    points = jax.random.normal(key, (settings.batch_size, coordinates))
    kernel = jax.random.normal(key, (coordinates, coordinates))

    @jax.jit
    def both(points: jax.Array, kernel: jax.Array) -> jax.Array:
        return (points @ kernel) @ kernel.T

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(settings.steps):
            jax.block_until_ready(both(points, kernel))
        return (time.perf_counter() - start) / settings.steps

    return turn


def measure_scaling(settings: Settings, fields: int = 39) -> Row:
    """The training step as the tables grow a hundredfold at a fixed batch.

    Each batch has the same number of distinct values whatever V, so that what is measured is the
    cost of the table itself: a field of many values spreads its ids over all of them.
    """
    sides: dict[str, Side] = {}
    base = draw_split((2564,) * fields, settings.batch_size * settings.steps)
    for factor in (1, 10, 100):
        sizes = (max(2, 2564 // settings.shrink) * factor,) * fields
        spread = Split((base.ids // settings.shrink % (sizes[0] // factor)) * factor, base.labels)
        for tables in ("rowwise", "dense") if factor == 1 else ("rowwise",):
            sides[f"{tables} V={sum(sizes):,}"] = our_training(sizes, spread, tables, settings)
    values = milliseconds(take_turns(sides, settings.turns))
    ours = next(iter(values))
    goals = {name: 1.5 for name in values if name.startswith("rowwise") and name != ours}
    return Row("scaling of the training step with V", "ms", values, goals, ours)


def _torch_batches(data: Split, settings: Settings) -> list[tuple[Any, Any]]:
    ids = torch.from_numpy(data.ids).split(settings.batch_size)
    labels = torch.from_numpy(data.labels.astype(np.float32)).split(settings.batch_size)
    return list(zip(ids, labels, strict=True))
