"""Runs iHAS on one log with several seeds and compares it with the base model, paired by seed.

With teachers it is compared with the full-size model that learns from them, too. The same command
resumes after an interruption. Each seed draws its own synthetic log; a prepared log keeps its
split.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import jax
import numpy as np
from command_line import ProcessFlags, parse
from compare import recovered, run_alone, run_together, score_full_size
from comparison import Comparison
from reference import BASE, CLICKS, Reference, reference_of

from ihas_jax.data.dataset import Dataset
from ihas_jax.data.open import open_store
from ihas_jax.data.synthetic import SyntheticConfig, SyntheticLog, synthetic
from ihas_jax.errors import InputError, run_cli
from ihas_jax.flags import config_to_json
from ihas_jax.joining import joined
from ihas_jax.names import markdown, printable
from ihas_jax.progress import say

Metrics = dict[int, dict[str, Any]]
"""By seed: the content of metrics.json, a taught full-size model, the result of `recovered`."""
_METRICS = ("auc", "logloss")
_ABOUT = (
    "AUC, logloss and their differences from the {} of the same seed are means over "
    "the seeds with standard deviations; p is that of a paired t-test of the difference."
)
_UNTAUGHT = f"The row '{CLICKS}' is the full-size model that learns from clicks instead."
_TOGETHER = ["", "The seeds trained side by side: seconds of base and search are those of all."]


@dataclass(frozen=True, kw_only=True)
class Arguments(Comparison, ProcessFlags):
    """The flags."""

    data: Path | None = None
    """The folder that prepare.py made; without it, synthetic logs with planted truth are drawn."""
    output: Path = Path("runs/seeds")
    together: bool = False
    """Whether base and search of all seeds are trained side by side under vmap.
    This needs --data, and memory for the tables of all seeds."""


def main() -> None:
    """Parses the command line, and works as one process or with others."""
    arguments = parse(Arguments, __doc__)
    with joined(arguments.job):
        run(arguments)


def run(arguments: Arguments) -> None:
    """Runs every seed, in each process of the job, and writes the table."""
    if arguments.seeds < 2:
        raise InputError(f"--seeds must be at least 2 for a paired test, not {arguments.seeds}.")
    if arguments.config.method != "ihas":
        raise InputError(
            f"This script describes runs of ihas; to compare {arguments.config.method} over seeds "
            "use paper/table2_overall.py."
        )
    if arguments.together and arguments.data is None:
        raise InputError(
            "--together needs --data, since seeds train side by side on one log only; each seed "
            "draws its own synthetic log."
        )
    runs, reference = run_seeds(arguments), reference_of(arguments.config)
    name = "synthetic" if arguments.data is None else arguments.data.name
    content = {
        "log": printable(name),
        "summary": summarize(runs, reference),
        "runs": list(runs.values()),
        "config": config_to_json(arguments.config),
        "device": jax.devices()[0].device_kind,
        **reference.identity,
    }
    missing = common.write_results(arguments.destination, content, lambda: _lines(arguments, runs))
    common.print_results(arguments.destination, missing)


def run_seeds(arguments: Arguments) -> Metrics:
    """The metrics of every seed, with the result of `recovered` for synthetic logs.

    Where there are teachers, they have the scores of the full-size model that learns from them.
    """
    folders = {seed: arguments.output / f"seed_{seed}" for seed in arguments.seed_range}
    store = arguments.data and open_store(arguments.data)
    if store and arguments.together:
        together = run_together(arguments.config, store, folders)
        runs = dict(zip(folders, together, strict=True))
        return {seed: run | _full_size(arguments, seed, run, store) for seed, run in runs.items()}
    runs = {}
    for seed, folder in folders.items():
        say(f"[Seed {seed}]")
        data: Dataset = store or synthetic(SyntheticConfig(seed=seed))
        run = run_alone(dataclasses.replace(arguments.config, seed=seed), data, folder)
        runs[seed] = run | _full_size(arguments, seed, run, data)
        if isinstance(data, SyntheticLog):
            runs[seed] |= recovered(data, folder)
    return runs


def _full_size(
    arguments: Arguments, seed: int, run: dict[str, Any], data: Dataset
) -> dict[str, Any]:
    """The scores of the model that the run of a seed is compared with, by its name."""
    config = dataclasses.replace(arguments.config, seed=seed)
    folder = arguments.output / f"none_{seed}"
    scores = score_full_size(config, run, data, folder, [arguments.output / f"seed_{seed}"])
    return {reference_of(config).key: scores}


def titles_of(reference: Reference) -> dict[str, str]:
    """The titles of the models that are compared: first the one with which, then iHAS's."""
    untaught = {} if reference.key == BASE else {BASE: CLICKS}
    searched = {"search": "search (iHAS-1)", "ihas": "iHAS"}
    return {reference.key: reference.title, **untaught, **searched}


