"""Run by test_parallel.py with four CPU devices: prints as JSON what it found."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np

import ihas_jax as ihas
from ihas_jax.config.training import TableUpdates
from ihas_jax.data.batches import Feed, Rounds
from ihas_jax.models.forward import init_model
from ihas_jax.models.placing import mesh_of
from ihas_jax.models.streaming import Streamed, Summed
from ihas_jax.selectors import Selecting, make_gate_step, make_model_step
from ihas_jax.training.loop import train
from ihas_jax.training.metrics import score
from ihas_jax.training.parallel import computing_on
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
            make_model_step(*parts),
            make_gate_step(*parts),
        )

    def run(state, model_step, gate_step, place):
        losses, first_stats = [], None
        for step, batch in zip((model_step, gate_step), batches, strict=True):
            state, metrics = step(state, place(batch))
            losses.append(metrics)
            # a copy, since the next step may take over the arrays
            first_stats = first_stats or jax.tree.map(jnp.copy, state.stats)
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
    moved = difference(single[0]["params"], state.params)
    mapped = run(state, *map(ihas.pmap_step, named), lambda batch: batch)
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


def check_predictions() -> dict[str, Any]:
    """Predictions by parameters on one device and on four, and how many batches are computed."""
    model, ids = _model(), draw(np.random.default_rng(6), 13_000).ids
    variables = init_model(jax.random.key(3), model)
    places = {"one": variables, "four": ihas.replicate(variables, ihas.data_mesh(BATCH))}
    computed, shards = [], []

    def predict(variables, ids, valid):
        jax.debug.callback(lambda rows: computed.append(int(rows)), valid.sum())
        return ihas.predict(model, variables, ids), {"rows": valid.sum()}

    def remember(program, *arguments):
        outputs, sums = program(*arguments)
        shards.append([part.data.shape for part in jax.tree.leaves(outputs)[0].addressable_shards])
        return outputs, sums

    found = {}
    for name, program in {
        "streamed": Streamed(lambda variables, ids: predict(variables, ids, ids[:, 0] >= 0)[0]),
        "summed": Summed(predict),
    }.items():
        probs, rows, batches = {}, [], []
        patched = patch.object(program, "_map", partial(remember, program._map))
        for place, own in places.items():
            computed.clear()
            with patched:
                output = program(own, ids, title="test")
            jax.effects_barrier()
            probs[place] = output if name == "streamed" else output[0]
            rows.append(None if name == "streamed" else float(output[1]["rows"]))
            batches.append(len(computed))
        equal = bool((probs["one"] == probs["four"]).all())
        found[name] = {"equal": equal, "rows": rows, "batches": batches}
    return found | {"spread": float(np.ptp(probs["one"])), "shards": shards}


def check_rowwise_program() -> dict[str, int]:
    """Exchanges between devices in a row-wise step of many rows, in its loop over them too."""
    config = ihas.OptimizerConfig(tables="rowwise")
    model = _model()
    step = ihas.make_step(model, ihas.model_optimizers(config))
    mesh = ihas.data_mesh(4 * BATCH)
    state = ihas.replicate(ihas.init_train(jax.random.key(0), model, config), mesh)
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batch = jax.device_put(draw(np.random.default_rng(7), 2048), spread)

    def exchanges():
        text = jax.jit(step).lower(state, batch).compile().as_text()
        return len(re.findall(r"= \S+ (all-|collective-|reduce-scatter)[a-z-]*\(", text))

    outside = exchanges()
    jax.clear_caches()
    with computing_on(mesh):
        return {"without": outside, "with": exchanges()}


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


def _model(axis_name=None, batch_norm=False):
    config = dataclasses.replace(CONFIG.model, batch_norm=batch_norm)
    return ihas.build_model(config, SIZES, click_rate=0.4, axis_name=axis_name)


def _step(model):
    return ihas.make_step(model, ihas.model_optimizers(CONFIG.optimizer))


def refusal(step, rows=BATCH) -> str:
    """What `pmap_step` says of a step, or nothing."""
    state = ihas.init_train(jax.random.key(0), _model(batch_norm=True), CONFIG.optimizer)
    try:
        ihas.pmap_step(step)(state, draw(np.random.default_rng(0), rows))
    except ihas.InputError as error:
        return str(error)
    return ""


def check_refusals() -> dict[str, str]:
    """Steps whose results would depend on the device, in many wraps."""
    unnamed, named = (_step(_model(name, batch_norm=True)) for name in (None, "data"))
    # of a click model that someone wrote and that passes no axis on to its batch norm
    own = dataclasses.replace(_model(batch_norm=True), axis_name="data")

    def forgetful(state, batch):
        state, metrics = named(state, batch)
        return state, metrics | {"clicks": batch.labels.sum()}

    return {
        "plain": refusal(unnamed),
        "jit": refusal(jax.jit(unnamed)),
        "partial": refusal(partial(unnamed)),
        "lambda": refusal(lambda state, batch: unnamed(state, batch)),
        "own batch norm": refusal(_step(own)),
        "own metric": refusal(forgetful),
        "other axis": refusal(_step(_model("rows"))),
        "uneven": refusal(named, rows=30),
        "empty": refusal(named, rows=0),
        "named": refusal(named),
        "named, jit": refusal(jax.jit(named)),
    }


def check_place() -> dict[str, object]:
    """Where the state of a `pmap` loop is, and how often its step is traced."""
    model, traces = _model("data"), []
    pure = _step(model)

    def step(state, batch):
        traces.append(batch)
        return pure(state, batch)

    rng = np.random.default_rng(6)
    states = [ihas.init_train(jax.random.key(0), model, CONFIG.optimizer)]
    mapped, counts = ihas.pmap_step(step), []
    for _ in range(3):
        states.append(mapped(states[-1], draw(rng, BATCH))[0])
        counts.append(len(traces))
    spread = jax.sharding.NamedSharding(ihas.data_mesh(BATCH), jax.sharding.PartitionSpec("data"))
    for place in (spread, jax.devices()[2]):
        state = jax.device_put(states[-1], jax.devices()[1])
        states.append(mapped(state, jax.device_put(draw(rng, BATCH), place))[0])
    leaves = jax.tree.leaves(states[-1])
    return {
        "traces": counts,
        "taken over": all(leaf.is_deleted() for leaf in jax.tree.leaves(states[1])),
        "copies": min(len(leaf.sharding.device_set) for leaf in leaves),
        "whole": all(leaf.is_fully_replicated for leaf in leaves),
        "steps": int(states[-1].step),
    }


def check_readme() -> dict[str, float]:
    """The loops of the README, under `pmap` and as steps of one device."""
    text = Path(ihas.__file__).with_name("README.md").read_text(encoding="utf-8")
    section = text.partition("### Under pmap")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    log = ihas.synthetic(ihas.SyntheticConfig(rows=6000, own=1, noise=1, values=20))
    build = ihas.build_model

    def build_unnamed(config, sizes, axis_name):
        return build(config, sizes)

    def run() -> list[dict[str, object]]:
        names: dict[str, object] = {}
        seen = []
        for code in blocks:
            exec(compile(code, "README.md", "exec", dont_inherit=True), names)
            # copies, since the next loop takes over the arrays
            kept = {"state", "metrics", "gate_metrics"} & names.keys()
            seen.append({name: jax.tree.map(jnp.copy, names[name]) for name in kept})
        return seen

    with patch.object(ihas, "synthetic", lambda: log):
        mapped = run()
        with patch.multiple(ihas, pmap_step=jax.jit, build_model=build_unnamed):
            single = run()
    found = {}
    for name, one, other in zip(("training", "search"), mapped, single, strict=True):
        state, plain = one.pop("state"), other.pop("state")
        found[name] = difference((weights(state), one), (weights(plain), other))
        found[f"{name} devices"] = len(jax.tree.leaves(state)[0].sharding.device_set)
        found[f"{name} steps"] = int(state.step)
        found[f"{name} loss"] = float(one["metrics"]["loss"])
        model = ihas.build_model(ihas.preset("small").model, log.schema.sizes, axis_name="data")
        probs = [ihas.predict(model, each.variables, log.test.ids) for each in (state, plain)]
        found[f"{name} predictions"] = difference(*probs)
    found["lines"] = max(len(code.splitlines()) for code in blocks)
    return found


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

    search_round, shared_by = ihas.make_search_round(CONFIG, model, selector), []

    def round_(*arguments):
        # runs when a program is traced
        shared_by.append(jax.sharding.get_abstract_mesh().size)
        return search_round(*arguments)

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
            round_=round_,
            evaluate=evaluate,
            config=CONFIG.train,
        )
        state = ihas.init_search(jax.random.key(4), CONFIG, model, selector)
        return train(task, state, lambda kind, facts: None)

    four = fit("four")
    places = set(shared_by)
    one_device = mesh_of(jax.devices()[:1], split=False)
    with patch("ihas_jax.training.loop.training_mesh", lambda config, state: one_device):
        one = fit("one")
        moved = fit("four")  # read back on another number of devices
    table = jax.tree.leaves(four.state.params["tables"])[0]
    return {
        "params": difference(four.variables, one.variables),
        "history": difference(four.history, one.history),
        "moved": difference(moved.variables, four.variables),
        "devices": len(table.sharding.device_set),
        "shared by": [*places],
        "odd batch": [ihas.data_mesh(BATCH + n).size for n in (1, 2)],
    }


if __name__ == "__main__":
    found = {
        "devices": jax.device_count(),
        "plain": check_steps(batch_norm=False),
        "batch norm": check_steps(batch_norm=True),
        "rowwise": check_steps(batch_norm=False, tables="rowwise"),
        "deferred": check_steps(batch_norm=False, tables="deferred"),
        "round": check_round(),
        "predictions": check_predictions(),
        "rowwise program": check_rowwise_program(),
        "noise": check_noise(),
        "refusals": check_refusals(),
        "place": check_place(),
        "readme": check_readme(),
        "fit": check_fit(Path(sys.argv[1])),
    }
    print(json.dumps(found))
