"""Run by test_parallel.py with four CPU devices: prints as JSON what it found."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np

import ihas_jax as ihas
from ihas_jax.config.training import TableUpdates
from ihas_jax.data.batches import Feed, Rounds
from ihas_jax.selectors import Selecting, make_gate_step, make_model_step
from ihas_jax.training.loop import train
from ihas_jax.training.metrics import score
from ihas_jax.training.task import Task

BATCH, SIZES = 32, (7, 5, 6, 4)
CONFIG = ihas.Config(
    model=ihas.ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=ihas.OptimizerConfig(learning_rate=0.01),
    search=ihas.SearchConfig(gate_every=2, gate_optimizer=ihas.AdamConfig(0.01)),
    train=ihas.TrainConfig(batch_size=BATCH, max_epochs=2, round_batches=4),
    options=(ihas.GateConfig(weight=0.1),),
)


def difference(ours, theirs) -> float:
    """Largest difference of two trees, relative to the largest value of each array."""

    def relative(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-8))

    return max(jax.tree.leaves(jax.tree.map(relative, ours, theirs)))


def weights(state):
    return state.params, state.stats


def _hidden_bias(path) -> bool:
    names = [getattr(entry, "key", "") for entry in path]
    return names[-1] == "bias" and any(name.startswith("hidden") for name in names)


def draw(rng, rows):
    ids = np.stack([rng.integers(size, size=rows) for size in SIZES], axis=1).astype(np.int32)
    return ihas.Batch(ids, (ids[:, 0] > rng.integers(7, size=rows)).astype(np.uint8))


def check_steps(batch_norm: bool, tables: TableUpdates = "dense") -> dict[str, float]:
    """A model step and a gate step: one device, a mesh, pmap."""
    config = dataclasses.replace(
        CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, tables=tables)
    )
    model_config = ihas.ModelConfig(dim=4, hidden=(8, 4), batch_norm=batch_norm)
    selector = ihas.BernoulliGates(CONFIG.of(ihas.GateConfig), len(SIZES) * 4)
    rng = np.random.default_rng(0)
    batches = [draw(rng, BATCH) for _ in range(2)]

    def steps(axis_name):
        model = ihas.build_model(model_config, SIZES, click_rate=0.4, axis_name=axis_name)
        parts = (config, model, selector)
        return (
            ihas.init_search(jax.random.key(1), *parts),
            make_model_step(*parts, axis_name=axis_name),
            make_gate_step(*parts, axis_name=axis_name),
        )

    def run(state, model_step, gate_step, place):
        losses, first_stats = [], None
        for step, batch in zip((model_step, gate_step), batches, strict=True):
            state, metrics = step(state, place(batch))
            losses.append(metrics)
            first_stats = first_stats or state.stats
        params = state.params
        if batch_norm:
            # Biases before a batch norm have no gradient but rounding errors, which Adam blows
            # up to whole steps; nothing but the running means sees them.
            network = jax.tree_util.tree_map_with_path(
                lambda path, leaf: jnp.zeros_like(leaf) if _hidden_bias(path) else leaf,
                params["network"],
            )
            params = params | {"network": network}
        return {"params": params}, losses, first_stats

    state, *pure = steps(None)
    single = run(state, *map(jax.jit, pure), lambda batch: batch)
    mesh = ihas.data_mesh(BATCH)
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sharded = run(
        ihas.replicate(state, mesh),
        *map(jax.jit, pure),
        lambda batch: jax.device_put(batch, spread),
    )
    _, *named = steps("data")
    mapped = run(state, *map(ihas.pmap_step, named), lambda batch: batch)
    moved = difference(single[0]["params"], state.params)
    return {
        "jit": difference(sharded, single),
        "pmap": difference(mapped, single),
        "moved": moved,
    }


def check_round() -> dict[str, float]:
    """A search round on a mesh, its state donated."""
    model = ihas.build_model(CONFIG.model, SIZES, click_rate=0.4)
    selector = ihas.BernoulliGates(CONFIG.of(ihas.GateConfig), len(SIZES) * 4)
    rng = np.random.default_rng(1)
    data, gate_data = draw(rng, 200), draw(rng, 100)
    rows = rng.integers(200, size=(4, BATCH)).astype(np.int32)
    gate_rows = rng.integers(100, size=(2, BATCH)).astype(np.int32)
    round_ = ihas.make_search_round(CONFIG, model, selector)

    def fresh():
        return ihas.init_search(jax.random.key(2), CONFIG, model, selector)

    single, metrics = jax.jit(round_)(fresh(), data, rows, gate_data, gate_rows)
    mesh = ihas.data_mesh(BATCH)
    state = ihas.replicate(fresh(), mesh)
    sharded, sharded_metrics = jax.jit(round_, donate_argnums=0)(
        state,
        ihas.replicate(data, mesh),
        ihas.shard_rows(rows, mesh),
        ihas.replicate(gate_data, mesh),
        ihas.shard_rows(gate_rows, mesh),
    )
    table = jax.tree.leaves(sharded.params["tables"])[0]
    return {
        "jit": difference((weights(sharded), sharded_metrics), (weights(single), metrics)),
        "donated": all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params)),
        "devices": len(table.sharding.device_set),
    }


def check_noise() -> dict[str, bool]:
    """The stochastic gates of one batch, sharded and mapped."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(BATCH, 16)).astype(np.float32)
    key = jax.random.key(5)

    def sample(logits, first):
        return ihas.sample_gates(key, logits, temperature=0.1, first_row=first)

    single = np.asarray(sample(logits, 0))
    mesh = ihas.data_mesh(BATCH)
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sharded = jax.jit(lambda x: sample(x, 0))(jax.device_put(logits, spread))
    size = BATCH // 4
    mapped = jax.pmap(lambda x: sample(x, jax.lax.axis_index("data") * size), axis_name="data")(
        logits.reshape(4, size, 16)
    )
    return {
        "jit": bool((np.asarray(sharded) == single).all()),
        "pmap": bool((np.asarray(mapped).reshape(BATCH, 16) == single).all()),
        "random": 0.2 < float(single.mean()) < 0.8,
    }


