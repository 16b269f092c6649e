"""Run by tests of jobs, in each process of a job or in one process with as many devices."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import ihas_jax as ihas
from ihas_jax import joining, processes, watch
from ihas_jax.data.batches import Rounds
from ihas_jax.data.schema import Field, Schema
from ihas_jax.errors import run_cli
from ihas_jax.flags import replaced
from ihas_jax.job import Job
from ihas_jax.joining import joined
from ihas_jax.models.placing import mesh_of, place, put, whole
from ihas_jax.models.streaming import Streamed, Summed
from ihas_jax.pipeline import workdir
from ihas_jax.training import loop
from ihas_jax.training.checkpoint import Checkpoints

SIZES = (4001, 9, 2503, 40)
CONFIG = ihas.Config(
    model=ihas.ModelConfig(dim=8, hidden=(16, 8)),
    optimizer=ihas.OptimizerConfig(learning_rate=0.01),
    search=ihas.SearchConfig(pretrain_epochs=1, gate_every=2),
    train=ihas.TrainConfig(batch_size=64, max_epochs=2, round_batches=8),
    options=(ihas.ClusterConfig(min_rows=100),),
)
CASES: dict[str, dict[str, Any]] = {
    "ihas": {},
    "streamed": {"train.device-data-gb": 0.0, "model.batch-norm": True},
    "split": {"train.table-sharding": "rows", "optimizer.tables": "rowwise"},
    "shared": {
        "retrain.start": "shared",
        "retrain.teachers": ("base", "fm"),
        "search.stopping-share": 0.5,
    },
    "undivided": {"train.batch-size": 63, "train.table-sharding": "rows"},
    "pep": {"method": "pep"},
    "optfs": {"method": "optfs", "train.table-sharding": "rows"},
    "optembed": {"method": "optembed"},
    "adafs": {"method": "adafs_hard", "model.name": "deepfm"},
    "rotated": {"method": "spectral", "search.rotate": True, "budget": 0.25},
}
"""Runs by name, as values of flags."""


def config_of(case: str) -> ihas.Config:
    """The config of a run."""
    config = CONFIG
    if method := CASES[case].get("method"):
        config = dataclasses.replace(config, method=method, options=())
    for flag, value in CASES[case].items():
        config = config if flag == "method" else replaced(config, flag.replace("-", "_"), value)
    return config


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


def check_agreement() -> dict[str, Any]:
    """What processes hand over, and how."""
    mine, first = processes.index(), processes.is_first
    large = processes.agreed(lambda: np.arange(300_000) + mine)
    raised = []
    for problem in (ihas.InputError("too bad"), ZeroDivisionError("division")):

        def fail(problem: Exception = problem) -> None:
            raise problem

        try:
            processes.agreed(fail)
        except (ihas.InputError, ZeroDivisionError) as error:
            raised.append(f"{type(error).__name__}: {error}")
    inner = processes.agreed(lambda: processes.agreed(lambda: ("inner", mine)))
    calls: list[int] = []
    doubled = processes.by_first(lambda value: calls.append(value) or 2 * value)
    return {
        "small": processes.agreed(lambda: [mine, "a"]),
        "large": [int(large[0]), int(large[-1]), len(large)],
        "inner": inner,
        "raised": raised,
        "doubled": doubled(21 + mine),
        "calls": len(calls),
        "first": first(),
        "every": processes.every(mine * 10),
        "many": [processes.agreed(lambda i=i: i + mine) for i in range(150)] == [*range(150)],
    }


def check_arrays() -> dict[str, Any]:
    """Trees of arrays on the devices of all processes, and back."""
    devices = processes.devices()
    tree = {
        "tables": {"embedding": {"e": np.arange(7000 * 2, dtype=np.float32).reshape(7000, 2)}},
        "network": jnp.arange(5.0),
        "key": jax.random.key(3),
    }
    tree["tables"]["embedding"]["e"][0, 0] = -0.0
    shapes = jax.tree.map(jax.typeof, tree)
    found: dict[str, Any] = {}
    for split in (False, True):
        mesh = mesh_of(devices, split=split)
        back = whole(place(tree, mesh), shapes)
        table = back["tables"]["embedding"]["e"]
        equal = np.array_equal(
            np.asarray(table).view(np.int32), tree["tables"]["embedding"]["e"].view(np.int32)
        )
        arrays = [leaf for leaf in jax.tree.leaves(back) if isinstance(leaf, jax.Array)]
        found[f"whole {split}"] = bool(
            equal
            and np.array_equal(back["network"], np.arange(5.0))
            and all(leaf.is_fully_addressable for leaf in arrays)
            and np.array_equal(jax.random.key_data(back["key"]), jax.random.key_data(tree["key"]))
        )
        held = place(tree, mesh)["tables"]["embedding"]["e"].addressable_shards[0].data.shape
        found[f"held {split}"] = list(held)
    moved = put(
        put(np.arange(8.0), NamedSharding(mesh, PartitionSpec())),
        NamedSharding(mesh, PartitionSpec(mesh.axis_names)),
    )
    found["moved"] = [float(x) for x in moved.addressable_shards[0].data]
    return found


def check_streams() -> dict[str, Any]:
    """Programs over rows give what one device gives, and a process computes its part."""
    params = {"w": jnp.arange(4.0)}
    ids = np.random.default_rng(0).integers(9, size=(30_000, 4)).astype(np.int32)
    batches: list[int] = []

    def seen(_: Any) -> None:
        batches.append(1)

    def batch(params: Any, ids: jax.Array) -> jax.Array:
        jax.debug.callback(seen, ids[0, 0])
        return (ids * params["w"]).sum(1)

    def counted(params: Any, ids: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
        return batch(params, ids), valid.sum()

    expected = (ids * np.arange(4.0, dtype=np.float32)).sum(1)
    streamed = Streamed(batch)(params, ids, title="")
    jax.effects_barrier()
    own = len(batches)
    outputs, total = Summed(counted)(params, ids, title="")
    few = Streamed(batch)(params, ids[:5], title="")
    with processes.alone():
        by_itself = Streamed(batch)(params, ids[:100], title="")
    return {
        "streamed": bool(np.array_equal(streamed, expected)),
        "summed": bool(np.array_equal(outputs, expected)) and float(total) == len(ids),
        "few": bool(np.array_equal(few, expected[:5])),
        "alone": bool(np.array_equal(by_itself, expected[:100])),
        "batches": own,
    }


def check_meshes() -> dict[str, Any]:
    """The devices of a training, by the size of its batches."""
    found = {}
    for size in (64, 63):
        mesh = ihas.data_mesh(size)
        found[str(size)] = [mesh.size, len({d.process_index for d in mesh.devices.flat})]
    return found


def check_checkpoints(folder: Path) -> dict[str, Any]:
    """Checkpoints that all processes write, and one that the first one writes by itself."""
    mesh = mesh_of(processes.devices(), split=True)
    tables = {"tables": {"embedding": {"e": np.arange(8000.0, dtype=np.float32)[:, None]}}}
    placed = place(tables, mesh)
    with Checkpoints(folder / "all") as checkpoints:
        for i in range(3):
            checkpoints.save({"params": placed, "own": {"x": jnp.full(3, i)}}, {"i": i})
    with Checkpoints(folder / "all") as checkpoints:
        items, facts = checkpoints.restore({"params": placed, "own": {"x": jnp.zeros(3, int)}})
    back = whole(items["params"], jax.tree.map(jax.typeof, tables))
    made = folder / "first"

    def write() -> None:
        with Checkpoints(made) as checkpoints:
            checkpoints.save({"plan": {"x": np.arange(4)}}, {})

    processes.agreed(write)
    return {
        "equal": bool(np.array_equal(*(t["tables"]["embedding"]["e"] for t in (back, tables)))),
        "own": np.asarray(items["own"]["x"]).tolist(),
        "facts": facts,
        "kept": sorted(p.name for p in (folder / "all").iterdir() if p.name.isdigit()),
        "first": [p.name for p in made.iterdir()],
    }


def fits(folder: Path, cases: list[str]) -> dict[str, Any]:
    """Runs, and two seeds at once, and a run by the search of another; what each returns."""
    data, found = log(), {}
    for case in cases:
        found[case] = ihas.fit(config_of(case), data, folder / case).metrics
    return found


def fit_more(folder: Path) -> dict[str, Any]:
    """Two seeds side by side, and a run by the search of another one."""
    data = log()
    plain = dataclasses.replace(CONFIG, method="pep", options=())
    both = ihas.fit_seeds(plain, data, {s: folder / f"seed_{s}" for s in (1, 2)})
    other = replaced(CONFIG, "model.name", "wide_deep")
    by = ihas.fit(other, data, folder / "by_search", searched_by=folder / "ihas")
    return {"seeds": [run.metrics for run in both], "by_search": by.metrics}


def rows_read(folder: Path) -> list[int]:
    """How many rows of each batch this process reads of a log that does not stay on devices."""
    read: list[int] = []
    original = Rounds._read

    def spy(self: Rounds, split: Any, rows: np.ndarray, length: int) -> Any:
        numbers, data = original(self, split, rows, length)
        read.append(numbers.shape[1])
        return numbers, data

    config = replaced(replaced(CONFIG, "method", "none"), "train.device_data_gb", 0.0)
    config = dataclasses.replace(config, options=())
    with patch.object(Rounds, "_read", spy):
        ihas.fit(config, log(), folder / "read", "base")
    return sorted(set(read))


def late_clock(folder: Path) -> bool:
    """Whether a training ends where the clock of one process runs a thousand times too fast."""
    start, speed = time.monotonic(), 1000 if processes.index() else 1
    clock = SimpleNamespace(monotonic=lambda: start + speed * (time.monotonic() - start))
    config = dataclasses.replace(CONFIG, method="none", options=())
    config = replaced(config, "train.checkpoint_seconds", 5.0)
    with patch.object(loop, "time", clock):
        ihas.fit(config, log(), folder / "clock", "base")
    return True


def leave_late() -> int:
    """Lets the last process come to the end long after the first one."""
    time.sleep(5.0 * processes.index())
    return processes.index()


def fail(folder: Path, way: str) -> None:
    """Fails in a way, in one process or in all."""
    last = processes.index() == 1
    if way == "input_1" and last:
        raise ihas.InputError("Only this process can't go on.")
    if way == "input_0" and not last:
        raise ihas.InputError("The first process can't go on.")
    if way == "crash_1" and last:
        raise ZeroDivisionError("one over zero")
    if way == "agreed":
        processes.agreed(lambda: open_nothing(folder))
    if way == "dies_1" and last:
        os._exit(9)
    if way == "stops_1" and last:
        os.kill(os.getpid(), signal.SIGSTOP)
    if way == "config":
        ihas.fit(replaced(CONFIG, "seed", processes.index()), log(), folder / "run")
    if way == "stage":
        ihas.fit(CONFIG, log(), folder / "run", "base" if last else "all")
    if way == "data":
        data = log()
        ihas.fit(
            CONFIG, dataclasses.replace(data, valid=data.test) if last else data, folder / "run"
        )
    if way == "folder":
        with patch.object(workdir, "_SEEN_SECONDS", 1.0):
            ihas.fit(CONFIG, log(), folder / f"run_{processes.index()}")
    if way == "taken":
        (folder / "run").mkdir(exist_ok=True)
        (folder / "run" / "mine.txt").touch()
        ihas.fit(CONFIG, log(), folder / "run")
    if way in ("crash_1", "dies_1"):  # the other one is in the middle of a computation
        check_streams()
    processes.every("the end")


def open_nothing(folder: Path) -> None:
    """Raises an error of the disk."""
    (folder / "nothing").read_bytes()


def main() -> None:
    """`processes_check.py FOLDER PART COORDINATOR ID COUNT` writes what it found as JSON."""
    folder, part, address, number, count = sys.argv[1:]
    job = Job(processes="auto")
    if address != "auto":
        job = Job(coordinator=address, process_id=int(number), process_count=int(count))
    parts: dict[str, Callable[[Path], Any]] = {
        "agreement": lambda path: check_agreement() | {"late": leave_late()},
        "basics": lambda path: {
            "agreement": check_agreement(),
            "arrays": check_arrays(),
            "streams": check_streams(),
            "meshes": check_meshes(),
            "checkpoints": check_checkpoints(path),
        },
        "fits": lambda path: fits(path, [*CASES]) | fit_more(path),
        "feeds": lambda path: {"read": rows_read(path), "clock": late_clock(path)},
    }
    part, _, way = part.partition("-")

    quick = way == "stops_1" or part == "agreement"

    def versions(name: str) -> str:
        return "9" if way == "versions" and job.process_id and name == "optax" else version(name)

    with (
        patch.object(watch, "_SILENCE", 3.0 if quick else watch._SILENCE),
        patch.object(joining, "version", versions),
        joined(job),
    ):
        found = fail(Path(folder), way) if way else parts[part](Path(folder))
    if part == "agreement":  # each works alone again
        found["after"] = check_streams() if number == "0" else {}
    Path(folder, f"{part}_{number}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    run_cli(main)
