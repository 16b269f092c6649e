"""Accuracy against size: each method at each budget, from clicks and from teachers, over seeds.

A method that serves its searched model, such as AdaFS, has the one size that it has. A log's
teachers, and the searches of each method, are trained once for a seed. The same command resumes
after an interruption. Flags of --search apply to the method that --method names; the others
have the values of the preset.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # where common and compare are

from dataclasses import dataclass
from pathlib import Path

import common
from command_line import parse
from compare import score_logs
from comparison import LogComparison, Record
from front import Point, points_of
from front_table import write
from reference import TEACHERS, full_size
from sizes.flags import refuse_amounts, sorted_budgets

from ihas_jax.config import differences
from ihas_jax.errors import run_cli
from ihas_jax.selectors.registry import METHODS


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    budgets: tuple[float, ...] = (0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0)
    """The shares of the embedding table's numbers that every method keeps."""
    methods: tuple[str, ...] = ()
    """The methods to compare, by default all; the models of full size are always among the rows."""
    seeds: int = 5
    """The number of seeds, from --seed on."""
    output: Path = Path("runs/pareto")


def main() -> None:
    """Parses the command line, runs what is missing, writes the results after each log."""
    arguments = read_arguments()
    arguments.require_pairs()
    points = compared(arguments)
    variants = [point.variant(arguments) for point in points]
    own = {m: differences(arguments.config, arguments.config_of(m)) for m in ("none", *METHODS)}
    record = Record(arguments, {"own": own})
    logs: list[str] = []
    missing: tuple[str, ...] = ()
    for name, _, _ in score_logs(record, lambda name, data: variants, leave_out=True):
        logs.append(name)
        missing = write(record, points, logs, note_of(arguments))
    common.print_results(arguments.destination, missing)


def read_arguments() -> Arguments:
    """Parses the command line, on which --budgets takes the place of --budget, also of a preset."""
    start = {"retrain.teachers": TEACHERS, "budget": None}
    return parse(Arguments, __doc__, start, hidden=("budget",))


def compared(arguments: Arguments) -> list[Point]:
    """The models that are compared, those of full size first.

    Raises:
      InputError: a budget is out of range or named twice, a flag says how much is kept, a method or
        teacher is unknown, or the searched model, of which each method has another, is a teacher.
    """
    budgets = sorted_budgets(arguments.budgets)
    for method in arguments.methods:
        METHODS.find(method, "methods")
    wanted = arguments.methods or METHODS
    methods = [method for method in METHODS if method in wanted]
    refuse_amounts(arguments.config, (m for m in methods if not METHODS.find(m).serves_searched))
    return points_of(methods, budgets, bool(full_size(arguments.config).retrain.teachers))


def note_of(arguments: Arguments) -> str:
    """What the models learn from, as Markdown."""
    names = " ".join(arguments.config.retrain.teachers)
    if not names:
        return "Every model learns from clicks."
    return f"Teachers are {names}. Every model is trained once with them, and once on clicks alone."


if __name__ == "__main__":
    run_cli(main)
