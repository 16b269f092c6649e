"""Compares dense and row-wise Adam: test AUC and logloss of the base model over several seeds."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from ihas_jax.cli import early_preset, open_logs
from ihas_jax.config import Config, TableUpdates, to_json
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, run_cli
from ihas_jax.names import markdown
from ihas_jax.presets import PresetName
from ihas_jax.progress import say
from ihas_jax.reporting.comparison import Gain, Spread, auc_spread, paired_gain, spread
from ihas_jax.reporting.report import provenance
from ihas_jax.stages.parts import require_parts, write_results
from ihas_jax.stages.pretrain import streamed_predict, train_base
from ihas_jax.stages.run import Run
from ihas_jax.stages.workdir import open_workdir
from ihas_jax.training.metrics import score

Runs = dict[TableUpdates, list[dict[str, float]]]
"""Scores of each seed's run, by table update."""


@dataclass(frozen=True)
class Arguments:
    """Trains the base model of each log with both table updates, seed by seed.

    Run the same command again to go on after an interruption.
    """

    data: tuple[Path, ...]
    """Folders made by prepare.py."""
    config: Annotated[Config, tyro.conf.arg(name="")]
    output: Path = Path("runs/table_updates")
    """Folder of the runs, one folder for each log, update and seed."""
    results: Path = Path("experiments/results/table_updates")
    """Where the table goes: this path with .md and .json at its end."""
    seeds: int = 5
    """How many seeds."""
    preset: PresetName | None = None
    """Values that the other flags start from, as in run.py."""


def main() -> None:
    """Parses the command line, trains, writes the table."""
    arguments = tyro.cli(Arguments, default=Arguments((), early_preset()))
    if arguments.seeds < 2 or not arguments.data:
        raise InputError("Name at least one log by --data, and at least 2 --seeds to compare.")
    table = {}
    for name, data in open_logs(arguments.data).items():
        runs: Runs = {tables: [] for tables in get_args(TableUpdates)}
        for seed in range(arguments.config.seed, arguments.config.seed + arguments.seeds):
            for tables, done in runs.items():
                say(f"[{name}] {tables} seed {seed}")
                optimizer = dataclasses.replace(arguments.config.optimizer, tables=tables)
                config = dataclasses.replace(arguments.config, optimizer=optimizer, seed=seed)
                done.append(train(config, data, arguments.output / name / f"{tables}_{seed}"))
        table[name] = summarize(runs) | {"runs": runs}
    content = {"logs": table, "config": to_json(arguments.config)}
    missing = write_results(arguments.results, content, lambda: _lines(arguments, table))
    require_parts(missing, f"{arguments.results}.json")
    print(Path(f"{arguments.results}.md").read_text(encoding="utf-8"))


def _lines(arguments: Arguments, table: dict[str, dict[str, Any]]) -> list[str]:
    """The Markdown file's."""
    return [
        "# Dense and row-wise Adam: the base model",
        "",
        *_table(table),
        "",
        f"Test split, {arguments.seeds} seeds: mean ± standard deviation; the difference is "
        "row-wise minus dense of the same seed, p that of a paired t-test.",
        "",
        *provenance(arguments.config),
        "",
    ]


def train(config: Config, data: Dataset, workdir: Path) -> dict[str, float]:
    """Test scores of a base model, its epochs, and its seconds of training."""
    start = time.monotonic()
    with open_workdir(config, data, workdir) as path:
        run = Run(config, data, path)
        fitted = train_base(run)
        predict = streamed_predict(run.model(), "[evaluate] base")
        probs = predict((fitted.params, fitted.batch_stats), data.test.ids)
    scores = score(data.test.labels, probs)
    return {
        **scores.facts,
        "epochs": len(fitted.history),
        "seconds": time.monotonic() - start,
    }


def summarize(runs: Runs) -> dict[str, Any]:
    """Mean and deviation of both updates, and of their difference."""
    summary: dict[str, Any] = {}
    for metric in ("auc", "logloss", "epochs"):
        dense, rowwise = ([run[metric] for run in runs[side]] for side in ("dense", "rowwise"))
        gain = paired_gain(rowwise, dense)
        summary[f"{metric} dense"], summary[f"{metric} rowwise"] = spread(dense), spread(rowwise)
        summary[f"{metric} difference"], summary[f"{metric} p"] = gain
    return summary


def _table(table: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| log | metric | dense | row-wise | difference | p |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, summary in table.items():
        for metric, digits in (("auc", 4), ("logloss", 4), ("epochs", 1)):
            cells = [
                f"{Spread(*summary[f'{metric} {side}']):{sign}.{digits}f}"
                for side, sign in (("dense", ""), ("rowwise", ""), ("difference", "+"))
            ]
            if metric == "auc":
                cells[:2] = (auc_spread(summary["runs"][side]) for side in ("dense", "rowwise"))
            cells.append(Gain(Spread(0.0, 0.0), summary[f"{metric} p"]).p_text)
            lines.append(f"| {markdown(name)} | {metric} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    run_cli(main)
