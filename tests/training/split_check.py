"""Run by test_split.py with four CPU devices: prints as JSON what it found of split tables."""

from __future__ import annotations

import dataclasses
import gc
import json
import re
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np

import ihas_jax as ihas
from ihas_jax.config.methods import PepConfig
from ihas_jax.config.training import TableSharding, TableUpdates
from ihas_jax.data.schema import Field, Schema
from ihas_jax.models.chunks import sharing
from ihas_jax.models.placing import copied, make, mesh_of, place, whole
from ihas_jax.models.predict import predictor
from ihas_jax.nn.embedding import EmbeddingSpec, init_table
from ihas_jax.selectors.registry import METHODS, build_selector
from ihas_jax.selectors.search import add_layers
from ihas_jax.training.layout import compile_round
from ihas_jax.training.loop import Trainer
from ihas_jax.training.parallel import computing_on
from ihas_jax.training.rounds import make_round
from ihas_jax.training.steps import make_step, model_optimizers

BATCH, SIZES, DIM = 64, (4001, 9, 2503, 40), 16
VALUES = sum(SIZES)
CONFIG = ihas.Config(
    model=ihas.ModelConfig(dim=DIM, hidden=(16, 8)),
    optimizer=ihas.OptimizerConfig(learning_rate=0.01),
    search=ihas.SearchConfig(pretrain_epochs=1, gate_every=2),
    train=ihas.TrainConfig(
        batch_size=BATCH, max_epochs=2, round_batches=8, checkpoint_seconds=0, table_sharding="rows"
    ),
)
ONE, FOUR = mesh_of(jax.devices()[:1], split=False), ihas.data_mesh(BATCH, split_tables=True)
_COLLECTIVES = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
_ALONE = r"replica_groups=(\{(\{\d+\},?)+\}|mesh\['data'=1,[^]]*\] \{'data'\})"


def difference(ours: Any, theirs: Any) -> float:
    """Largest difference of two trees, relative to the largest value of each array."""

    def relative(a: Any, b: Any) -> float:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return 0.0
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-8))

    return max(jax.tree.leaves(jax.tree.map(relative, ours, theirs)))


