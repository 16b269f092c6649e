"""When does it hold? A map of where iHAS beats base, iHAS-2 and a uniform size of its own size.

Logs with planted groups are drawn, by number of rows and by how much the groups differ. A log and
its runs are removed when its models have their scores. The same command resumes after an
interruption, and goes on where it has more --rows or --heterogeneity.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # where common and compare are

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import common
import tyro
from cells import Cell, finished, remove, run_cell
from command_line import parse
from comparison import LogComparison, Record
from costs import cost_of, duration
from map_table import write

from ihas_jax.data.synthetic import SyntheticConfig
from ihas_jax.errors import InputError, run_cli
from ihas_jax.presets import PresetName
from ihas_jax.progress import say

_LEAST_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    rows: tuple[int, ...] = (100_000, 500_000, 2_500_000, 20_000_000)
    """The rows of the logs, in all three splits together."""
    heterogeneity: tuple[float, ...] = (0.0, 0.5, 1.0)
    """What other groups lack of the effects of a group's own fields: 0 nothing, 1 all of them."""
    groups: int = 2
    """The number of groups."""
    own: int = 3
    """The number of fields of each group that matter to it, to others by the heterogeneity."""
    noise: int = 3
    """The number of fields that matter to no group."""
    values: int = 1000
    """The number of distinct values of a field."""
    effect: float = 0.8
    """The standard deviation of a value's shift of the log-odds."""
    preset: PresetName | None = "small"
    """The values that the other flags start from; --model.hidden is the width of the network."""
    output: Path = Path("runs/map")
    """The folder of the drawn logs and the runs, which are removed one by one."""
    data: tyro.conf.Suppress[tuple[Path, ...]] = ()

    def shape(self, cell: Cell) -> SyntheticConfig:
        """The log of a cell."""
        return SyntheticConfig(
            rows=cell.rows,
            heterogeneity=cell.heterogeneity,
            seed=cell.seed,
            groups=self.groups,
            own=self.own,
            noise=self.noise,
            values=self.values,
            effect=self.effect,
        )

    @property
    def cells(self) -> list[Cell]:
        """All cells, those of few rows first."""
        places = [(rows, one) for rows in sorted(self.rows) for one in sorted(self.heterogeneity)]
        return [Cell(*place, seed) for place in places for seed in self.seed_range]


def main() -> None:
    """Parses the command line, runs the cells that are missing, writes the map after each."""
    arguments = parse(Arguments, __doc__, {"optimizer.tables": "rowwise"})
    require(arguments)
    dials = dataclasses.asdict(arguments.shape(Cell(0, 0.0, 0)))
    record = Record(arguments, {"dials": dials})
    cells = arguments.cells
    for cell in cells:
        if not finished(record.logs.get(cell.name)):
            begin = partial(say_progress, record, cells, cell)
            run_cell(arguments, cell, arguments.shape(cell), record, begin)
            write(record, cells)
        remove(arguments, cell)
    common.print_results(arguments.destination, write(record, cells))


def require(arguments: Arguments) -> None:
    """Raises: InputError: a flag of the map is out of range, or named twice."""
    if arguments.seeds < 1 or not arguments.rows or not arguments.heterogeneity:
        raise InputError("Name at least one of --rows, --heterogeneity and --seeds.")
    for flag, values in (("rows", arguments.rows), ("heterogeneity", arguments.heterogeneity)):
        if len(set(values)) < len(values):
            raise InputError(f"--{flag} names a value twice.")
    if (least := min(arguments.rows)) < _LEAST_ROWS:
        raise InputError(f"--rows must be at least {_LEAST_ROWS:,}, not {least:,}.")
    for one in arguments.heterogeneity:
        if not 0 <= one <= 1:
            raise InputError(f"--heterogeneity must be 0 to 1, not {one:g}.")
    for flag, least in (("groups", 1), ("own", 1), ("noise", 0), ("values", 2)):
        if getattr(arguments, flag) < least:
            raise InputError(f"--{flag} must be at least {least}, not {getattr(arguments, flag)}.")
    if arguments.config.method != "ihas":
        raise InputError("The map is one of iHAS; leave --method out.")
    if arguments.config.retrain.teachers:
        raise InputError("The models of the map learn from clicks; leave --retrain.teachers out.")


def say_progress(record: Record, cells: Sequence[Cell], cell: Cell, what: str) -> None:
    """Says what begins, and how long the rest of the map takes by the cells that are finished."""
    done = {one: record.logs[one.name] for one in cells if finished(record.logs.get(one.name))}
    left = ""
    if cost := cost_of([(one.rows, found["seconds"]) for one, found in done.items()]):
        seconds = sum(cost.of(one.rows) for one in cells if one not in done)
        seconds -= record.logs.get(cell.name, {}).get("seconds", 0.0)
        left = f", about {duration(max(0.0, seconds))} left"
    say(f"[Map] {len(done)} of {len(cells)} cells{left}; {cell.title}: {what}")


if __name__ == "__main__":
    run_cli(main)
