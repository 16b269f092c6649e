"""Groups of a field's values with networks over one table, beside one model trained as long.

Both start from the same model of each size, which learns from the teachers. The same command
resumes after an interruption.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
from command_line import parse
from compare import run_alone
from comparison import LogComparison, Record

from ihas_jax.config import Config
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, run_cli
from ihas_jax.files import read_json
from ihas_jax.flags import replaced
from ihas_jax.presets import PresetName
from ihas_jax.progress import say
from ihas_jax.reporting.comparison import spread

_HEADERS = (
    *("log, groups of", "table", "one model, AUC", "groups, AUC", "p", "groups, logloss", "p"),
    *("memory", "networks", "base, AUC"),
)
_ABOUT = (
    "Means over the seeds with standard deviations. 'Table' is the share of the full-size "
    "embedding table that is kept; a row costs the same with groups and without. 'One model' is "
    "the better on validation rows of the model that the groups start from and of one that is "
    "trained as long as the groups are. The other columns of AUC and logloss are differences from"
    " this model of the same seed on test rows, and p is that of a paired t-test. 'Memory' is the"
    " bytes of the groups over those of one model, and 'networks' their number, which is 1 where "
    "the validation rows chose one model."
)
Scores = dict[str, dict[str, list[dict[str, Any]]]]
"""By share of the table: facts by seed of base, one model, and groups."""


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    preset: PresetName | None = "compact"
    """The values that the other flags start from."""
    fields: tuple[str, ...] = ()
    """The field whose values are grouped, for each log of --data in order."""
    budgets: tuple[float, ...] = (0.125, 0.25)
    """The shares of the embedding table to keep."""
    output: Path = Path("runs/groups")


def main() -> None:
    """Parses the command line, runs what is missing, writes the table after each log."""
    arguments = parse(Arguments, __doc__, hidden=("budget",))
    arguments.require_pairs()
    if len(arguments.fields) != len(arguments.data):
        raise InputError(
            f"--fields names {len(arguments.fields)} fields and --data {len(arguments.data)} logs. "
            "Name the field to group by for each log, in the same order."
        )
    record = Record(arguments, {"budgets": list(arguments.budgets)})
    missing: tuple[str, ...] = ()
    for (name, data), grouped_by in zip(
        arguments.open_logs().items(), arguments.fields, strict=True
    ):
        scores = record.scores_of(f"{name}, {grouped_by}", data)
        for i, seed in enumerate(arguments.seed_range):
            for budget in arguments.budgets:
                kinds = scores.setdefault(repr(budget), {"base": [], "one": [], "groups": []})
                if len(kinds["groups"]) > i:
                    continue
                say(f"[{name}, {100 * budget:g} %, seed {seed}]")
                facts = score(arguments, data, name, grouped_by, budget, seed)
                for kind, one in facts.items():
                    kinds[kind].append(one)
                record.save()
        missing = _write(record)
    common.print_results(arguments.destination, missing)


def score(
    arguments: Arguments, data: Dataset, name: str, grouped_by: str, budget: float, seed: int
) -> dict[str, dict[str, Any]]:
    """Facts of base, one model and groups of a run."""

    def folder(share: float) -> Path:
        return arguments.output / f"{name}_{seed}_{share:g}"

    config = config_of(arguments.config, grouped_by, budget, seed)
    sources = [folder(share) for share in arguments.budgets if share != budget]
    metrics = run_alone(config, data, folder(budget), sources)
    bundle = read_json(folder(budget) / "bundle" / "bundle.json")
    groups = metrics[config.method] | {"networks": len(bundle["models"])}
    return {"base": metrics["base"], "one": metrics["one"], "groups": groups}


def config_of(config: Config, grouped_by: str, budget: float, seed: int) -> Config:
    """The config of a run with groups."""
    config = replaced(replace(config, seed=seed, budget=budget), "retrain.start", "shared")
    return replaced(config, "retrain.group_by", grouped_by)


def row_of(name: str, budget: str, kinds: Mapping[str, common.Runs]) -> list[str]:
    """The row of a log with its field, and a share of the table."""
    one, groups = kinds["one"], kinds["groups"]
    memory = [g["bytes"] / o["bytes"] for g, o in zip(groups, one, strict=True)]
    cells = [name, f"{100 * float(budget):g} %", common.spread_cell(one, "auc")]
    for metric in ("auc", "logloss"):
        cells += common.gain_cells(one, groups, metric)
    return [
        *cells,
        f"{spread(memory):.2f}",
        f"{spread([run['networks'] for run in groups]):.1f}",
        f"{common.gain_over(one, kinds['base'], 'auc').spread:+.4f}",
    ]


def _write(record: Record) -> tuple[str, ...]:
    arguments = record.arguments

    def lines() -> list[str]:
        logs: dict[str, Scores] = record.logs
        rows = [
            row_of(name, budget, kinds)
            for name, budgets in logs.items()
            for budget, kinds in budgets.items()
        ]
        table = common.markdown_table(_HEADERS, rows, texts=(0,))
        return common.report("Groups over one table", [_ABOUT, "", *table], arguments.config)

    return common.write_results(arguments.destination, record.content, lines)


if __name__ == "__main__":
    run_cli(main)
