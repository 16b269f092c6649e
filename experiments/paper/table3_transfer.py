"""Table 3: other click models by the gates and clusters of a searched DNN, over several seeds.

For each log and seed a DNN is searched and its masked embeddings are clustered, once. Then every
model is trained as it is ("original"), under AdaFS-soft with a controller of its own, and once
per cluster with the coordinates that the cluster keeps ("iHAS"). Finished parts are kept, so the
same command resumes where it stopped.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys
    from pathlib import Path

    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # where common and compare are

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tyro
from common import (
    BLUE,
    NAVY,
    LogComparison,
    Record,
    early_preset,
    gain_cells,
    markdown_table,
    open_logs,
    panels,
    print_results,
    spread_cell,
    write_results,
)
from compare import Scores, Table, run_alone, run_transferred
from matplotlib.figure import Figure

from ihas_jax.config import ModelName, SearchConfig, replaced, to_json
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, run_cli
from ihas_jax.names import link, markdown
from ihas_jax.presets import search_of
from ihas_jax.progress import log
from ihas_jax.reporting.drawing import figure_names
from ihas_jax.reporting.report import provenance
from ihas_jax.training.metrics import auc_text

METHODS = ("original", "adafs_soft", "ihas")
PAPER = {
    "fm": {"auc": (0.7766, 0.7799, 0.7826), "logloss": (0.3815, 0.3797, 0.3793)},
    "wide_deep": {"auc": (0.7772, 0.7790, 0.7797), "logloss": (0.3815, 0.3802, 0.3800)},
    "deepfm": {"auc": (0.7806, 0.7817, 0.7840), "logloss": (0.3795, 0.3786, 0.3784)},
}
"""The paper's numbers on the full Avazu log, in the order of METHODS."""
_METRICS = {"auc": "AUC", "logloss": "logloss"}


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """Compares other click models, by the gates of a searched one, on prepared logs (Table 3).

    The same command resumes after an interruption.
    """

    models: tuple[ModelName | Literal["all"], ...] = ("fm", "wide_deep", "deepfm")
    """The click models, or all; all has ncf only where the first of its two fields is user."""
    output: Path = Path("runs/table3")
    """The folder of the runs, with a folder for each log and seed."""
    results: Path = Path("experiments/results/table3")


def main() -> None:
    """Parses the command line, runs what is missing, writes table and figure after each model."""
    arguments = tyro.cli(Arguments, default=Arguments(config=early_preset()))
    arguments.require_pairs()
    if arguments.config.method != "ihas":
        raise InputError("This table is about iHAS and AdaFS-soft; leave --method out.")
    record = Record(arguments, {"adafs_soft": to_json(adafs_search(arguments))})
    logs: dict[str, Table] = record.earlier()
    missing: tuple[str, ...] = ()
    for name, data in open_logs(arguments.data).items():
        models = logs.setdefault(name, {})
        for model in models_of(arguments, data):
            scores = models.setdefault(model, {})
            add_scores(arguments, data, arguments.output / name, model, scores)
            missing = write(record, logs)
    print_results(arguments.results, missing)


def models_of(arguments: Arguments, data: Dataset) -> list[ModelName]:
    """The models to train on a log."""
    if "all" not in arguments.models:
        return [model for model in arguments.models if model != "all"]
    first = data.schema.names[arguments.config.model.ncf_pair[0]]
    return [model for model in get_args(ModelName) if model != "ncf" or first == "user"]


def adafs_search(arguments: Arguments) -> SearchConfig:
    """Pretraining and gate steps of AdaFS-soft."""
    return search_of("adafs_soft", arguments.preset or "paper")


def add_scores(
    arguments: Arguments,
    data: Dataset,
    folder: Path,
    model: ModelName,
    scores: dict[str, list[Scores]],
) -> None:
    """Adds test scores and parameters of a model with the methods that `scores` lack."""
    configs = [dataclasses.replace(arguments.config, seed=seed) for seed in arguments.seed_range]
    if "ihas" not in scores:
        runs = []
        for config in configs:
            log(f"[{folder.name}] {model}, seed {config.seed}")
            runs.append(run_transferred(config, model, data, folder / f"seed_{config.seed}"))
        scores["original"] = [metrics["base"] for metrics in runs]
        scores["ihas"] = [metrics["ihas"] for metrics in runs]
    if "adafs_soft" in scores:
        return
    runs = []
    for config in configs:
        log(f"[{folder.name}] {model} with AdaFS-soft, seed {config.seed}")
        own = dataclasses.replace(
            replaced(config, "model.name", model),
            method="adafs_soft",
            search=adafs_search(arguments),
        )
        searched, workdir = (f"{name}_{config.seed}" for name in ("seed", f"adafs_soft_{model}"))
        sources = (folder / searched, folder / searched / "transfer" / model)
        runs.append(run_alone(own, data, folder / workdir, sources)["adafs_soft"])
    scores["adafs_soft"] = runs


