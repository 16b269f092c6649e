"""Selection at equal sizes: each method at each budget beside a uniform size of as many numbers.

All models have the same teachers. A log's teachers, and the search of each method, are trained once
for a seed. The same command resumes after an interruption. Flags of --search apply to the
method that --method names; the others have the values of the preset.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import common
from command_line import parse
from compare import score_logs
from comparison import LogComparison, Record
from reference import TEACHERS, full_size
from sizes.flags import refuse_amounts, sorted_budgets
from sizes.rows import Kind, Sizes, kinds_of
from sizes.table import write

from ihas_jax.config import Config, differences
from ihas_jax.errors import InputError, run_cli
from ihas_jax.flags import value_of
from ihas_jax.selectors.registry import METHODS


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    budgets: tuple[float, ...] = (0.0625, 0.125, 0.25)
    """The shares of the embedding table's numbers that every method keeps."""
    methods: tuple[str, ...] = ("uniform", "mixed", "magnitude", "random", "spectral", "ihas")
    """The methods to compare, with their variants; uniform is always compared first."""
    output: Path = Path("runs/selection")


def main() -> None:
    """Parses the command line, runs what is missing, writes the table after each log."""
    arguments = read_arguments()
    arguments.require_pairs()
    sizes = sizes_of(arguments)
    variants = sizes.variants(arguments)
    first = sizes.budgets[0]
    plain = dataclasses.replace(arguments.config, budget=first)
    own = {k.name: differences(plain, k.config(arguments, first)) for k in kinds_of(METHODS)}
    record = Record(arguments, {"own": own})
    logs: list[str] = []
    missing: tuple[str, ...] = ()
    for name, _, _ in score_logs(record, lambda name, data: variants, leave_out=True):
        logs.append(name)
        missing = write(record, sizes, logs)
    common.print_results(arguments.destination, missing)


def read_arguments() -> Arguments:
    """Parses the command line, on which --budgets takes the place of --budget, also of a preset."""
    start = {"retrain.teachers": TEACHERS, "budget": None}
    return parse(Arguments, __doc__, start, hidden=("budget",))


def sizes_of(arguments: Arguments) -> Sizes:
    """What is compared.

    Raises:
      InputError: --retrain.start is given, a budget is out of range or named twice, a
        flag says how much is kept or makes a row another one, a method or teacher is unknown, or
        the searched model is a teacher, which each method has another one of.
    """
    config = arguments.config
    budgets = sorted_budgets(arguments.budgets)
    if config.retrain.start is not None:
        raise InputError("Every method has a start of its own; leave --retrain.start out.")
    kinds = kinds_of(arguments.methods)
    refuse_amounts(config, (kind.method for kind in kinds))
    _check_rows_differ(arguments, kinds)
    taught = bool(full_size(config).retrain.teachers)
    return Sizes(kinds, budgets, taught)


def _check_rows_differ(arguments: Arguments, kinds: Sequence[Kind]) -> None:
    """Raises: InputError: a flag makes a row another one."""
    for kind in kinds:
        for flag, value in kind.flags.items():
            if value_of(arguments.config, flag) == value != value_of(Config(), flag):
                name = flag.replace("_", "-")
                raise InputError(
                    f"--{name} {value} is a row of its own, {kind.title}; leave --{name} out."
                )


if __name__ == "__main__":
    run_cli(main)
