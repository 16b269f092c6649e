"""What do gates of small rank cost in AUC, and save in time? Over several seeds of each log.

The same command resumes after an interruption.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
from command_line import parse
from compare import Variant, score_logs
from comparison import LogComparison, Record

from ihas_jax.errors import InputError, run_cli
from ihas_jax.flags import replaced
from ihas_jax.names import markdown
from ihas_jax.pipeline.fit import check_choices

_HEADERS = (
    *("log", "gates", "searched model's AUC", "difference", "p", "iHAS's AUC", "difference", "p"),
    *("router parameters", "seconds of the search"),
)
_ABOUT = (
    "Test AUC, mean ± standard deviation; differences are from iHAS with the whole matrix and the "
    "same seed, p is that of a paired t-test. The seconds include compiling."
)


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    ranks: tuple[int, ...] = (8, 32)
    """The ranks of the gates' matrix beside the whole one."""
    seeds: int = 5
    """The number of seeds, from --seed on."""
    output: Path = Path("runs/ranks")


def main() -> None:
    """Parses the command line, runs what is missing, writes the table."""
    arguments = parse(Arguments, __doc__)
    arguments.require_pairs()
    if arguments.config.method != "ihas" or not arguments.ranks:
        raise InputError("Gates of iHAS are compared: leave --method out, and name --ranks 8.")
    record = Record(arguments, {"ranks": list(arguments.ranks)})
    for data in arguments.open_logs().values():
        for variant in variants(arguments):
            check_choices(variant.config, data)
    for _ in score_logs(record, lambda name, data: [*variants(arguments)]):
        pass
    missing = common.write_results(
        arguments.destination, record.content, lambda: _lines(record, arguments)
    )
    common.print_results(arguments.destination, missing)


def variants(arguments: Arguments) -> Iterator[Variant]:
    """The searched model and iHAS with each kind of gates, both of one run."""
    for rank in (None, *arguments.ranks):
        config = replaced(arguments.config, "gates.rank", rank)
        title = _title(rank)
        for key in ("ihas", "search"):
            yield Variant(f"{title}, {key}", title.replace(" ", "_"), title, config, key)


def _title(rank: int | None) -> str:
    return "whole" if rank is None else f"rank {rank}"


def _lines(record: Record, arguments: Arguments) -> list[str]:
    rows = []
    for name, runs in record.logs.items():
        for rank in (None, *arguments.ranks):
            cells = [markdown(name), _title(rank)]
            for key in ("search", "ihas"):
                whole, own = (runs[f"{_title(r)}, {key}"] for r in (None, rank))
                cells += [common.spread_cell(own, "auc"), *common.gain_cells(whole, own, "auc")]
            of_search, of_all = (runs[f"{_title(rank)}, {key}"] for key in ("search", "ihas"))
            seconds = np.mean([run["training_seconds"] for run in of_search])
            rows.append([*cells, f"{of_all[0]['router_parameters']:,}", f"{seconds:.0f}"])
    body = [*common.markdown_table(_HEADERS, rows, texts=(0, 1)), "", _ABOUT]
    return common.report("Gates of small rank", body, arguments.config)


if __name__ == "__main__":
    run_cli(main)