def write(record: Record, logs: dict[str, Table]) -> tuple[str, ...]:
    """Writes the table as JSON and Markdown, and its figure; returns what could not be made."""
    names = figure_names(list(logs), "log")
    return write_results(
        record.arguments.results,
        record.content(logs) | {"paper": PAPER},
        lambda: _lines(record, logs),
        lambda: draw(dict(zip(names.texts, logs.values(), strict=True))),
        names,
    )


def _lines(record: Record, logs: dict[str, Table]) -> list[str]:
    arguments, lines = record.arguments, []
    for name, models in logs.items():
        rows = [row for model, scores in models.items() for row in _rows(model, scores)]
        lines += ["", f"## {markdown(name)}", "", *markdown_table(_HEADERS, rows, texts=(0, 1))]
    searched = arguments.config.model.name
    return [
        f"# Table 3: other click models with the gates and clusters of a searched {searched}",
        *lines,
        "",
        f"Test split, {arguments.seeds} seeds: mean ± standard deviation. Gain: iHAS minus "
        "original of the same seed, with the p-value of a paired t-test, which is not corrected "
        "for the number of rows. Size: parameters of the compact models together over those of "
        "the original (without the router, which is the searched model's tables and gates). "
        "AdaFS-soft: each model with a controller of its own, and with the pretraining and the "
        "stopping rows of that method's preset. Paper: its numbers on the full Avazu log "
        "(original, AdaFS-soft, iHAS), for models searched by a DNN.",
        "",
        f"![Gain of iHAS in test AUC]({link(arguments.results.name)}.png)",
        "",
        *provenance(arguments.config),
        "",
    ]


_HEADERS = (
    *("model", "metric", "original", "AdaFS-soft", "iHAS", "gain", "p", "size"),
    "paper (full Avazu)",
)


def _rows(model: str, scores: dict[str, list[Scores]]) -> list[list[str]]:
    """A row for each metric."""
    original, ihas = scores["original"], scores["ihas"]
    compact, full = (sum(run["parameters"] for run in runs) for runs in (ihas, original))
    return [
        [
            "" if row else model,
            title,
            *(spread_cell(scores[m], metric) if m in scores else "" for m in METHODS),
            *gain_cells(original, ihas, metric),
            "" if row else f"{compact / full:.2f}",
            " ".join(f"{number:.4f}" for number in PAPER.get(model, {}).get(metric, ())),
        ]
        for row, (metric, title) in enumerate(_METRICS.items())
    ]


def draw(table: dict[str, dict[str, Any]]) -> Figure:
    """The gain of iHAS in test AUC: every seed a dot, their mean a bar, a panel for each log.

    Args:
      table: scores by what the figure calls the log, model and method.
    """
    longest = max(len(models) for models in table.values())
    size = (3.2 * len(table) + 1.2, 0.32 * longest + 1.4)
    figure, axes = panels(len(table), len(table), size)
    for panel, (name, models) in zip(axes, table.items(), strict=True):
        for place, scores in enumerate(models.values()):
            pairs = zip(scores["ihas"], scores["original"], strict=True)
            gains = [ihas["auc"] - original["auc"] for ihas, original in pairs]
            if np.isnan(gains).any():
                undefined = next(run for run in scores["original"] if np.isnan(run["auc"]))
                panel.barh(place, 0)
                panel.text(0, place, f" AUC {auc_text(undefined)}", va="center", fontsize=8)
                continue
            panel.barh(place, np.mean(gains), color=BLUE, alpha=0.5)
            panel.plot(gains, [place] * len(gains), ".", color=NAVY)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_yticks(range(len(models)), models)
        panel.invert_yaxis()
        panel.set_title(name)
        panel.set_xlabel("gain of iHAS in test AUC")
        panel.tick_params(axis="x", labelrotation=30)
    return figure


if __name__ == "__main__":
    run_cli(main)
