"""What Tables 2 and 4 share: variants of a run on several logs and seeds, scored side by side."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from ihas_jax.config import Config, to_json
from ihas_jax.data.store import Dataset
from ihas_jax.progress import log
from ihas_jax.reporting.comparison import Gain, paired_gain, spread
from ihas_jax.reporting.report import provenance
from ihas_jax.serving.bundle import load_bundle
from ihas_jax.stages.borrow import borrow
from ihas_jax.stages.pipeline import fit
from ihas_jax.stages.run import write_json

Scores = dict[str, float]
Table = dict[str, dict[str, list[Scores]]]
"""Scores of each seed, by log and variant."""
_TURNS = 5


@dataclass(frozen=True)
class Variant:
    """A row of a table.

    Attributes:
      name: its name in files.
      run: the name of its runs; those of another variant whose runs have its scores too.
      title: its name in tables.
      config: every choice but the seed.
      key: the model in metrics.json whose scores it has.
      paper: AUC and logloss in the paper, by the log they were taken on.
    """

    name: str
    run: str
    title: str
    config: Config
    key: str
    paper: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Shared:
    """What the variants of a table share.

    Attributes:
      config: every choice that no variant changes.
      seeds: how many.
      trials: values that each method tried, or None where there are no such trials.
    """

    config: Config
    seeds: int
    trials: int | None = None

    def content(self) -> dict[str, Any]:
        """The same, for a JSON file."""
        return {"seeds": self.seeds, "trials": self.trials, "config": to_json(self.config)}


def score_variant(
    variant: Variant, data: Dataset, folder: Path, seed: int, sources: Sequence[str]
) -> Scores:
    """Test scores of a variant with one seed, its size, its training and inference time.

    Args:
      variant: the variant.
      data: the log.
      folder: where the runs of the log are, one folder for each variant and seed.
      seed: the seed.
      sources: names of variants that are finished, whose stages it may begin with.
    """
    log(f"[{folder.name}] {variant.title}, seed {seed}")
    config = dataclasses.replace(variant.config, seed=seed)
    workdir = folder / f"{variant.run}_{seed}"
    if not workdir.exists():
        for source in sources:
            borrow(config, data, workdir, folder / f"{source}_{seed}")
    metrics = fit(config, data, workdir).metrics
    row = metrics[variant.key]
    seconds = {stage: s for stage, s in metrics["seconds"].items() if stage != "evaluate"}
    if variant.key == "search" and config.method == "ihas":
        seconds = {"search": seconds["search"]}
    if variant.key != "base":
        seconds.pop("base", None)  # the method does not need it
    scores = {name: row[name] for name in ("auc", "logloss", "parameters", "bytes")}
    scores["router_parameters"] = row.get("router_parameters", 0)
    scores["training_seconds"] = sum(seconds.values())
    return scores


def time_inference(
    variants: Sequence[Variant], data: Dataset, folder: Path, seed: int
) -> dict[str, float]:
    """Microseconds per test row of all that a variant's prediction needs, gates and routing too.

    Bundles of one seed take turns; each has its median. A searched model that is not what its
    run serves has none.
    """
    bundles = {
        variant.name: load_bundle(folder / f"{variant.run}_{seed}")
        for variant in variants
        if variant.key != "search"
    }
    seconds: dict[str, list[float]] = {name: [] for name in bundles}
    for turn in range(_TURNS + 1):
        for name, bundle in bundles.items():
            start = time.perf_counter()
            bundle.predict_ids(data.test.ids)
            if turn:  # the first compiles
                seconds[name].append(time.perf_counter() - start)
    rows = len(data.test.labels)
    return {name: 1e6 * statistics.median(times) / rows for name, times in seconds.items()}


def write(
    results: Path,
    title: str,
    variants: Sequence[Variant],
    table: Table,
    inference: dict[str, dict[str, float]],
    shared: Shared,
    note: str,
) -> None:
    """Writes a table as Markdown and JSON, and its figure.

    Args:
      results: path of the files without .md, .json and .png.
      title: heading.
      variants: the rows, the base model first.
      table: scores.
      inference: `time_inference` by log, of the logs to show.
      shared: what the variants share.
      note: what the reader must know of this table.
    """
    lines = [f"# {title}", ""]
    for name, times in inference.items():
        found = [variant for variant in variants if variant.name in table[name]]
        lines += [f"## {name}", "", *_markdown(found, table[name], times, name), ""]
    lines += [
        "Test split, mean ± standard deviation over seeds. Against base and best (the highest mean "
        "AUC): difference in AUC of the same seed, with the p-value of a paired t-test, not "
        "corrected for the number of rows. Size: parameters over those of the base model; what "
        "iHAS needs to route besides in brackets. MB: float32 parameters, and a bit for each "
        "number or value that a mask may remove. Training: seconds of all stages. Inference: "
        "microseconds per row of all that a prediction needs, gates and routing included, medians "
        f"of turns on {jax.devices()[0].device_kind}. Paper: AUC and logloss on the full log. "
        f"{note}",
        "",
        f"![Test AUC and size]({results.name}.png)",
        "",
        *provenance(shared.config),
        "",
    ]
    results.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{results}.md").write_text("\n".join(lines), encoding="utf-8")
    content = {"logs": table, "inference": inference, **shared.content()}
    write_json(Path(f"{results}.json"), content)
    titles = {variant.name: variant.title for variant in variants}
    draw({name: table[name] for name in inference}, titles).savefig(f"{results}.png", dpi=150)


def _markdown(
    variants: Sequence[Variant], scores: dict[str, list[Scores]], times: dict[str, float], name: str
) -> list[str]:
    auc = {v.name: [run["auc"] for run in scores[v.name]] for v in variants}
    base = variants[0].name
    best = max(auc, key=lambda variant: float(np.mean(auc[variant])))
    size = _mean(scores[base], "parameters")
    lines = [
        "| method | AUC | logloss | vs base | p | vs best | p | size | MB | training, s | "
        "inference, µs | paper |",
        f"|---|{'---:|' * 11}",
    ]
    for variant in variants:
        runs = scores[variant.name]
        cells = [f"{spread([run[metric] for run in runs]):.4f}" for metric in ("auc", "logloss")]
        cells += _difference(auc, variant.name, base) + _difference(auc, variant.name, best)
        router = _mean(runs, "router_parameters")
        share = f"{_mean(runs, 'parameters') / size:.2f}"
        cells.append(f"{share} (+{router / size:.2f})" if router else share)
        cells.append(f"{_mean(runs, 'bytes') / 1e6:.2f}")
        cells.append(f"{_mean(runs, 'training_seconds'):.0f}")
        cells.append(f"{times[variant.name]:.2f}" if variant.name in times else "")
        paper = next((p for log, p in variant.paper.items() if name.startswith(log)), ())
        cells.append(" ".join(f"{number:.4f}" for number in paper))
        lines.append(f"| {variant.title} | {' | '.join(cells)} |")
    return lines


def _difference(auc: dict[str, list[float]], name: str, other: str) -> list[str]:
    if name == other:
        return ["", ""]
    gain: Gain = paired_gain(auc[name], auc[other])
    return [f"{gain.spread:+.4f}", gain.p_text]


def _mean(runs: list[Scores], name: str) -> float:
    return float(np.mean([run[name] for run in runs]))


def draw(table: Table, titles: dict[str, str]) -> Figure:
    """Test AUC against parameters, a panel for each log: every seed a dot, means named."""
    figure = Figure(figsize=(4.6 * len(table), 4.0), layout="constrained")
    panels = figure.subplots(1, len(table), squeeze=False)[0]
    for panel, (name, variants) in zip(panels, table.items(), strict=True):
        for i, (variant, runs) in enumerate(variants.items()):
            sizes, values = ([run[key] for run in runs] for key in ("parameters", "auc"))
            color = f"C{i % 10}"
            panel.plot(sizes, values, ".", color=color, alpha=0.6)
            place = (float(np.mean(sizes)), float(np.mean(values)))
            panel.plot(*place, "D", color=color, markersize=5)
            panel.annotate(
                titles[variant], place, xytext=(4, 4), textcoords="offset points", fontsize=7,
                color=color,
            )  # fmt: skip
        panel.set_xscale("log")
        panel.set(title=name, xlabel="parameters of the model", ylabel="test AUC")
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def score_all(
    variants: Sequence[Variant],
    data: Dataset,
    folder: Path,
    seeds: range,
    done: dict[str, list[Scores]],
    keep: Callable[[], None],
) -> dict[str, float]:
    """Adds the scores of every variant that `done` lacks, and calls `keep` after each.

    Returns:
      `time_inference` of the variants.
    """
    for i, variant in enumerate(variants):
        if variant.name in done:
            continue
        sources = [
            other.run for other in variants[:i] if (folder / f"{other.run}_{seeds[0]}").is_dir()
        ]
        done[variant.name] = [score_variant(variant, data, folder, seed, sources) for seed in seeds]
        keep()
    return time_inference(variants, data, folder, seeds[0])


def save_scores(results: Path, table: Table, shared: Shared) -> None:
    """Writes what is scored so far, from which the same command goes on."""
    results.parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(f"{results}.json"), {"logs": table, **shared.content()})
