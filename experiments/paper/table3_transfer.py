"""Table 3: other click models by the gates and clusters of a searched DNN, over several seeds.

For each log and seed a DNN is searched and its masked embeddings are clustered, once. Then every
model is trained as it is ("original"), under AdaFS-soft with a controller of its own, and once
per cluster with the coordinates that the cluster keeps ("iHAS"). Finished parts are kept, so the
same command goes on where it stopped.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import tyro
from matplotlib.figure import Figure

from ihas_jax.cli import earlier_logs, early_preset, open_logs
from ihas_jax.config import Config, ModelName, SearchConfig, replaced, to_json
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, run_cli
from ihas_jax.names import link, markdown
from ihas_jax.presets import PresetName, search_of
from ihas_jax.progress import say
from ihas_jax.reporting.comparison import auc_spread, paired_gain, spread
from ihas_jax.reporting.drawing import figure_names
from ihas_jax.reporting.report import provenance
from ihas_jax.stages.borrow import borrow
from ihas_jax.stages.parts import require_parts, write_results
from ihas_jax.stages.pipeline import fit, transfer
from ihas_jax.training.metrics import auc_text

Scores = dict[str, list[dict[str, float]]]
"""Test scores of each seed, by method."""
METHODS = {"original": "original", "adafs_soft": "AdaFS-soft", "ihas": "iHAS"}
PAPER = {
    "fm": {"auc": (0.7766, 0.7799, 0.7826), "logloss": (0.3815, 0.3797, 0.3793)},
    "wide_deep": {"auc": (0.7772, 0.7790, 0.7797), "logloss": (0.3815, 0.3802, 0.3800)},
    "deepfm": {"auc": (0.7806, 0.7817, 0.7840), "logloss": (0.3795, 0.3786, 0.3784)},
}
"""The paper's numbers on the full Avazu log, in the order of METHODS."""
_METRICS = {"auc": "AUC", "logloss": "logloss"}


@dataclass(frozen=True)
class Arguments:
    """Reproduces Table 3 on prepared logs. Run the same command again to go on."""

    data: tuple[Path, ...]
    """Folders made by prepare.py."""
    config: Annotated[Config, tyro.conf.arg(name="")]
    models: tuple[ModelName | Literal["all"], ...] = ("fm", "wide_deep", "deepfm")
    """The click models, or all; then ncf only where the first of its two fields is called user."""
    seeds: int = 3
    """How many seeds, from --seed on."""
    output: Path = Path("runs/table3")
    """Folder of the runs, one folder for each log and seed."""
    results: Path = Path("experiments/results/table3")
    """Where the table goes: this path with .md, .json and .png at its end."""
    preset: PresetName | None = None
    """Values that the other flags start from, as in run.py."""


def main() -> None:
    """Parses the command line, runs what is missing, writes table and figure after each model."""
    arguments = tyro.cli(Arguments, default=Arguments((), early_preset()))
    if arguments.config.method != "ihas":
        raise InputError("This table is about iHAS and AdaFS-soft; leave --method out.")
    if arguments.seeds < 2 or not arguments.data:
        raise InputError("Name at least one log by --data, and at least 2 --seeds to compare.")
    besides = {"adafs_soft": to_json(adafs_search(arguments))}
    table = earlier_logs(arguments.results, arguments.config, arguments.seeds, besides)
    for name, data in open_logs(arguments.data).items():
        table.setdefault(name, {})
        for model in models_of(arguments, data):
            scores = table[name].setdefault(model, {})
            add_scores(arguments, data, arguments.output / name, model, scores)
            missing = write(arguments, table, besides)
    require_parts(missing, f"{arguments.results}.json")
    print(Path(f"{arguments.results}.md").read_text(encoding="utf-8"))


def models_of(arguments: Arguments, data: Dataset) -> list[ModelName]:
    """The models to train on a log."""
    if "all" not in arguments.models:
        return [model for model in arguments.models if model != "all"]
    first = data.schema.names[arguments.config.model.ncf_pair[0]]
    return [model for model in get_args(ModelName) if model != "ncf" or first == "user"]


def add_scores(
    arguments: Arguments, data: Dataset, folder: Path, model: ModelName, scores: Scores
) -> None:
    """Adds test scores and parameters of a model with the methods that `scores` lack."""
    first = arguments.config.seed
    seeds = range(first, first + arguments.seeds)
    if "ihas" not in scores:
        runs = [by_ihas(arguments.config, data, folder, model, seed) for seed in seeds]
        scores["original"] = [metrics["base"] for metrics in runs]
        scores["ihas"] = [metrics["ihas"] for metrics in runs]
    if "adafs_soft" not in scores:
        scores["adafs_soft"] = [by_adafs(arguments, data, folder, model, seed) for seed in seeds]


