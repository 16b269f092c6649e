"""The paper's Tables 2 to 4 and Figures 3 to 6 from the raw files of Kaggle, and one page of both.

The files are prepared, and each table and figure is made by its own script, in an order in which
nothing is trained twice. A trial on short logs says before how long each step takes at least. The
same command resumes after an interruption. Other flags are those of all trainings; without them the
values are the paper's, but that large tables are updated late (--optimizer.tables auto).
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # where common and compare are

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import common
import page
import tyro
from command_line import parse_config
from costs import duration
from steps import Done, Plan
from trial import check_files, count_rows, measure

from ihas_jax.config import Config
from ihas_jax.errors import InputError, run_cli
from ihas_jax.files import read_json, write_json
from ihas_jax.presets import PresetName, preset
from ihas_jax.progress import console, say
from ihas_jax.reporting.tables import Grid


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The flags."""

    avazu: Path | None = None
    """Avazu's train.csv, plain or gzip."""
    criteo: Path | None = None
    """Criteo's train.txt, plain or gzip."""
    seeds: int = 3
    """The number of seeds, from 0 on."""
    preset: PresetName = "paper"
    """The values that the other flags start from."""
    limit_rows: int | None = None
    """The number of rows to read of each file, for a rehearsal; by default all of them."""
    trial_rows: tuple[int, ...] = (20_000, 200_000)
    """The rows of the short logs of the trial; none leaves the trial out."""
    trial_only: bool = False
    """Whether to end after the trial."""
    output: Path = Path("runs/paper")
    """The folder of the prepared logs, the runs, the results and the page."""

    @property
    def logs(self) -> dict[str, Path]:
        """The files that are given, by the name of the log."""
        files = {"avazu": self.avazu, "criteo": self.criteo}
        return {log: path for log, path in files.items() if path is not None}


def main() -> None:
    """Parses the command line, says what the steps cost, runs those that are missing."""
    arguments, others = tyro.cli(Arguments, description=__doc__, return_unknown_args=True)
    config = parse_config(others, preset(arguments.preset))
    require(arguments, config)
    flags = ("--preset", arguments.preset, *others)
    plan = Plan(arguments.output, arguments.logs, arguments.seeds, flags, arguments.limit_rows)
    check_files(plan.logs)
    rows = rows_of(plan)
    expected = expect(plan, arguments.trial_rows, config, rows)
    if arguments.trial_only:
        return
    done = Done(arguments.output / "steps.json")
    steps = [*plan.prepares, *plan.trainings]
    for i, step in enumerate(steps):
        if not done.has(step):
            left = sum(expected.get(one.name) or 0.0 for one in steps[i:])
            then = f", at least {duration(left)} left" if left else ""
            say(f"[Paper] step {i + 1} of {len(steps)}: {step.name}{then}")
            done.run(step)
            page.write(arguments.output, rows, arguments.seeds, done, expected, config)
    missing = page.write(arguments.output, rows, arguments.seeds, done, expected, config)
    common.print_results(arguments.output / "page", missing)


def require(arguments: Arguments, config: Config) -> None:
    """Raises: InputError: a flag is out of range, or not one of the paper's."""
    if not arguments.logs:
        raise InputError(
            "Name Avazu's train.csv as --avazu, Criteo's train.txt as --criteo, or both."
        )
    if arguments.seeds < 2:
        raise InputError(f"--seeds must be at least 2 to compare, not {arguments.seeds}.")
    for flag, number in (("limit-rows", arguments.limit_rows), *_trial(arguments)):
        if number is not None and number < 1000:
            raise InputError(f"--{flag} must be at least 1,000, not {number:,}.")
    if config.method != "ihas" or config.seed:
        raise InputError("The tables choose methods and seeds; leave --method and --seed out.")


def _trial(arguments: Arguments) -> list[tuple[str, int]]:
    return [("trial-rows", rows) for rows in arguments.trial_rows]


def rows_of(plan: Plan) -> dict[str, int]:
    """The rows of each log that the plan reads."""
    counted = {log: count_rows(path) - (log == "avazu") for log, path in plan.logs.items()}
    most = plan.limit_rows
    return {log: rows if most is None else min(rows, most) for log, rows in counted.items()}


def expect(
    plan: Plan, sizes: Sequence[int], config: Config, rows: Mapping[str, int]
) -> dict[str, float | None]:
    """The seconds that each step is expected to take at least, measured once and shown.

    A training takes at least one epoch more than its patience, and the trial counts as many.
    """
    if not sizes:
        return {}
    path = plan.folder / "trial.json"
    asked = {"sizes": [*sizes], "rows": dict(rows), "flags": [*plan.flags], "seeds": plan.seeds}
    found = read_json(path) if path.exists() else {}
    if found.get("asked") != asked:
        epochs = min(config.train.max_epochs, config.train.patience + 1)
        found = {"asked": asked, "seconds": measure(plan, sizes, epochs, rows)}
        plan.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    expected: dict[str, float | None] = found["seconds"]
    cells = [(n, "not known" if own is None else duration(own)) for n, own in expected.items()]
    cells.append(("in all", duration(sum(own or 0.0 for own in expected.values()))))
    console.print(Grid("Expected on this machine", ("step", "at least"), cells, texts=(0,)))
    return expected


if __name__ == "__main__":
    run_cli(main)
