"""The cost of feeding a step from a store on disk instead of the memory of the device."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ihas_jax as ihas
from bench.common import Row, Settings, Side, milliseconds, timed
from bench.workload import Shape, configure, draw_log, sizes_of
from ihas_jax.data.batches import Feed, RoundIterator, Rounds
from ihas_jax.data.dataset import Split
from ihas_jax.data.open import open_store
from ihas_jax.data.store_writer import save_dataset
from ihas_jax.stages.speed import take_turns

_ROUNDS = 5


def measure_feeding(settings: Settings, rows: int, shape: Shape = "avazu") -> Row:
    """A row-wise step on shuffled rows of a memory-mapped store, and on rows of the device."""
    sizes = sizes_of(shape, settings.shrink)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        save_dataset(draw_log(sizes, rows), store, {"origin": "benchmark"})
        start = time.perf_counter()
        data = open_store(store)
        opened = time.perf_counter() - start
        sides = {
            "resident": _training(data.train, sizes, True, settings),
            "from disk": _training(data.train, sizes, False, settings),
        }
        values = milliseconds(take_turns(sides, settings.turns))
    facts = {"rows": rows, "milliseconds to open the store": 1e3 * opened}
    measure = f"feeding a training step, {shape} shape"
    return Row(measure, "ms", values, {"from disk": 1.05}, "resident", facts)


def _training(split: Split, sizes: tuple[int, ...], resident: bool, settings: Settings) -> Side:
    config = configure("rowwise")
    model = ihas.build_model(config.model, sizes)
    state = ihas.init_train(jax.random.key(0), model, config.optimizer)
    round_ = jax.jit(
        ihas.make_round(ihas.make_step(model, ihas.model_optimizers(config.optimizer))),
        donate_argnums=0,
    )
    feed = Feed(np.arange(len(split.labels), dtype=np.int32), settings.batch_size, seed=0)
    turns = settings.turns + 1
    epochs = -(-turns * _ROUNDS * settings.steps // feed.batches_per_epoch)
    rounds = Rounds(split, feed, settings.steps, epochs, resident)
    iterator = RoundIterator(rounds, lambda item: (item, None if resident else _put(item.data)))
    on_device = _put(split) if resident else None

    def rounds_of_a_turn(state: ihas.TrainState) -> tuple[ihas.TrainState, None]:
        for _ in range(_ROUNDS):
            item, batches = next(iterator)
            state, metrics = round_(state, on_device or batches, item.rows, np.int32(item.batches))
            jax.device_get(metrics)
        return state, None

    return timed(rounds_of_a_turn, state, (), replace(settings, steps=_ROUNDS * settings.steps))


def _put(split: Split | None) -> ihas.Batch:
    assert split is not None
    return ihas.Batch(jnp.asarray(split.ids), jnp.asarray(split.labels))
