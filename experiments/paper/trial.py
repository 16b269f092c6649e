"""The trial of reproduce.py: what each step costs, by the same steps on short logs."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from bench.workload import Shape, draw_log, sizes_of
from costs import cost_of
from steps import Done, Plan, Step

from ihas_jax.data.raw import formats
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.store_writer import save_dataset
from ihas_jax.errors import InputError
from ihas_jax.progress import say, silent

SEEDS = 2
"""The seeds of a trial, the fewest that a table compares."""
_FIRST = 1000
_WHAT = {
    "avazu": "Avazu's train.csv: a header with id, click, hour and 21 other columns",
    "criteo": "Criteo's train.txt: a label, 13 numbers and 26 categories between tabs, no header",
}
_BLOCK = 1 << 24


def check_files(logs: Mapping[str, Path]) -> None:
    """Raises: InputError: a file is not the training log that its flag names."""
    for log, path in logs.items():
        if not path.is_file():
            raise InputError(f"--{log} {path} is not a file; name {_WHAT[log]}.")
        try:
            with TemporaryDirectory() as folder, silent():
                raw = getattr(formats, log)(path)
                prepare(raw, Path(folder) / "store", min_count=1, limit_rows=_FIRST)
        except InputError as error:
            raise InputError(f"--{log} {path} can't be read as {_WHAT[log]} ({error}).") from None


def count_rows(path: Path) -> int:
    """The number of lines in a file, plain or gzip."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))


def measure(
    plan: Plan, sizes: Sequence[int], epochs: int, rows: Mapping[str, int]
) -> dict[str, float | None]:
    """The seconds that each step of a plan is expected to take, by its name; None if not known.

    The steps are run on the first rows of the files, and trainings on drawn logs that have as many
    values as the whole ones, since these decide the time of a step.

    Args:
      plan: the plan.
      sizes: the rows of the short logs; two sizes tell what grows with the rows from what does not.
      epochs: the largest number of epochs of a training.
      rows: the rows of each log of the plan.
    """
    steps = [*plan.prepares, *plan.trainings]
    measured: dict[str, list[tuple[float, float]]] = {step.name: [] for step in steps}
    for size in sizes:
        folder = plan.folder / "trial" / str(size)
        flags = (*plan.flags, "--train.max-epochs", str(epochs))
        short = replace(plan, folder=folder, seeds=SEEDS, flags=flags, limit_rows=size)
        done = Done(folder / "steps.json")
        for i, step in enumerate([*short.prepares, *short.trainings]):
            say(f"[Trial] {size:,} rows, step {i + 1} of {len(steps)}: {step.name}")
            if i == len(short.prepares) and not done.has(step):
                _draw(short, size)
            try:
                done.run(step, folder / "output.txt")
            except InputError as error:  # clusters of few rows may have no models to compare
                say(f"[Trial] no time of {step.name}: {error}")
            else:
                seconds = done.steps[step.name]["seconds"]
                measured[step.name].append((size * len(step.logs), seconds))
    shutil.rmtree(plan.folder / "trial")
    return {step.name: _expected(step, plan, measured[step.name], rows) for step in steps}


def _draw(short: Plan, size: int) -> None:
    """Puts drawn logs in the place of the prepared ones."""
    for log in short.logs:
        shutil.rmtree(short.store(log), ignore_errors=True)
        save_dataset(draw_log(sizes_of(cast(Shape, log), 1), size), short.store(log))


def _expected(
    step: Step, plan: Plan, measured: Sequence[tuple[float, float]], rows: Mapping[str, int]
) -> float | None:
    cost = cost_of(measured)
    if cost is None:
        return None
    times = plan.seeds / SEEDS if step.seeded else 1.0
    return times * cost.of(sum(rows[log] for log in step.logs))
