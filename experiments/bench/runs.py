"""Measures of stages and runs; each function returns a row of the benchmark's table."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ihas_jax as ihas
from bench.common import HAS_TORCH, Row, Settings, TorchKind, milliseconds, resident, timed
from bench.workload import UPDATES, Shape, configure, draw_log, draw_split, sizes_of
from ihas_jax.config import ClusterConfig, Config, GateConfig
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.store_writer import save_dataset
from ihas_jax.selectors.clusters import fit_clusters
from ihas_jax.selectors.plan import SearchResult
from ihas_jax.selectors.routing import make_router
from ihas_jax.stages.speed import take_turns

if HAS_TORCH:
    from bench import torch_stages

STAGES = ("search", "choose", "retrain")
"""The stages that ihas_jax and PyTorch both have."""


def measure_memory(settings: Settings, rows: int, shape: Shape = "criteo") -> Row:
    """Peak resident memory of a training run against tables + moments + data + 1 GB."""
    sizes = sizes_of(shape, settings.shrink)
    with tempfile.TemporaryDirectory() as folder:
        store, output = Path(folder) / "store", Path(folder) / "run"
        save_dataset(draw_log(sizes, rows), store, {"origin": "benchmark"})
        here = Path(__file__).parent
        command = [
            *(sys.executable, str(here / "peak.py"), str(here.parent / "run.py")),
            *("--data", str(store), "--output", str(output), "--stage", "base"),
            *("--optimizer.tables", "rowwise", "--train.max-epochs", "1"),
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        data = sum(path.stat().st_size for path in store.glob("*.npy"))
    peak = int(done.stdout.split()[-1])
    tables = sum(sizes) * Config().model.dim * 4
    values = {"peak": peak / 1e9, "tables + moments + data + 1 GB": (3 * tables + data) / 1e9 + 1}
    facts = {"rows": rows, "tables GB": tables / 1e9, "data GB": data / 1e9}
    goals = {"tables + moments + data + 1 GB": 1.0}
    return Row("memory of a training run", "GB", values, goals, "peak", facts)


def measure_clusters(settings: Settings, rows: int, shape: Shape = "criteo") -> Row:
    """K-means on a log of many rows: how many it reads until it converges, and the assignment."""
    sizes = sizes_of(shape, settings.shrink)
    config = Config()
    model = ihas.build_model(config.model, sizes)
    selector = ihas.BernoulliGates(config.of(GateConfig), len(sizes) * config.model.dim)
    # ten times the initial values, so that masks differ between rows
    variables = ihas.init_search(jax.random.key(0), config, model, selector).variables
    variables = jax.tree.map(lambda leaf: 10 * leaf, variables)
    split = draw_split(sizes, rows)
    found = SearchResult(
        model, variables, split, Split(*(part[:1] for part in split)), jax.random.key(0), 0
    )
    start = time.perf_counter()
    clusters, found_by = fit_clusters(found, selector, config.of(ClusterConfig))
    fitted = time.perf_counter() - start
    router = make_router(model, selector, variables, clusters.centroids)
    router.assign(split.ids[:1], title="assign")
    start = time.perf_counter()
    router.assign(split.ids, title="assign")
    seconds = {"fit and assign all": fitted, "assign all": time.perf_counter() - start}
    facts = {
        "rows": rows,
        "inertia curve": [[p["rows"], round(p["inertia"], 6)] for p in found_by["kmeans"]],
        "rows assigned per second": rows / seconds["assign all"],
    }
    return Row(f"clustering, {shape} shape", "s", seconds, ours="", facts=facts)


def measure_seeds(settings: Settings, seeds: int = 5, shape: Shape = "avazu") -> Row:
    """Training steps of several seeds under `vmap`, and of one seed after the other."""
    sizes = sizes_of(shape, settings.shrink)
    config = configure("rowwise")
    model = ihas.build_model(config.model, sizes)
    round_ = ihas.make_round(ihas.make_step(model, ihas.model_optimizers(config.optimizer)))
    data = draw_split(sizes, settings.batch_size * settings.steps)
    batches, rows = resident(data, settings)
    keys = jax.random.split(jax.random.key(0), seeds)
    states = [ihas.init_train(key, model, config.optimizer) for key in keys]
    orders = jnp.stack([jax.random.permutation(key, rows) for key in keys])
    stacked = ihas.stack_seeds(states)
    together = jax.jit(ihas.over_seeds(round_, states[0], (None, 0)), donate_argnums=0)
    single = jax.jit(round_, donate_argnums=0)

    def one_by_one(states: list[ihas.TrainState]) -> tuple[list[ihas.TrainState], None]:
        for i in range(seeds):
            states[i], metrics = single(states[i], batches, orders[i])
            jax.block_until_ready((states[i], metrics))
        return states, None

    sides = {
        "together": timed(together, stacked, (batches, orders), settings),
        "one by one": timed(one_by_one, states, (), settings),
    }
    values = milliseconds(take_turns(sides, settings.turns))
    return Row(f"a step of {seeds} seeds, {shape} shape", "ms", values, ours="together")


def measure_stages(data: Dataset, name: str, epochs: int, turns: int) -> Row:
    """Search, choice and retraining on a real log, the same number of epochs on both sides.

    Ours includes checkpoints and validation during pretraining, which torch's lacks, and
    compiling; the sides called "compiled" find the programs that a run before them has kept.
    """
    small = ihas.preset("small")
    config = replace(small, train=replace(small.train, max_epochs=epochs, patience=epochs))
    stages: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as kept:
        for tables in UPDATES:
            _our_stages(data, configure(tables, config), kept)
        for turn in range(turns):
            for tables in UPDATES:
                for side, programs in ((tables, "off"), (f"{tables}, compiled", kept)):
                    seconds = _our_stages(data, configure(tables, config), programs)
                    stages.setdefault(side, []).append(seconds)
            if HAS_TORCH:
                kinds: tuple[TorchKind, ...] = ("fused", "sparse")
                for kind in kinds:
                    seconds = _torch_stages(data, config, kind)
                    stages.setdefault(f"torch {kind}", []).append(seconds)
            print(f"[stages] turn {turn + 1} of {turns}", file=sys.stderr)
    medians = {
        side: {n: round(float(np.median([run[n] for run in runs])), 3) for n in STAGES}
        for side, runs in stages.items()
    }
    totals = {
        side: float(np.median([sum(run[n] for n in STAGES) for run in runs]))
        for side, runs in stages.items()
    }
    goals = {f"torch {kind}": 5.0 for kind in ("fused", "sparse")}
    facts = {"stages": medians, "epochs": epochs}
    return Row(f"three stages end to end, {name}", "s", totals, goals, "dense", facts)


def measure_full_run(settings: Settings, rows: int, shape: Shape) -> Row:
    """A whole run, from the base model to the evaluation, on a log as long as the real one."""
    data = draw_log(sizes_of(shape, settings.shrink), rows)
    config = configure("rowwise")
    train = replace(config.train, batch_size=settings.batch_size, programs="off")
    config = replace(config, train=train)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        metrics = ihas.fit(config, data, folder).metrics
        total = time.perf_counter() - start
    facts = {"rows": rows, "goal on one H200, seconds": 600} | {
        f"test AUC of {name}": metrics[name]["auc"] for name in ("base", "search", "ihas")
    }
    values = {"in all": total} | metrics["seconds"]
    return Row(f"whole run, {shape} shape", "s", values, ours="", facts=facts)


def _our_stages(data: Dataset, config: Config, programs: str) -> dict[str, float]:
    """The seconds of the stages of a run that keeps its programs in a folder, or 'off'."""
    config = ihas.replaced(config, "train.programs", programs)
    with tempfile.TemporaryDirectory() as folder:
        jax.clear_caches()
        ihas.fit(config, data, folder, stage="base")
        jax.clear_caches()  # or pretraining would find the base model's programs
        return ihas.fit(config, data, folder).metrics["seconds"]


def _torch_stages(data: Dataset, config: Config, kind: TorchKind) -> dict[str, float]:
    return torch_stages.run_stages(data, config, kind, lambda line: None)["seconds"]