def check_fit(folder: Path) -> dict[str, object]:
    """A search from start to end on four devices and on one, and one that moves between them."""
    model = ihas.build_model(CONFIG.model, SIZES, click_rate=0.4)
    selector = ihas.BernoulliGates(CONFIG.of(ihas.GateConfig), len(SIZES) * 4)
    rng = np.random.default_rng(3)
    log, valid = (ihas.Split(*draw(rng, rows)) for rows in (256, 100))
    transform = Selecting(selector)
    predict = jax.jit(lambda v, ids: ihas.predict(model, v, ids, transform))

    def evaluate(variables):
        probs = np.asarray(predict(variables, valid.ids))
        return score(valid.labels, probs), {}

    def fit(name, epochs=2):
        task = Task(
            name=name,
            directory=folder / name,
            rounds=Rounds(
                log,
                Feed(np.arange(256, dtype=np.int32), BATCH, 1),
                4,
                epochs,
                True,
                valid,
                Feed(np.arange(100, dtype=np.int32), BATCH, 2),
                2,
            ),
            round_=ihas.make_search_round(CONFIG, model, selector),
            evaluate=evaluate,
            config=CONFIG.train,
        )
        state = ihas.init_search(jax.random.key(4), CONFIG, model, selector)
        return train(task, state, lambda kind, facts: None)

    four = fit("four")
    one_device = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    with patch("ihas_jax.training.loop.data_mesh", lambda batch_size: one_device):
        one = fit("one")
        moved = fit("four")  # read back on another number of devices
    table = jax.tree.leaves(four.state.params["tables"])[0]
    return {
        "params": difference(four.variables, one.variables),
        "history": difference(four.history, one.history),
        "moved": difference(moved.variables, four.variables),
        "devices": len(table.sharding.device_set),
        "odd batch": ihas.data_mesh(BATCH + 1).size,
    }


if __name__ == "__main__":
    found = {
        "devices": jax.device_count(),
        "plain": check_steps(batch_norm=False),
        "batch norm": check_steps(batch_norm=True),
        "rowwise": check_steps(batch_norm=False, tables="rowwise"),
        "round": check_round(),
        "noise": check_noise(),
        "fit": check_fit(Path(sys.argv[1])),
    }
    print(json.dumps(found))