def split_of(rows: int, rng: np.random.Generator) -> ihas.Split:
    """Rows of Zipf values whose clicks depend on three fields."""
    ids = [np.minimum(rng.zipf(1.15, rows) - 1, size - 1) for size in SIZES]
    logits = 1.2 * np.sin(ids[0]) + np.cos(ids[1]) * (1 - 2 * (ids[3] % 2)) - 1
    labels = (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    return ihas.Split(np.stack(ids, 1).astype(np.int32), labels)


def log() -> ihas.Dataset:
    """A log of these fields."""
    rng = np.random.default_rng(0)
    names = [[f"v{i}" for i in range(size - 1)] for size in SIZES]
    fields = tuple(Field(f"f{n}", tuple(values)) for n, values in enumerate(names))
    return ihas.Dataset(Schema("label", fields), *(split_of(n, rng) for n in (2000, 700, 800)))


def moved_and_held(program: Any) -> tuple[int, int]:
    """The most numbers that a collective of a program moves, and rows that an array has."""
    moved, rows = [0], [0]
    for line in program.as_text().splitlines():
        found = re.search(rf"= (.*?) ({_COLLECTIVES})(-start)?\(", line)
        rows += [int(n) for n in re.findall(r"\w\[(\d+)[\d,]*\]", line)]
        if found is None or re.search(_ALONE, line):
            continue  # none, or one of each device with itself
        shapes = re.findall(r"\w\[([\d,]*)\]", found.group(1))
        moved += [int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes]
    return max(moved), max(rows)


def largest_on_device() -> int:
    """The most rows of an array of at least as many rows as the log has values, on one device."""
    gc.collect()
    shards = [shard.data for array in jax.live_arrays() for shard in array.addressable_shards]
    return max((len(shard) for shard in shards if shard.ndim and len(shard) >= VALUES), default=0)


def check_draws() -> dict[str, bool]:
    """Tables that devices draw for themselves, and that one draws."""
    specs = {
        "xavier": EmbeddingSpec(SIZES, DIM),
        "normal": EmbeddingSpec(SIZES, DIM, init="normal"),
        "zeros": EmbeddingSpec(SIZES, 1, init="zeros"),
        "groups": EmbeddingSpec(
            (5000, 4000, 30, 3900), 3, kept=((0, 1), (2,), (0, 1, 2), (0, 1)), init="normal"
        ),
        "stored": EmbeddingSpec((5000, 6000), 3, stored_values=(4990, 10)),
    }
    equal = {}
    for name, spec in specs.items():
        draw = partial(init_table, spec=spec)
        single = jax.jit(draw)(jax.random.key(3))
        tables = make(lambda key, draw=draw: {"tables": draw(key)}, FOUR, jax.random.key(3))
        pairs = [(single[group], tables["tables"][group]) for group in single]
        equal[name] = all(np.array_equal(a, b) for a, b in pairs)
        equal[name] &= any(isinstance(b, np.ndarray) for _, b in pairs)
    return equal


def run_round(round_: Any, state: Any, mesh: Any, gates: bool) -> tuple[Any, tuple[int, int]]:
    """A round on a mesh, and what `moved_and_held` says of it."""
    rng = np.random.default_rng(1)
    data, gate_data = (ihas.Batch(*split_of(n, rng)) for n in (300, 200))
    rows = rng.integers(200, size=(4, BATCH)).astype(np.int32)
    gate_rows = rng.integers(200, size=(2, BATCH)).astype(np.int32)
    shapes = jax.tree.map(jax.typeof, state)
    state = place(copied(state), mesh)
    put = partial(ihas.replicate, mesh=mesh), partial(ihas.shard_rows, mesh=mesh)
    arguments = [put[0](data), put[1](rows)]
    arguments += [put[0](gate_data), put[1](gate_rows)] if gates else []
    with computing_on(mesh):
        program = compile_round(round_, state, mesh).lower(state, *arguments).compile()
    state, metrics = program(state, *arguments)
    return (whole(state, shapes), metrics), moved_and_held(program)


def check_models() -> dict[str, dict[str, Any]]:
    """Training rounds and predictions of click models."""
    found: dict[str, dict[str, Any]] = {}
    updates: tuple[TableUpdates, ...] = ("dense", "rowwise", "deferred")
    for name, tables in ((n, t) for n in ("dnn", "deepfm", "ffm") for t in updates):
        optimizer = dataclasses.replace(CONFIG.optimizer, tables=tables)
        model = ihas.build_model(dataclasses.replace(CONFIG.model, name=name), SIZES)
        init = partial(ihas.init_train, model=model, config=optimizer)
        key = jax.random.key(0)
        single, state = jax.jit(init)(key), make(init, FOUR, key)
        drawn = difference(state, single)
        round_ = make_round(make_step(model, model_optimizers(optimizer)))
        (one, _), (four, (moved, rows)) = (
            run_round(round_, begun, mesh, gates=False)
            for begun, mesh in ((single, ONE), (state, FOUR))
        )
        ids = split_of(700, np.random.default_rng(2)).ids
        placed = place(one[0].variables, FOUR)
        probs = [
            [predictor(model)(variables, ids[:rows], title="").probs for rows in (5, 60, 700)]
            for variables in (one[0].variables, placed, whole(placed, one[0].variables))
        ]
        found[f"{name}, {tables}"] = {
            "drawn": drawn,
            "moments": difference((four[0].optimizers, four[1]), (one[0].optimizers, one[1])),
            "params": difference(four[0].params, one[0].params),
            "moved": moved,
            "rows": rows,
            "predicted": difference(probs[1][1:], probs[0][1:]),
            "few predicted": difference([one[0] for one in probs[1:]], [probs[0][0]] * 2),
            "on the host": difference(probs[2][1:], probs[0][1:]),
        }
    return found


def check_methods() -> dict[str, dict[str, Any]]:
    """A search round of every method, and of other kinds of gates with a row per value."""
    found = {}
    options: dict[str, ihas.Config] = dict.fromkeys(METHODS, CONFIG)
    for kind in ("value", "value_coordinate", "field"):
        pep = PepConfig(thresholds=kind)
        options[f"pep, {kind}"] = dataclasses.replace(CONFIG, options=(pep,))
    model = ihas.build_model(CONFIG.model, SIZES)
    init = partial(ihas.init_train, model=model, config=CONFIG.optimizer)
    for name, config in options.items():
        method = dataclasses.replace(config, method=name.split(",")[0])
        selector = build_selector(method, model, 30)
        states = [
            ihas.init_search(
                jax.random.key(4),
                method,
                model,
                selector,
                add_layers(pretrained, selector.init(jax.random.key(5)), method.optimizer),
            )
            for pretrained in (
                jax.jit(init)(jax.random.key(1)),
                make(init, FOUR, jax.random.key(1)),
            )
        ]
        # biases before a batch norm have no gradient but rounding errors, of which Adam makes steps
        layers = bool(states[0].params.get("layers"))
        gates = selector.recipe.gate_batches == "validation"
        round_ = ihas.make_search_round(method, model, selector)
        (one, _), (four, (moved, rows)) = (
            run_round(round_, state, mesh, gates)
            for state, mesh in zip(states, (ONE, FOUR), strict=True)
        )
        placed = place(states[1], FOUR)
        large = [
            leaf.sharding.is_fully_replicated
            for leaf in jax.tree.leaves((placed.params, placed.optimizers))
            if leaf.ndim and leaf.shape[0] >= VALUES
        ]
        found[name] = {
            "difference": difference(*(result[1] if layers else result for result in (four, one))),
            "moved": moved,
            "rows": rows,
            "arrays": len(large),
            "whole": sum(large),
        }
    return found


def fit(folder: Path, sharding: TableSharding, stage: Any = "all") -> dict[str, Any]:
    """The metrics of a run."""
    gates = ihas.GateConfig(weight=0.1)
    config = dataclasses.replace(
        CONFIG,
        method="ihas",
        train=dataclasses.replace(CONFIG.train, table_sharding=sharding),
        options=(gates,),
    )
    return ihas.fit(config, log(), folder, stage).metrics


def check_fit(folder: Path) -> dict[str, Any]:
    """Whole runs, what devices hold meanwhile, and runs that change how tables are held."""
    held = []

    def looking(function: Any) -> Any:
        def look(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            held.append(largest_on_device())
            return result

        return look

    places = (
        ("ihas_jax.training.loop.Trainer.count", Trainer.count),
        ("ihas_jax.training.loop.Trainer.close_epoch", Trainer.close_epoch),
        ("ihas_jax.training.loop.place", place),
        ("ihas_jax.models.streaming.sharing", sharing),
        ("ihas_jax.stages.base.make", make),
    )
    with ExitStack() as stack:
        for name, function in places:
            stack.enter_context(patch(name, looking(function)))
        split = fit(folder / "rows", "rows")
        looks, most = len(held), max(held)
        same = fit(folder / "replicated", "replicated")
    found = {
        "looks": looks,
        "most on a device": most,
        "most of replicated": max(held),
        **{
            f"{name} {score}": abs(split[name][score] - same[name][score])
            for name in ("base", "search", "ihas")
            for score in ("auc", "logloss")
        },
    }
    orders: tuple[tuple[TableSharding, TableSharding], ...] = (
        ("rows", "replicated"),
        ("replicated", "rows"),
    )
    for first, then in orders:
        begun = folder / f"from {first}"
        with patch("ihas_jax.training.loop.Trainer.due", stopped_at(7)):
            try:
                fit(begun, first, "base")
            except KeyboardInterrupt:
                found[f"{first} stopped"] = True
        moved = fit(begun, then)
        found[f"{first} to {then}"] = abs(moved["base"]["logloss"] - same["base"]["logloss"])
    return found


def check_bundle(run: Path) -> dict[str, Any]:
    """A bundle whose tables devices hold between them, and the bundle as it is."""
    ids = log().test.ids
    split = ihas.load_bundle(run, split_tables=True)
    predicted = split.predict_ids(ids)
    most = largest_on_device()
    copy = run.parent / "copy"
    ihas.save_bundle(split, copy)
    whole_tables = ihas.load_bundle(run)
    names = sorted(path.relative_to(copy) for path in copy.rglob("*.npy"))
    return {
        "most on a device": most,
        "difference": float(np.abs(predicted - whole_tables.predict_ids(ids)).max()),
        "most of whole tables": largest_on_device(),
        "files": len(names),
        "equal files": sum(
            (copy / name).read_bytes() == (run / "bundle" / name).read_bytes() for name in names
        ),
        "router": type(split.router).__name__,
    }


def check_seeds(folder: Path) -> float:
    """Two seeds side by side."""
    train = dataclasses.replace(CONFIG.train, max_epochs=1)
    losses = []
    for sharding in ("rows", "replicated"):
        config = dataclasses.replace(
            CONFIG, method="none", train=dataclasses.replace(train, table_sharding=sharding)
        )
        folders = {seed: folder / f"{sharding} {seed}" for seed in (1, 2)}
        results = ihas.fit_seeds(config, log(), folders)
        losses.append([result.metrics["base"]["logloss"] for result in results])
    return float(np.abs(np.subtract(*losses)).max())


def stopped_at(number: int) -> Any:
    """In place of `Trainer.due`: a checkpoint after each round, and Ctrl-C after some."""
    calls = []

    def due(trainer: Trainer, seeds: int = 1) -> bool:
        calls.append(seeds)
        if len(calls) == number:
            raise KeyboardInterrupt
        return True

    return due


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "draws": check_draws(),
                "models": check_models(),
                "methods": check_methods(),
                "fit": check_fit(Path(sys.argv[1])),
                "bundle": check_bundle(Path(sys.argv[1]) / "rows"),
                "seeds": check_seeds(Path(sys.argv[1])),
            }
        )
    )
