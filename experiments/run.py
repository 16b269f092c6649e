"""Runs all stages on a prepared or a synthetic log: base, search, choose, retrain, evaluate."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from dataclasses import dataclass
from pathlib import Path

from command_line import TrainingFlags, parse

from ihas_jax.data.open import open_store
from ihas_jax.data.synthetic import synthetic
from ihas_jax.errors import run_cli
from ihas_jax.names import printable
from ihas_jax.pipeline.fit import StageName, fit
from ihas_jax.pipeline.parts import require_parts


@dataclass(frozen=True, kw_only=True)
class Arguments(TrainingFlags):
    """Runs iHAS, or another selection method. The same command resumes after an interruption.

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
    data = synthetic() if arguments.data is None else open_store(arguments.data)
    name = "synthetic" if arguments.data is None else printable(arguments.data.resolve().name)
    output = arguments.output or Path("runs") / name
    result = fit(arguments.config, data, output, arguments.stage, searched_by=arguments.searched_by)
    require_parts(result.missing, result.workdir / "metrics.json")


if __name__ == "__main__":
    run_cli(main)
