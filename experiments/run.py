"""Runs all stages on a prepared or a synthetic log: base, search, choose, retrain, evaluate."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from command_line import ProcessFlags, TrainingFlags, parse

from ihas_jax.data.open import open_store
from ihas_jax.data.synthetic import synthetic
from ihas_jax.errors import run_cli
from ihas_jax.job import Job
from ihas_jax.joining import joined
from ihas_jax.names import printable
from ihas_jax.pipeline.fit import StageName, fit
from ihas_jax.pipeline.parts import require_parts
from ihas_jax.presets import preset
from ihas_jax.progress import say, show
from ihas_jax.reporting.scores import closing_table
from ihas_jax.reporting.tables import Grid


@dataclass(frozen=True, kw_only=True)
class Arguments(TrainingFlags, ProcessFlags):
    """Runs iHAS, or another selection method. The same command resumes after an interruption.

    Without any flag it also runs the recipe that we recommend, --preset compact, on the same
    synthetic log, and puts the two side by side.

    It writes metrics.json, report.md, figures/, log.jsonl and bundle/ into the output folder. Exit
    code 1 means that the numbers are there, but a part of report or figures is not.
    """

    data: Path | None = None
    """The folder that prepare.py made; without it, a synthetic log with planted truth is drawn."""
    output: Path | None = None
    """The folder of the run, new or to resume; by default runs/ and the name of --data."""
    searched_by: Path | None = None
    """The folder of a run of another click model, whose search and choice serve this run."""
    stage: StageName = "all"
    """The stage to run, whose predecessors must be finished; all runs every missing stage."""


def main() -> None:
    """Parses the command line and runs."""
    arguments = parse(Arguments)
    with joined(arguments.job):
        run(arguments)


def run(arguments: Arguments) -> None:
    """Runs, in each process of the job."""
    data = synthetic() if arguments.data is None else open_store(arguments.data)
    name = "synthetic" if arguments.data is None else printable(arguments.data.resolve().name)
    output = arguments.output or Path("runs") / name
    result = fit(arguments.config, data, output, arguments.stage, searched_by=arguments.searched_by)
    missing = result.missing
    if replace(arguments, job=Job()) == Arguments(config=preset("small")):
        folder = output.with_name(f"{output.name}_compact")
        say(f"Beside it, the recipe that we recommend, in {folder}:")
        beside = fit(preset("compact"), data, folder)
        missing = (*missing, *beside.missing)
        show(side_by_side(result.metrics, beside.metrics))
    require_parts(missing, result.workdir / "metrics.json")


def side_by_side(published: dict[str, Any], recommended: dict[str, Any]) -> Grid:
    """The closing tables of two runs as one."""
    above, below = closing_table(published), closing_table(recommended)
    title = "iHAS as published, and below it --preset compact, on the test split"
    headers = (*above.headers[:-1], "vs its base")
    return Grid(title, headers, [*above.rows, None, *below.rows], above.texts)


if __name__ == "__main__":
    run_cli(main)