def _scores(runs: Metrics, reference: Reference) -> dict[str, list[dict[str, Any]]]:
    return {model: [run[model] for run in runs.values()] for model in titles_of(reference)}


def summarize(runs: Metrics, reference: Reference) -> dict[str, dict[str, float]]:
    """Mean and deviation of each model's test metrics, and its difference from the reference."""
    scores = _scores(runs, reference)
    summary = common.summarize(scores, _METRICS)
    for model, row in summary.items():
        row["parameters"] = float(np.mean([run["parameters"] for run in scores[model]]))
        labels = [run["only_label"] for run in scores[model] if "only_label" in run]
        row |= {"only_label": labels[0]} if labels else {}
    return summary


def _lines(arguments: Arguments, runs: Metrics) -> list[str]:
    name = "synthetic" if arguments.data is None else arguments.data.name
    reference = reference_of(arguments.config)
    taught = reference.key != BASE
    about = [_ABOUT.format("taught base model" if taught else "base model"), reference.note]
    about = [part for part in (*about, _UNTAUGHT if taught else "") if part]
    body = [*model_table(runs, reference), "", " ".join(about), "", *cluster_table(runs)]
    body += [*(_TOGETHER if arguments.together else []), *truth_table(runs)]
    return common.report(f"{markdown(name)}: {arguments.seeds} seeds", body, arguments.config)


def model_table(runs: Metrics, reference: Reference) -> list[str]:
    """A row for each model: AUC, logloss, parameters, differences from the reference."""
    scores, rows = _scores(runs, reference), []
    for model, own in scores.items():
        cells = [common.spread_cell(own, metric) for metric in _METRICS]
        cells.append(f"{np.mean([run['parameters'] for run in own]):,.0f}")
        for metric in _METRICS:
            cells += common.gain_cells(scores[reference.key], own, metric)
        rows.append([titles_of(reference)[model], *cells])
    differences = (f"AUC vs {reference.title}", "p", f"logloss vs {reference.title}", "p")
    headers = ("model", "AUC", "logloss", "parameters", *differences)
    return common.markdown_table(headers, rows)


def cluster_table(runs: Metrics) -> list[str]:
    """A row for each seed: router parameters, seconds, and what its clusters keep."""
    rows = []
    for seed, run in runs.items():
        clusters = "; ".join(
            f"{c['share']:.0%}, {c['kept']:.0%}" + (" (all-rows model)" if c["fallback"] else "")
            for c in run["clusters"]
        )
        router = run["ihas"]["router_parameters"]
        seconds = sum(value for name, value in run["seconds"].items() if name != "compiling")
        rows.append([str(seed), f"{router:,}", f"{seconds:.0f}", clusters])
    headers = ("seed", "router parameters", "seconds", "clusters: share of rows, kept coordinates")
    return common.markdown_table(headers, rows, texts=(3,))


def truth_table(runs: Metrics) -> list[str]:
    """A row for each seed on the planted truth that it found; nothing for other logs."""
    found = {seed: run for seed, run in runs.items() if "agreement" in run}
    kinds = list(dict.fromkeys(kind for run in found.values() for kind in run["open_share"]))
    rows = [
        [str(seed), f"{run['agreement']:.3f}", *(f"{run['open_share'][k]:.0%}" for k in kinds)]
        for seed, run in found.items()
    ]
    headers = ("seed", "adjusted Rand index", *(f"open: {kind}" for kind in kinds))
    return ["", *common.markdown_table(headers, rows, texts=())] if rows else []


if __name__ == "__main__":
    run_cli(main)
