"""What Tables 2 and 4 share: variants of a run on several logs and seeds, and their scores."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from ihas_jax.config import Config, to_json
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError
from ihas_jax.files import write_json
from ihas_jax.models.base import BatchStats, Params
from ihas_jax.progress import say
from ihas_jax.selectors.registry import build_selector
from ihas_jax.serving.bundle import load_bundle
from ihas_jax.stages.borrow import borrow
from ihas_jax.stages.pipeline import fit
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import predict_selected, search
from ihas_jax.training.streaming import Streamed

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
      besides: what else scores hang on and can be written as JSON, by name.
    """

    config: Config
    seeds: int
    besides: dict[str, Any]

    def content(self) -> dict[str, Any]:
        """The same, for a JSON file."""
        return {"seeds": self.seeds, "config": to_json(self.config), **self.besides}


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
    say(f"[{folder.name}] {variant.title}, seed {seed}")
    config = dataclasses.replace(variant.config, seed=seed)
    workdir = folder / f"{variant.run}_{seed}"
    if not workdir.exists():
        for source in sources:
            if (folder / f"{source}_{seed}").is_dir():
                borrow(config, data, workdir, folder / f"{source}_{seed}")
    metrics = fit(config, data, workdir).metrics
    row = metrics[variant.key]
    seconds = {stage: s for stage, s in metrics["seconds"].items() if stage != "evaluate"}
    if variant.key == "search":
        seconds = {"search": seconds["search"]}
    if variant.key != "base":
        seconds.pop("base", None)  # the method does not need it
    names = ("auc", "logloss", "only_label", "parameters", "bytes")
    scores = {name: row[name] for name in names if name in row}
    scores["router_parameters"] = row.get("router_parameters", 0)
    scores["training_seconds"] = sum(seconds.values())
    return scores


def time_inference(
    variants: Sequence[Variant], data: Dataset, folder: Path, seed: int
) -> dict[str, float]:
    """Microseconds per test row of all that a variant's prediction needs, gates and routing too.

    Variants take turns with one seed; each has its median.
    """
    predictors = {variant.name: _predictor(variant, data, folder, seed) for variant in variants}
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    for turn in range(_TURNS + 1):
        for name, predict in predictors.items():
            start = time.perf_counter()
            predict(data.test.ids)
            if turn:  # the first compiles
                seconds[name].append(time.perf_counter() - start)
    rows = len(data.test.labels)
    return {name: 1e6 * statistics.median(times) / rows for name, times in seconds.items()}


def _predictor(
    variant: Variant, data: Dataset, folder: Path, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Click probabilities `[n]` of ids `[n, N]`, by the bundle of a run or its searched model."""
    workdir = folder / f"{variant.run}_{seed}"
    if variant.key != "search":
        return load_bundle(workdir).predict_ids
    run = Run(dataclasses.replace(variant.config, seed=seed), data, workdir)
    model = run.model()
    selector = build_selector(run.config, model, run.epoch_steps)
    fitted = search(run, selector).fitted  # it has ended, and is read back
    weights = (fitted.params, fitted.batch_stats)

    def predict(weights: tuple[Params, BatchStats], ids: Array) -> Array:
        return predict_selected(model, selector, *weights, ids)[0]

    predictor = Streamed(predict, "[predict] searched model")
    return lambda ids: predictor(weights, ids)


def score_all(
    variants: Sequence[Variant],
    data: Dataset,
    folder: Path,
    seeds: range,
    done: dict[str, list[Scores]],
    keep: Callable[[], None],
) -> dict[str, float]:
    """Adds the scores of every variant that `done` lacks, and calls `keep` after each.

    A variant that can't run, such as a method that the click model can't carry, is left out; the
    log says why.

    Returns:
      `time_inference` of the variants that have scores.
    """
    for i, variant in enumerate(variants):
        if variant.name in done:
            continue
        sources = [other.run for other in variants[:i] if other.name in done]
        try:
            scores = [score_variant(variant, data, folder, seed, sources) for seed in seeds]
        except InputError as error:
            say(f"[{folder.name}] {variant.title} is left out: {error}")
            continue
        done[variant.name] = scores
        keep()
    return time_inference([v for v in variants if v.name in done], data, folder, seeds[0])


def save_scores(results: Path, table: Table, shared: Shared) -> None:
    """Writes what is scored so far, from which the same command goes on."""
    results.parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(f"{results}.json"), {"logs": table, **shared.content()})
