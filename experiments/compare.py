"""Test scores of variants by log and seed; all comparisons call the stages from here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from comparison import Record
from reference import BASE, full_size, reference_of
from sklearn.metrics import adjusted_rand_score

from ihas_jax.config import Config
from ihas_jax.data.dataset import Dataset
from ihas_jax.data.synthetic import SyntheticLog
from ihas_jax.errors import InputError
from ihas_jax.flags import replaced
from ihas_jax.pipeline.fit import StageName, check_choices, fit, fit_seeds
from ihas_jax.pipeline.reuse import reuse_stages
from ihas_jax.pipeline.walk import Walk
from ihas_jax.pipeline.workdir import open_run
from ihas_jax.processes import agreed
from ihas_jax.progress import say
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages.base import train_base
from ihas_jax.stages.bundles import base_bundle
from ihas_jax.training.metrics import score

Scores = dict[str, float]
_OWN_STAGE = {"base": {"base"}, "teacher": {"teach"}, "search": {"search"}}
"""The stage of models that one stage makes."""


@dataclass(frozen=True)
class Variant:
    """A row of a table.

    Attributes:
      name: the name in files.
      run: the name of the runs, which other variants may share.
      title: the name in tables.
      config: every choice but the seed.
      key: the model in metrics.json whose scores are shown; if empty, only the base model is
        trained.
      paper: AUC and logloss in the paper, by log.
    """

    name: str
    run: str
    title: str
    config: Config
    key: str = ""
    paper: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def run_alone(
    config: Config, data: Dataset, workdir: Path, sources: Iterable[Path] = ()
) -> dict[str, Any]:
    """The metrics of a run, which reuses the stages that it has in common with `sources`."""
    for source in sources:
        if agreed((source / "metrics.json").exists):
            reuse_stages(config, data, workdir, source)
    return fit(config, data, workdir).metrics


def run_together(
    config: Config, data: Dataset, workdirs: Mapping[int, Path]
) -> list[dict[str, Any]]:
    """The metrics of the runs of several seeds, in folders by seed, trained side by side."""
    return [result.metrics for result in fit_seeds(config, data, workdirs)]


def run_by_search(
    config: Config, model: str, data: Dataset, workdir: Path, searched: Path
) -> dict[str, Any]:
    """The metrics of a model by the search of the config's model, which is run in `searched`."""
    if model == config.model.name:
        return fit(config, data, searched).metrics
    teachers = config.retrain.teachers
    stages: dict[StageName, bool] = {"base": BASE in teachers, "teach": bool(teachers)}
    stages |= {"search": True, "choose": True}
    for stage in (name for name, needed in stages.items() if needed):
        fit(config, data, searched, stage)
    own = replaced(config, "model.name", model)
    return fit(own, data, workdir, searched_by=searched).metrics


def score_full_size(
    config: Config,
    metrics: Mapping[str, Any],
    data: Dataset,
    workdir: Path,
    sources: Iterable[Path],
) -> dict[str, Any]:
    """The scores of the full-size model that a run is compared with.

    Args:
      config: every choice of the run.
      metrics: the metrics of the run, whose base model is the one where there are no teachers.
      data: the log.
      workdir: the folder of the run that trains it where there are.
      sources: folders of finished runs; base and teachers of the run are reused.
    """
    key = reference_of(config).key
    if key != BASE:
        say(f"[{workdir.name}] the full-size model under the same teachers")
        metrics = run_alone(full_size(config), data, workdir, sources)
    scores: dict[str, Any] = metrics[key]
    return scores


def recovered(data: SyntheticLog, workdir: Path) -> dict[str, Any]:
    """How much of the planted truth a run found, on test rows.

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


def validation_score(config: Config, data: Dataset, workdir: Path) -> float:
    """The objective of early stopping for the bundle of a run, on validation rows.

    It is minus infinity if the run fails.
    """
    try:
        fit(config, data, workdir)
    except InputError as error:
        say(f"[Trials] {workdir.name} can't run: {error}")
        return float("-inf")
    probs = load_bundle(workdir).predict_ids(data.valid.ids)
    return score(data.valid.labels, probs).objective


def train_base_alone(config: Config, data: Dataset, workdir: Path) -> Scores:
    """Test scores, epochs and seconds of a run's base model."""
    start = time.monotonic()
    with open_run(config, data, workdir) as run:
        (trained,) = train_base([run])
        probs = base_bundle(run, trained).predict_ids(data.test.ids)
    facts = score(data.test.labels, probs).facts
    return {**facts, "epochs": len(trained.history), "seconds": time.monotonic() - start}


