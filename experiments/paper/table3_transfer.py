"""Table 3: other click models by the gates and clusters of a searched DNN, over several seeds.

For each log and seed a DNN is searched and its masked embeddings are clustered, once. Then every
model is trained without selection ("original"), under AdaFS-soft with its own controller, and once
per cluster with the coordinates that the cluster keeps ("iHAS"). With teachers, all of them learn
from the same ones. The same command resumes after an interruption.
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

import common
from command_line import parse
from compare import Scores, run_alone, run_by_search, score_full_size
from comparison import LogComparison, Record
from reference import full_size, reference_of
from table_figures import draw_gains

from ihas_jax.config import Config, SearchConfig, to_json
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, run_cli
from ihas_jax.flags import replaced
from ihas_jax.models import MODELS
from ihas_jax.names import link, markdown
from ihas_jax.pipeline.idle import for_method
from ihas_jax.presets import search_of
from ihas_jax.progress import say
from ihas_jax.reporting.drawing import figure_names

_METHODS = ("original", "adafs_soft", "ihas")
PAPER = {
    "fm": {"auc": (0.7766, 0.7799, 0.7826), "logloss": (0.3815, 0.3797, 0.3793)},
    "wide_deep": {"auc": (0.7772, 0.7790, 0.7797), "logloss": (0.3815, 0.3802, 0.3800)},
    "deepfm": {"auc": (0.7806, 0.7817, 0.7840), "logloss": (0.3795, 0.3786, 0.3784)},
}
"""The paper's numbers on the full Avazu log, in the order of _METHODS."""
_METRICS = {"auc": "AUC", "logloss": "logloss"}


@dataclass(frozen=True, kw_only=True)
class Arguments(LogComparison):
    """The flags."""

    models: tuple[str, ...] = ("fm", "wide_deep", "deepfm")
    """The click models, or all; ncf is among all only if the first of its two fields is user."""
    output: Path = Path("runs/table3")
    """The folder of the runs, in which each run has a folder; searches that Table 2 left in it are
    not run again."""


def main() -> None:
    """Parses the command line, runs what is missing, writes table and figure after each model."""
    arguments = parse(Arguments, __doc__)
    arguments.require_pairs()
    if arguments.config.method != "ihas":
        raise InputError("This table is about iHAS and AdaFS-soft; leave --method out.")
    for model in {*arguments.models} - {"all"}:
        MODELS.find(model)
    adafs = search_of("adafs_soft", arguments.preset or "paper")
    full_size(arguments.config)  # raises an error if the searched model is a teacher
    identity = {"adafs_soft": to_json(adafs)} | reference_of(arguments.config).identity
    record = Record(arguments, identity)
    missing: tuple[str, ...] = ()
    for name, data in arguments.open_logs().items():
        models = record.scores_of(name, data)
        for model in models_of(arguments, data):
            if model not in models:
                models[model] = score_model(arguments, data, name, model, adafs)
            missing = write(record)
    common.print_results(arguments.destination, missing)


def models_of(arguments: Arguments, data: Dataset) -> list[str]:
    """The models to train on a log."""
    if "all" not in arguments.models:
        return [model for model in arguments.models if model != "all"]
    first = data.schema.names[arguments.config.model.ncf_pair[0]]
    return [model for model in MODELS if model != "ncf" or first == "user"]


def score_model(
    arguments: Arguments, data: Dataset, name: str, model: str, adafs: SearchConfig
) -> dict[str, list[Scores]]:
    """Test scores and parameters of a model by method and seed."""
    scores: dict[str, list[Scores]] = {method: [] for method in _METHODS}
    for seed in arguments.seed_range:
        say(f"[{name}] {model}, seed {seed}")
        config = dataclasses.replace(arguments.config, seed=seed)
        searched = arguments.output / name / f"ihas_{seed}"  # the name in Table 2
        workdir = searched.with_name(f"{model}_{seed}")
        metrics = run_by_search(config, model, data, workdir, searched)
        same = replaced(config, "model.name", model)
        own = for_method(dataclasses.replace(same, method="adafs_soft", search=adafs))
        say(f"[{name}] {model} with AdaFS-soft, seed {seed}")
        folder = searched.with_name(f"adafs_soft_{model}_{seed}")
        adafs_metrics = run_alone(own, data, folder, (searched, workdir))
        folder = searched.with_name(f"none_{model}_{seed}")
        original = score_full_size(same, metrics, data, folder, (searched, workdir))
        found = (original, adafs_metrics["adafs_soft"], metrics["ihas"])
        for method, row in zip(_METHODS, found, strict=True):
            scores[method].append(row)
    return scores


def write(record: Record) -> tuple[str, ...]:
    """Writes the table as JSON and Markdown, and its figure; returns what could not be made."""
    names = figure_names(list(record.logs), "log")
    return common.write_results(
        record.arguments.destination,
        record.content | {"paper": PAPER},
        lambda: lines_of(record),
        {".png": lambda: draw_gains(dict(zip(names.texts, record.logs.values(), strict=True)))},
        names,
    )


_ABOUT = (
    "Test split, {} seeds: mean ± standard deviation. Gain: iHAS minus original of the same seed, "
    "with the p-value of a paired t-test, which is not corrected for the number of rows. Size: "
    "parameters of the compact models together over those of the original (without the router, "
    "which is the searched model's tables and gates). AdaFS-soft: each model with its own "
    "controller, and with the pretraining and the stopping rows of the method's preset. Paper: the "
    "numbers on the full Avazu log (original, AdaFS-soft, iHAS), for models searched by a DNN."
)


def lines_of(record: Record) -> list[str]:
    """The lines of the Markdown file."""
    body: list[str] = []
    for name, models in record.logs.items():
        rows = [row for model, scores in models.items() for row in _rows(model, scores)]
        table = common.markdown_table(_HEADERS, rows, texts=(0, 1))
        body += [f"## {markdown(name)}", "", *table, ""]
    config: Config = record.arguments.config
    about = _ABOUT.format(record.arguments.seeds)
    body.append(f"{about} {reference_of(config).note}".strip())
    title = (
        f"Table 3: other click models with the gates and clusters of a searched {config.model.name}"
    )
    figure = f"![Gain of iHAS in test AUC]({link(record.arguments.destination.name)}.png)"
    return common.report(title, body, config, figure)


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
            *(common.spread_cell(scores[m], metric) if m in scores else "" for m in _METHODS),
            *common.gain_cells(original, ihas, metric),
            "" if row else f"{compact / full:.2f}",
            " ".join(f"{number:.4f}" for number in PAPER.get(model, {}).get(metric, ())),
        ]
        for row, (metric, title) in enumerate(_METRICS.items())
    ]


if __name__ == "__main__":
    run_cli(main)
