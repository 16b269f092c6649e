"""Runs iHAS on one log with several seeds and compares it with the base model, paired by seed."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from common import (
    Comparison,
    early_preset,
    gain_cells,
    gain_over,
    markdown_table,
    print_results,
    spread_cell,
    write_results,
)
from compare import run_alone, run_together
from sklearn.metrics import adjusted_rand_score

from ihas_jax.config import to_json
from ihas_jax.data.dataset import Dataset
from ihas_jax.data.store import open_store
from ihas_jax.data.synthetic import SyntheticConfig, SyntheticLog, synthetic
from ihas_jax.errors import InputError, run_cli
from ihas_jax.names import markdown, printable
from ihas_jax.progress import log
from ihas_jax.reporting.comparison import spread
from ihas_jax.reporting.report import provenance
from ihas_jax.serving.bundle import load_bundle

MODELS = {"base": "base", "search": "search (iHAS-1)", "ihas": "iHAS"}
_METRICS = ("auc", "logloss")
_TOGETHER = ["The seeds trained side by side: seconds of base and search are those of all.", ""]
Metrics = dict[int, dict[str, Any]]
"""The content of metrics.json, and what was found of a planted truth, by seed."""


@dataclass(frozen=True, kw_only=True)
class Arguments(Comparison):
    """Runs iHAS with several seeds and compares it with the base model, paired by seed.

    The same command resumes after an interruption. The synthetic log is drawn anew for each
    seed; a prepared log keeps its split.
    """

    data: Path | None = None
    """The folder that prepare.py made; without it, synthetic logs with planted truth are drawn."""
    output: Path = Path("runs/seeds")
    """The folder of the runs, with a folder for each seed."""
    results: Path = Path("experiments/results/synthetic")
    """Where the table goes: this path with .md and .json at its end."""
    together: bool = False
    """Base and search of all seeds are trained side by side under vmap. This needs --data, and
    memory for the tables of all seeds."""


def main() -> None:
    """Parses the command line, runs every seed, writes the table."""
    arguments = tyro.cli(Arguments, default=Arguments(config=early_preset()))
    if arguments.seeds < 2:
        raise InputError(f"--seeds must be at least 2 for a paired test, not {arguments.seeds}.")
    if arguments.config.method != "ihas":
        raise InputError(
            f"This script describes runs of ihas; to compare {arguments.config.method} over seeds "
            "use paper/table2_overall.py."
        )
    name = "synthetic" if arguments.data is None else arguments.data.name
    runs = run_seeds(arguments)
    content = {
        "log": printable(name),
        "summary": summarize(runs),
        "runs": list(runs.values()),
        "config": to_json(arguments.config),
        "device": jax.devices()[0].device_kind,
    }
    missing = write_results(arguments.results, content, lambda: _lines(arguments, name, runs))
    print_results(arguments.results, missing)


def _lines(arguments: Arguments, name: str, runs: Metrics) -> list[str]:
    return [
        f"# {markdown(name)}: {arguments.seeds} seeds",
        "",
        *model_table(runs),
        "",
        "AUC, logloss and their differences from the base model of the same seed are means over "
        "the seeds with standard deviations; p is that of a paired t-test of the difference.",
        "",
        *cluster_table(runs),
        "",
        *(_TOGETHER if arguments.together else []),
        *truth_table(runs),
        *provenance(arguments.config),
        "",
    ]


def run_seeds(arguments: Arguments) -> Metrics:
    """The metrics of every seed, with what it found of a planted truth.

    Raises:
      InputError: seeds whose logs differ can't run side by side.
    """
    folders = {seed: arguments.output / f"seed_{seed}" for seed in arguments.seed_range}
    if arguments.together:
        if arguments.data is None:
            raise InputError(
                "--together needs --data: synthetic logs are drawn anew for each seed, and seeds "
                "train side by side on the same log only."
            )
        shared = open_store(arguments.data)
        return dict(zip(folders, run_together(arguments.config, shared, folders), strict=True))
    runs = {}
    for seed, folder in folders.items():
        log(f"[Seed {seed}]")
        config = dataclasses.replace(arguments.config, seed=seed)
        data: Dataset = (
            synthetic(SyntheticConfig(seed=seed))
            if arguments.data is None
            else open_store(arguments.data)
        )
        runs[seed] = run_alone(config, data, folder)
        if isinstance(data, SyntheticLog):
            runs[seed] |= recovered(data, folder)
    return runs


def recovered(data: SyntheticLog, workdir: Path) -> dict[str, Any]:
    """What a run found of the planted truth, on test rows.

    `agreement` is the adjusted Rand index of clusters and groups; `open_share` the mean share of
    open coordinates of fields that matter to a row's group, of fields that matter to another
    group only, and of noise fields.
    """
    bundle = load_bundle(workdir)
    masks = bundle.masks(data.test.ids)
    shares = masks.reshape(len(masks), len(data.roles), -1).mean(axis=2)
    groups, roles = data.groups["test"], np.array(data.roles)
    matters = data.relevant[groups]
    return {
        "agreement": float(adjusted_rand_score(groups, bundle.assign(data.test.ids))),
        "open_share": {
            "matters": float(shares[matters].mean()),
            "matters to others": float(shares[~matters & (roles == "own")].mean()),
            "noise": float(shares[:, roles == "noise"].mean()),
        },
    }


def _scores(runs: Metrics) -> dict[str, list[dict[str, Any]]]:
    """The scores of each seed, by model."""
    return {model: [run[model] for run in runs.values()] for model in MODELS}


def summarize(runs: Metrics) -> dict[str, dict[str, float]]:
    """Mean and deviation of each model's test metrics, and its paired difference from base."""
    summary, scores = {}, _scores(runs)
    for model, own in scores.items():
        row = {"parameters": float(np.mean([run["parameters"] for run in own]))}
        if only := [run["only_label"] for run in own if "only_label" in run]:
            row["only_label"] = only[0]
        for metric in _METRICS:
            row[metric], row[f"{metric}_deviation"] = spread([run[metric] for run in own])
            if model != "base":
                gain = gain_over(scores["base"], own, metric)
                row[f"{metric}_difference"], row[f"{metric}_difference_deviation"] = gain.spread
                row[f"{metric}_p"] = gain.p
        summary[model] = row
    return summary


