"""Compares each stage of runs on several devices or processes with the stage on one device."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import tyro
from bench.places import in_processes, on_devices
from common import machine, markdown_table, print_results, write_results

import ihas_jax as ihas
from ihas_jax.errors import InputError, run_cli
from ihas_jax.flags import replaced
from ihas_jax.pipeline.fit import StageName, check_choices
from ihas_jax.pipeline.stages import Stages
from ihas_jax.processes import by_first
from ihas_jax.progress import track
from ihas_jax.selectors import METHODS
from ihas_jax.stages.run import Run

_CONFIG = ihas.Config(
    model=ihas.ModelConfig(dim=8, hidden=(16, 8)),
    optimizer=ihas.OptimizerConfig(learning_rate=0.01),
    search=ihas.SearchConfig(pretrain_epochs=1, gate_every=1),
    train=ihas.TrainConfig(batch_size=64, max_epochs=2, round_batches=8),
)
_METHODS = tuple(method for method in METHODS if method != "ihas")
_RUNS: dict[str, dict[str, Any]] = {
    "ihas": {},
    "ihas, rows from disk, batch norm": {"train.device-data-gb": 0.0, "model.batch-norm": True},
    "ihas, tables between devices": {
        "train.table-sharding": "rows",
        "optimizer.tables": "rowwise",
    },
    "ihas, shared start, teachers": {
        "retrain.start": "shared",
        "retrain.teachers": ("base", "fm"),
        "search.stopping-share": 0.5,
    },
    **{f"ihas, {model}": {"model.name": model} for model in ("fm", "deepfm", "dcnv2")},
    **{method: {"method": method} for method in _METHODS},
    "autodim": {"method": "autodim", "autodim.dims": (2, 4, 8)},
    "spectral, rotated": {"method": "spectral", "search.rotate": True, "budget": 0.25},
}
"""The flags of each run."""
_LEFT_OUT = ("time", "seconds", "microseconds", "p")
"""What a log has of times, and p-values, which blow up the last bits of the AUC beside them."""
Events = list[dict[str, Any]]
Found = dict[str, dict[str, Events]]
"""What each stage of each run logs."""


@dataclass(frozen=True)
class Arguments:
    """Compares the metrics of each stage on several devices or processes with those on one device.

    Each stage starts from what the stages before it left on one device, since K-means may turn a
    last bit into another cluster. CPU devices and processes share the cores of this machine.
    """

    devices: tuple[int, ...] = (2, 4, 8)
    """The numbers of CPU devices of a process; none leaves them out."""
    processes: tuple[int, ...] = (2, 4)
    """The numbers of processes with a device each; none leaves them out."""
    runs: tuple[str, ...] = tuple(_RUNS)
    """The names of the runs."""
    rows: int = 3_200
    """The training rows of the log, which is drawn."""
    results: Path = Path("runs/agreement")
    """The path of the results, without their endings .md and .json."""


def main() -> None:
    """Parses the command line, runs, writes the results."""
    arguments = tyro.cli(Arguments)
    if unknown := sorted(set(arguments.runs) - set(_RUNS)):
        raise InputError(f"There is no run {unknown[0]!r}. --runs knows {'; '.join(_RUNS)}.")
    log = _log(arguments.rows)
    for name in arguments.runs:
        check_choices(_config(name), log)
    places = {
        **{f"{n} devices": partial(on_devices, n) for n in arguments.devices},
        **{f"{n} processes": partial(in_processes, n) for n in arguments.processes},
    }
    differences: dict[str, dict[str, dict[str, float]]] = {name: {} for name in arguments.runs}
    with TemporaryDirectory() as folder, track("Comparing", 1 + len(places), "places") as bar:
        alone = Path(folder, "alone")
        expected = on_devices(1, events_of, arguments.runs, arguments.rows, alone, None)
        bar.advance(1)
        for place, start in places.items():
            found = start(events_of, arguments.runs, arguments.rows, Path(folder, place), alone)
            for name, stages in expected.items():
                differences[name][place] = {
                    stage: difference(events, found[name][stage])
                    for stage, events in stages.items()
                }
            bar.advance(1)
    content = {"machine": machine(), "rows": arguments.rows, "differences": differences}
    missing = write_results(
        arguments.results, content, lambda: _lines(differences, [*places], arguments.rows)
    )
    print_results(arguments.results, missing)


def events_of(runs: Sequence[str], rows: int, folder: Path, starts: Path | None) -> Found:
    """What the stages of runs log on the devices of this process or job.

    Args:
      runs: the names of the runs.
      rows: the training rows of the log.
      folder: where the runs work.
      starts: the folder in which another call has left each run as it was before each stage. None
        lets each stage start from the one before it, and leaves them.
    """
    data, found = _log(rows), dict[str, dict[str, Events]]()
    for name in runs:
        config, found[name] = _config(name), {}
        for stage in Stages([Run(config, data, Path())]).stages:
            own = folder / name
            if starts is None:
                _copy(own, folder / f"{name} before {stage}")
            else:
                _copy(starts / f"{name} before {stage}", own)
            before = len(_events(own))
            ihas.fit(config, data, own, cast(StageName, stage))
            found[name][stage] = _events(own)[before:]
    return found


def _log(rows: int) -> ihas.Dataset:
    """Few rows to train on, and enough others that one place in their ranking moves no AUC."""
    log = ihas.synthetic(ihas.SyntheticConfig(rows=max(30_000, 2 * rows)))
    train = ihas.Split(log.train.ids[:rows], log.train.labels[:rows])
    return ihas.Dataset(log.schema, train, log.valid, log.test)


def _config(name: str) -> ihas.Config:
    config = _CONFIG
    for flag, value in _RUNS[name].items():
        config = replaced(config, flag, value)
    return config


@by_first
def _copy(source: Path, target: Path) -> None:
    """Replaces a folder by a copy of another one, or by none where that does not exist."""
    shutil.rmtree(target, ignore_errors=True)
    if source.exists():
        shutil.copytree(source, target)


@by_first
def _events(folder: Path) -> Events:
    path = folder / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def difference(ours: Events, theirs: Events) -> float:
    """The largest difference of a number in two logs; infinite where anything else differs."""
    one, other = ([*_leaves(events)] for events in (ours, theirs))
    if [place for place, _ in one] != [place for place, _ in other]:
        return math.inf
    return max((_apart(a, b) for (_, a), (_, b) in zip(one, other, strict=True)), default=0.0)


def _leaves(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The values in a log with their places, without times and p-values."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            if name not in _LEFT_OUT:
                yield from _leaves(value, f"{place}/{name}")
    elif isinstance(content, list):
        for i, value in enumerate(content):
            yield from _leaves(value, f"{place}/{i}")
    else:
        yield place, content


def _apart(one: Any, other: Any) -> float:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    return 0.0 if one == other else math.inf


def _lines(
    differences: Mapping[str, Mapping[str, Mapping[str, float]]], places: Sequence[str], rows: int
) -> list[str]:
    table = [
        [name, *(_cell(of_places[place]) for place in places)]
        for name, of_places in differences.items()
    ]
    about = (
        "The largest difference of a metric in the log of any stage from that of one device, and "
        "the stage: losses, AUCs and loglosses of epochs, kept shares, inertia, choices and test "
        f"metrics. Each stage starts from what the ones before it left on one device ({rows:,} "
        "training rows, drawn). Longer trainings may drift apart, since Adam and ReLU can turn "
        "a last bit into another step."
    )
    return [
        *("# Agreement", "", *machine(), ""),
        *(*markdown_table(("run", *places), table, texts=(0,)), "", about),
    ]


def _cell(stages: Mapping[str, float]) -> str:
    stage = max(stages, key=lambda name: stages[name])
    worst = stages[stage]
    if not worst:
        return "0"
    return f"another choice ({stage})" if math.isinf(worst) else f"{worst:.0e} ({stage})"


if __name__ == "__main__":
    run_cli(main)
