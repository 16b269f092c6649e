"""Compares dense, deferred and row-wise Adam: test scores of the base model over several seeds.

The same command resumes after an interruption.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from dataclasses import dataclass
from pathlib import Path

import common
from command_line import parse
from compare import Variant, score_logs
from comparison import LogComparison, Record

from ihas_jax.config.training import TableUpdates
from ihas_jax.errors import InputError, run_cli
from ihas_jax.flags import replaced
from ihas_jax.names import markdown

_UPDATES: tuple[TableUpdates, ...] = ("dense", "deferred", "rowwise")
_DIGITS = {"auc": 4, "logloss": 4, "epochs": 1}


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    seeds: int = 5
    output: Path = Path("runs/table_updates")


def main() -> None:
    """Parses the command line, trains, writes the table."""
    arguments = parse(Arguments, __doc__)
    arguments.require_pairs()
    if arguments.config.retrain.teachers:
        raise InputError(
            "These are base models, which learn from clicks alone; leave --retrain.teachers out."
        )
    configs = {name: replaced(arguments.config, "optimizer.tables", name) for name in _UPDATES}
    variants = [Variant(name, name, name, config) for name, config in configs.items()]
    record = Record(arguments)
    for _ in score_logs(record, lambda name, data: variants):
        pass
    summary = {name: common.summarize(runs, [*_DIGITS]) for name, runs in record.logs.items()}
    content = record.content | {"summary": summary}
    missing = common.write_results(arguments.destination, content, lambda: _lines(record))
    common.print_results(arguments.destination, missing)


def _lines(record: Record) -> list[str]:
    rows = [
        [
            markdown(name),
            metric,
            *(common.spread_cell(runs[side], metric, digits) for side in _UPDATES),
            *common.gain_cells(runs["dense"], runs["deferred"], metric, digits),
            *common.gain_cells(runs["dense"], runs["rowwise"], metric, digits),
        ]
        for name, runs in record.logs.items()
        for metric, digits in _DIGITS.items()
    ]
    updates = ("dense", "deferred", "row-wise")
    gains = [cell for name in updates[1:] for cell in (f"{name} - dense", "p")]
    headers = ("log", "metric", *updates, *gains)
    about = (
        f"Test split, {record.arguments.seeds} seeds: mean ± standard deviation; a difference is "
        "that of the same seed, p that of a paired t-test."
    )
    body = [*common.markdown_table(headers, rows, texts=(0, 1)), "", about]
    return common.report(
        "Dense, deferred and row-wise Adam: the base model", body, record.arguments.config
    )


if __name__ == "__main__":
    run_cli(main)
