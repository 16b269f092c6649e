"""Compares dense and row-wise Adam: test AUC and logloss of the base model over several seeds."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import tyro
from common import (
    LogComparison,
    Record,
    early_preset,
    gain_cells,
    gain_over,
    markdown_table,
    open_logs,
    print_results,
    spread_cell,
    write_results,
)
from compare import Scores, base_scores

from ihas_jax.config import TableUpdates, replaced
from ihas_jax.errors import run_cli
from ihas_jax.names import markdown
from ihas_jax.reporting.comparison import spread
from ihas_jax.reporting.report import provenance

Runs = dict[TableUpdates, list[Scores]]
"""Scores of each seed, by table update."""
_DIGITS = {"auc": 4, "logloss": 4, "epochs": 1}


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """Trains the base model of each log with dense and with row-wise Adam, seed by seed.

    The same command resumes after an interruption.
    """

    seeds: int = 5
    output: Path = Path("runs/table_updates")
    """The folder of the trainings, with a folder for each log, update and seed."""
    results: Path = Path("experiments/results/table_updates")
    """Where the table goes: this path with .md and .json at its end."""


def main() -> None:
    """Parses the command line, trains, writes the table."""
    arguments = tyro.cli(Arguments, default=Arguments(config=early_preset()))
    arguments.require_pairs()
    logs: dict[str, Runs] = {}
    for name, data in open_logs(arguments.data).items():
        runs: Runs = {}
        for tables in get_args(TableUpdates):
            config = replaced(arguments.config, "optimizer.tables", tables)
            folder = arguments.output / name
            runs[tables] = base_scores(config, data, folder, tables, arguments.seed_range)
        logs[name] = runs
    content = Record(arguments).content({n: summarize(r) | {"runs": r} for n, r in logs.items()})
    missing = write_results(arguments.results, content, lambda: _lines(arguments, logs))
    print_results(arguments.results, missing)


def _lines(arguments: Arguments, logs: dict[str, Runs]) -> list[str]:
    rows = [
        [
            markdown(name),
            metric,
            *(spread_cell(runs[side], metric, digits) for side in ("dense", "rowwise")),
            *gain_cells(runs["dense"], runs["rowwise"], metric, digits),
        ]
        for name, runs in logs.items()
        for metric, digits in _DIGITS.items()
    ]
    headers = ("log", "metric", "dense", "row-wise", "difference", "p")
    return [
        "# Dense and row-wise Adam: the base model",
        "",
        *markdown_table(headers, rows, texts=(0, 1)),
        "",
        f"Test split, {arguments.seeds} seeds: mean ± standard deviation; the difference is "
        "row-wise minus dense of the same seed, p that of a paired t-test.",
        "",
        *provenance(arguments.config),
        "",
    ]


def summarize(runs: Runs) -> dict[str, Any]:
    """Mean and deviation of both updates, and of their difference."""
    summary: dict[str, Any] = {}
    for metric in _DIGITS:
        for side, scores in runs.items():
            summary[f"{metric} {side}"] = spread([run[metric] for run in scores])
        gain = gain_over(runs["dense"], runs["rowwise"], metric)
        summary[f"{metric} difference"], summary[f"{metric} p"] = gain
    return summary


if __name__ == "__main__":
    run_cli(main)
