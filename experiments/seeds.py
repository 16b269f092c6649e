"""Runs iHAS on one log with several seeds and compares it with the base model, paired by seed."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from sklearn.metrics import adjusted_rand_score

from ihas_jax.cli import early_preset
from ihas_jax.config import Config, to_json
from ihas_jax.data.dataset import Dataset
from ihas_jax.data.open import open_store
from ihas_jax.data.synthetic import SyntheticConfig, SyntheticLog, synthetic
from ihas_jax.errors import InputError, run_cli
from ihas_jax.names import markdown, printable
from ihas_jax.presets import PresetName
from ihas_jax.progress import say
from ihas_jax.reporting.comparison import Gain, Spread, paired_gain, spread
from ihas_jax.reporting.report import provenance
from ihas_jax.serving.bundle import load_bundle
from ihas_jax.stages.parts import require_parts, write_results
from ihas_jax.stages.pipeline import fit
from ihas_jax.stages.together import fit_together
from ihas_jax.training.metrics import auc_text


@dataclass(frozen=True)
class Arguments:
    """Runs iHAS with consecutive seeds, from --seed on, and compares it with the base model.

    Run the same command again to go on after an interruption. The synthetic log is drawn anew
    for each seed; a prepared log keeps its split.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    results: Path = Path("experiments/results/synthetic")
    """Where the table goes: this path with .md and .json at its end."""
    data: Path | None = None
    """Folder made by prepare.py; without it synthetic logs with planted truth are drawn."""
    output: Path = Path("runs/seeds")
    """Folder of the runs, one folder per seed."""
    seeds: int = 3
    """How many seeds."""
    together: bool = False
    """Train the seeds of base and search side by side under vmap; needs --data, and tables of all
    seeds in memory."""
    preset: PresetName | None = None
    """Values that the other flags start from, as in run.py."""


MODELS = {"base": "base", "search": "search (iHAS-1)", "ihas": "iHAS"}
_TOGETHER = ["The seeds trained side by side: seconds of base and search are those of all.", ""]


def main() -> None:
    """Parses the command line, runs every seed, writes the table."""
    arguments = tyro.cli(Arguments, default=Arguments(early_preset()))
    if arguments.seeds < 2:
        raise InputError(f"--seeds must be at least 2 for a paired test, not {arguments.seeds}.")
    if arguments.config.method != "ihas":
        raise InputError(
            f"This script describes runs of ihas; to compare {arguments.config.method} over seeds "
            "use paper/table2_overall.py."
        )
    runs = run_seeds(arguments)
    name = "synthetic" if arguments.data is None else arguments.data.name
    summary = summarize(runs)
    content = {
        "log": printable(name),
        "summary": summary,
        "runs": runs,
        "config": to_json(arguments.config),
        "device": jax.devices()[0].device_kind,
    }
    missing = write_results(
        arguments.results, content, lambda: _lines(arguments, name, summary, runs)
    )
    require_parts(missing, f"{arguments.results}.json")
    print(Path(f"{arguments.results}.md").read_text(encoding="utf-8"))


def _lines(
    arguments: Arguments,
    name: str,
    summary: dict[str, dict[str, float]],
    runs: list[dict[str, Any]],
) -> list[str]:
    """The Markdown file's."""
    return [
        f"# {markdown(name)}: {arguments.seeds} seeds",
        "",
        *_table(summary),
        "",
        "AUC, logloss and their differences from the base model of the same seed are means over "
        "the seeds with standard deviations; p is that of a paired t-test of the difference.",
        "",
        *_clusters(runs),
        "",
        *(_TOGETHER if arguments.together else []),
        *_truth(runs),
        *provenance(arguments.config),
        "",
    ]


def run_seeds(arguments: Arguments) -> list[dict[str, Any]]:
    """The metrics of every seed, with what it found of a planted truth.

    Raises:
      InputError: seeds with logs of their own can't run side by side.
    """
    first = arguments.config.seed
    folders = {
        seed: arguments.output / f"seed_{seed}" for seed in range(first, first + arguments.seeds)
    }
    if arguments.together:
        if arguments.data is None:
            raise InputError(
                "--together needs --data: synthetic logs are drawn anew for each seed, and seeds "
                "train side by side on the same log only."
            )
        results = fit_together(arguments.config, open_store(arguments.data), folders)
        return [result.metrics for result in results]
    runs = []
    for seed, folder in folders.items():
        say(f"[Seed {seed}]")
        config = dataclasses.replace(arguments.config, seed=seed)
        data: Dataset = (
            synthetic(SyntheticConfig(seed=seed))
            if arguments.data is None
            else open_store(arguments.data)
        )
        result = fit(config, data, folder)
        truth = recovered(data, result.workdir) if isinstance(data, SyntheticLog) else {}
        runs.append(result.metrics | truth)
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


def summarize(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and deviation of each model's test metrics, and its paired difference from base."""
    summary = {}
    for model in MODELS:
        row = {"parameters": float(np.mean([run[model]["parameters"] for run in runs]))}
        if only := [run[model]["only_label"] for run in runs if "only_label" in run[model]]:
            row["only_label"] = only[0]
        for metric in ("auc", "logloss"):
            values = [run[model][metric] for run in runs]
            row[metric], row[f"{metric}_deviation"] = spread(values)
            if model != "base":
                gain = paired_gain(values, [run["base"][metric] for run in runs])
                row[f"{metric}_difference"], row[f"{metric}_difference_deviation"] = gain.spread
                row[f"{metric}_p"] = gain.p
        summary[model] = row
    return summary


def _table(summary: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        "| model | AUC | logloss | parameters | AUC vs base | p | logloss vs base | p |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for model, name in MODELS.items():
        row = summary[model]
        cells = [
            f"{Spread(row[metric], row[f'{metric}_deviation']):.4f}"
            for metric in ("auc", "logloss")
        ]
        if math.isnan(row["auc"]):
            cells[0] = auc_text(row)
        cells.append(f"{row['parameters']:,.0f}")
        for metric in ("auc", "logloss"):
            if model == "base":
                cells += ["", ""]
            else:
                difference, deviation = (
                    row[f"{metric}_{name}"] for name in ("difference", "difference_deviation")
                )
                gain = Gain(Spread(difference, deviation), row[f"{metric}_p"])
                cells += [f"{gain.spread:+.4f}", gain.p_text]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _clusters(runs: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| seed | router parameters | seconds | clusters: share of rows, kept coordinates |",
        "|---:|---:|---:|---|",
    ]
    for seed, run in enumerate(runs):
        clusters = "; ".join(
            f"{c['share']:.0%}, {c['kept']:.0%}" + (" (all-rows model)" if c["fallback"] else "")
            for c in run["clusters"]
        )
        seconds = sum(run["seconds"].values())
        lines.append(
            f"| {seed} | {run['ihas']['router_parameters']:,} | {seconds:.0f} | {clusters} |"
        )
    return lines


def _truth(runs: list[dict[str, Any]]) -> list[str]:
    if "agreement" not in runs[0]:
        return []
    kinds = list(runs[0]["open_share"])
    lines = [
        f"| seed | adjusted Rand index | {' | '.join(f'open: {kind}' for kind in kinds)} |",
        f"|---:|---:|{'---:|' * len(kinds)}",
    ]
    for seed, run in enumerate(runs):
        shares = " | ".join(f"{run['open_share'][kind]:.0%}" for kind in kinds)
        lines.append(f"| {seed} | {run['agreement']:.3f} | {shares} |")
    return [*lines, ""]


if __name__ == "__main__":
    run_cli(main)
