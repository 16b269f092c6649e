"""Compresses a click model: the smallest one that is about as good as the best, from a log."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

import tyro
from command_line import TrainingFlags, parse

from ihas_jax.config import differences
from ihas_jax.config.bounds import Positive
from ihas_jax.config.compress import CompressConfig
from ihas_jax.data.open import open_store
from ihas_jax.data.synthetic import synthetic
from ihas_jax.errors import InputError, run_cli
from ihas_jax.flags import option_kinds
from ihas_jax.names import printable
from ihas_jax.pipeline.compress import compress
from ihas_jax.pipeline.cuts import cut_run
from ihas_jax.pipeline.parts import require_parts
from ihas_jax.presets import PresetName, preset

_OF_CUTS = ("budget", "tolerance", "standard_errors")
"""The choices that --run reads."""
HIDDEN = ("method", "budget", "search", "retrain")
"""What compression chooses by itself."""


@dataclass(frozen=True, kw_only=True)
class Arguments(TrainingFlags):
    """Makes the smallest click model that is about as good as the best one, from a prepared log.

    Base model and teachers are trained on clicks, students learn from the teachers, and each
    selection cuts them to each budget. Validation rows choose. The same command resumes after an
    interruption. It writes metrics.json, report.md, figures/ and bundle/ into the output folder.
    With --run it cuts a finished run to each budget in seconds, without training; with --retrain,
    too, each size is trained on from there.
    """

    preset: PresetName | None = "compact"
    """The values that the other flags start from."""
    data: Path | None = None
    """The folder that prepare.py made; without it, a synthetic log with planted truth is drawn."""
    output: Path | None = None
    """The folder, new or to resume; by default runs/, the name of --data and _compressed."""
    run: Path | None = None
    """The folder of a finished run of --method none on --data, to be cut to each budget at once.
    Nothing is trained then, and --output is a folder for the chosen size, if it is given."""
    retrain: bool = False
    """Whether each size of --run is trained on from there, in --output."""
    workers: Positive[int] | None = None
    """The number of processes that train beside each other, each with one thread; by default
    as many as there are cores and memory for, up to four, and one where JAX sees an accelerator."""
    choices: Annotated[CompressConfig, tyro.conf.arg(name="")] = field(
        default_factory=CompressConfig
    )


def main() -> None:
    """Parses the command line and runs."""
    arguments = parse(Arguments, hidden=(*HIDDEN, *option_kinds()))
    if arguments.run is not None:
        refuse_idle(arguments)
    elif arguments.retrain:
        raise InputError("--retrain trains the sizes of a finished run. Name the run as --run.")
    data = synthetic() if arguments.data is None else open_store(arguments.data)
    if arguments.run is not None:
        choices, output = arguments.choices, arguments.output
        cut_run(arguments.run, data, choices, output, retrain=arguments.retrain)
        return
    name = "synthetic" if arguments.data is None else printable(arguments.data.resolve().name)
    output = arguments.output or Path("runs") / f"{name}_compressed"
    result = compress(arguments.config, arguments.choices, data, output, workers=arguments.workers)
    require_parts(result.missing, result.workdir / "metrics.json")


def refuse_idle(arguments: Arguments) -> None:
    """Checks that each flag has an effect on the cut of a run.

    Raises:
      InputError: one has none.
    """
    usual, choices = CompressConfig(), arguments.choices
    idle = [f.name for f in fields(choices) if f.name not in _OF_CUTS]
    idle = [name for name in idle if getattr(choices, name) != getattr(usual, name)]
    idle += ["workers"] if arguments.workers is not None else []
    idle += ["preset"] if arguments.preset != Arguments.preset else []
    start = preset(arguments.preset or "compact")
    idle += [line.split(":")[0] for line in differences(start, arguments.config)]
    if idle:
        flag = idle[0].removesuffix(".name").replace("_", "-")
        raise InputError(
            f"--{flag} would have no effect, since --run cuts a model that is trained, and "
            f"--retrain trains each size as that one was. Leave --{flag} out."
        )


if __name__ == "__main__":
    run_cli(main)