def by_ihas(
    config: Config, data: Dataset, folder: Path, model: ModelName, seed: int
) -> dict[str, dict[str, float]]:
    """Metrics of a model as it is and with the gates of the searched one."""
    searching = dataclasses.replace(config, seed=seed)
    workdir = folder / f"seed_{seed}"
    say(f"[{folder.name}] {model}, seed {seed}")
    for stage in ("search", "cluster") if model != searching.model.name else ():
        fit(searching, data, workdir, stage)
    own = replaced(searching, "model.name", model)
    return transfer(own, data, workdir).metrics


def by_adafs(
    arguments: Arguments, data: Dataset, folder: Path, model: ModelName, seed: int
) -> dict[str, float]:
    """Scores of a model with a controller of AdaFS-soft of its own."""
    say(f"[{folder.name}] {model} with AdaFS-soft, seed {seed}")
    own = dataclasses.replace(
        replaced(arguments.config, "model.name", model),
        method="adafs_soft",
        search=adafs_search(arguments),
        seed=seed,
    )
    source, workdir = folder / f"seed_{seed}", folder / f"adafs_soft_{model}_{seed}"
    transferred = source / "transfer" / model
    for finished in (source, transferred):
        if (finished / "metrics.json").exists():
            borrow(own, data, workdir, finished)
    scores: dict[str, float] = fit(own, data, workdir).metrics["adafs_soft"]
    return scores


def adafs_search(arguments: Arguments) -> SearchConfig:
    """Pretraining and gate steps of AdaFS-soft."""
    return search_of("adafs_soft", arguments.preset or "paper")


def write(
    arguments: Arguments, table: dict[str, dict[str, Scores]], besides: dict[str, Any]
) -> tuple[str, ...]:
    """Writes the table as JSON and Markdown, and its figure; returns what could not be made."""
    content = {"logs": table, "paper": PAPER, "seeds": arguments.seeds}
    content |= {"config": to_json(arguments.config), **besides}
    names = figure_names(list(table), "log")

    def draw_table() -> Figure:
        return draw(dict(zip(names.texts, table.values(), strict=True)))

    return write_results(
        arguments.results, content, lambda: _lines(arguments, table), draw_table, names
    )


def _lines(arguments: Arguments, table: dict[str, dict[str, Scores]]) -> list[str]:
    """The Markdown file's."""
    logs = "".join(f"\n## {markdown(name)}\n\n{_table(models)}\n" for name, models in table.items())
    searched = arguments.config.model.name
    return [
        f"# Table 3: other click models with the gates and clusters of a searched {searched}",
        logs,
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


def _table(models: dict[str, Scores]) -> str:
    lines = [
        "| model | metric | original | AdaFS-soft | iHAS | gain | p | size | paper (full Avazu) |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for model, scores in models.items():
        compact, full = (
            sum(run["parameters"] for run in scores[method]) for method in ("ihas", "original")
        )
        for row, (metric, title) in enumerate(_METRICS.items()):
            values = {method: [run[metric] for run in runs] for method, runs in scores.items()}
            if metric == "auc":
                cells = [auc_spread(scores[m]) if m in scores else "" for m in METHODS]
            else:
                cells = [f"{spread(values[m]):.4f}" if m in values else "" for m in METHODS]
            gain = paired_gain(values["ihas"], values["original"])
            paper = PAPER.get(model, {}).get(metric, ())
            size = "" if row else f"{compact / full:.2f}"
            cells += [f"{gain.spread:+.4f}", gain.p_text, size, " ".join(f"{x:.4f}" for x in paper)]
            lines.append(f"| {'' if row else model} | {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(table: dict[str, dict[str, Any]]) -> Figure:
    """The gain of iHAS in test AUC: every seed a dot, their mean a bar, a panel for each log.

    Args:
      table: scores by what the figure calls the log, model and method.
    """
    longest = max(len(models) for models in table.values())
    size = (3.2 * len(table) + 1.2, 0.32 * longest + 1.4)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(table), squeeze=False)[0]
    for panel, (name, models) in zip(panels, table.items(), strict=True):
        for place, scores in enumerate(models.values()):
            pairs = zip(scores["ihas"], scores["original"], strict=True)
            gains = [ihas["auc"] - original["auc"] for ihas, original in pairs]
            if np.isnan(gains).any():
                undefined = next(run for run in scores["original"] if np.isnan(run["auc"]))
                panel.barh(place, 0)
                panel.text(0, place, f" AUC {auc_text(undefined)}", va="center", fontsize=8)
                continue
            panel.barh(place, np.mean(gains), color="#3b6ea5", alpha=0.5)
            panel.plot(gains, [place] * len(gains), ".", color="#1d3c5f")
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_yticks(range(len(models)), models)
        panel.invert_yaxis()
        panel.set_title(name)
        panel.set_xlabel("gain of iHAS in test AUC")
        panel.tick_params(axis="x", labelrotation=30)
    return figure


if __name__ == "__main__":
    run_cli(main)