def model_table(runs: Metrics) -> list[str]:
    """A row for each model: AUC, logloss, parameters, differences from base."""
    scores, rows = _scores(runs), []
    for model, own in scores.items():
        cells = [spread_cell(own, metric) for metric in _METRICS]
        parameters = f"{np.mean([run['parameters'] for run in own]):,.0f}"
        gains = [cell for metric in _METRICS for cell in gain_cells(scores["base"], own, metric)]
        rows.append([MODELS[model], *cells, parameters, *gains])
    headers = ("model", "AUC", "logloss", "parameters", "AUC vs base", "p", "logloss vs base", "p")
    return markdown_table(headers, rows)


def cluster_table(runs: Metrics) -> list[str]:
    """A row for each seed: what its router has, how long it took, what its clusters keep."""
    rows = []
    for seed, run in runs.items():
        clusters = "; ".join(
            f"{c['share']:.0%}, {c['kept']:.0%}" + (" (all-rows model)" if c["fallback"] else "")
            for c in run["clusters"]
        )
        seconds = sum(run["seconds"].values())
        router = run["ihas"]["router_parameters"]
        rows.append([str(seed), f"{router:,}", f"{seconds:.0f}", clusters])
    headers = ("seed", "router parameters", "seconds", "clusters: share of rows, kept coordinates")
    return markdown_table(headers, rows, texts=(3,))


def truth_table(runs: Metrics) -> list[str]:
    """A row for each seed on what it found of the planted truth; nothing where none was planted."""
    found = {seed: run for seed, run in runs.items() if "agreement" in run}
    kinds = list(dict.fromkeys(kind for run in found.values() for kind in run["open_share"]))
    rows = [
        [str(seed), f"{run['agreement']:.3f}", *(f"{run['open_share'][k]:.0%}" for k in kinds)]
        for seed, run in found.items()
    ]
    headers = ("seed", "adjusted Rand index", *(f"open: {kind}" for kind in kinds))
    return [*markdown_table(headers, rows, texts=()), ""] if rows else []


if __name__ == "__main__":
    run_cli(main)