def score_logs(
    record: Record,
    variants_of: Callable[[str, Dataset], Sequence[Variant]],
    *,
    leave_out: bool = False,
    walk: Walk | None = None,
) -> Iterator[tuple[str, Dataset, Sequence[Variant]]]:
    """Adds what a record lacks: the scores of each seed, by log and variant.

    Args:
      record: the record, which is saved after each variant.
      variants_of: the variants for a log and its name.
      leave_out: whether a variant that can't run, such as a method that the click model can't
        carry, is left out with a line in the log; otherwise, and for the first variant, with which
        the others are compared, it is an error. What goes wrong in a run is an error always.
      walk: counts the runs, and says how long the rest takes.

    Yields:
      The name, rows and variants of each log when its scores are complete.
    """
    for name, data in record.arguments.open_logs().items():
        folder, scores = record.arguments.output / name, record.scores_of(name, data)
        variants = variants_of(name, data)
        left_out = _left_out(name, variants[1:], data) if leave_out else set()
        for i, variant in enumerate(variants):
            known = scores.get(variant.name, [])
            seeds = record.arguments.seed_range[len(known) :]
            if walk and variant.name in left_out:
                walk.skip(len(seeds))
            if not seeds or variant.name in left_out:
                continue
            sources = {other.run: None for other in variants[:i] if other.name in scores}
            found = []
            for seed in seeds:
                title = f"{variant.title}, seed {seed}"
                if not walk:
                    say(f"[{name}] {title}")
                with walk.step(f"{name}, {title}") if walk else nullcontext():
                    found.append(score_variant(variant, data, folder, seed, [*sources]))
            scores[variant.name] = [*known, *found]
            record.save()
            # compact models differ in shape, and programs of hundreds of runs fill the memory
            jax.clear_caches()
        yield name, data, variants


def _left_out(name: str, variants: Sequence[Variant], data: Dataset) -> set[str]:
    """The names of variants that can't run on a log, with a line in the log for each."""
    found = set()
    for variant in variants:
        try:
            check_choices(variant.config, data)
        except InputError as error:
            say(f"[{name}] {variant.title} is left out: {error}")
            found.add(variant.name)
    return found


def score_variant(
    variant: Variant, data: Dataset, folder: Path, seed: int, sources: Sequence[str]
) -> Scores:
    """Test scores of a variant with one seed, and its training time.

    Args:
      variant: the variant.
      data: the log.
      folder: the folder of the runs on the log, one folder per variant and seed.
      seed: the seed.
      sources: names of finished runs, whose stages the run may reuse.
    """
    config = dataclasses.replace(variant.config, seed=seed)
    workdir = folder / f"{variant.run}_{seed}"
    if not variant.key:
        return train_base_alone(config, data, workdir)
    others = [folder / f"{source}_{seed}" for source in sources]
    metrics = run_alone(config, data, workdir, others)
    row = metrics[variant.key]
    # a method does not need the base model
    own = _OWN_STAGE.get(variant.key, metrics["seconds"].keys() - {"base", "evaluate", "compiling"})
    seconds = {stage: s for stage, s in metrics["seconds"].items() if stage in own}
    names = ("auc", "logloss", "only_label", "parameters", "bytes", "table_share", "kept")
    scores = {name: row[name] for name in names if name in row}
    if "router_parameters" in row:  # the outcome of clusters, of which each keeps its share
        scores["kept"] = sum(c["share"] * c["kept"] for c in metrics["clusters"])
    scores["router_parameters"] = row.get("router_parameters", 0)
    scores["training_seconds"] = sum(seconds.values())
    return scores
