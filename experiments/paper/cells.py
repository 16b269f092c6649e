"""A cell of map.py: a drawn log, four models of it, and how iHAS compares with the others."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from compare import Variant, score_variant
from comparison import LogComparison, Record
from sklearn.metrics import adjusted_rand_score
from table4_ablation import rows_of

from ihas_jax.data.dataset import Dataset
from ihas_jax.data.open import open_store
from ihas_jax.data.store_writer import save_dataset
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.progress import silent
from ihas_jax.serving.storage import load_bundle
from ihas_jax.training.metrics import auc

MODELS = ("base", "ihas", "ihas_2", "uniform")
"""The models of a cell by their names in Table 4; the size of iHAS must be known before uniform."""
OTHERS = MODELS[:1] + MODELS[2:]
"""The models with which iHAS is compared."""
_TRUTH = "truth.npz"


@dataclass(frozen=True)
class Cell:
    """A log of the map.

    Attributes:
      rows: its rows, in all three splits together.
      heterogeneity: its heterogeneity, see `SyntheticConfig`.
      seed: the seed of its draws and of the models.
    """

    rows: int
    heterogeneity: float
    seed: int

    @property
    def name(self) -> str:
        """The name in files."""
        return f"{self.rows}_{self.heterogeneity:g}_{self.seed}"

    @property
    def title(self) -> str:
        """The name in messages."""
        return f"{self.rows:,} rows, heterogeneity {self.heterogeneity:g}, seed {self.seed}"


def finished(found: dict[str, Any] | None) -> bool:
    """Whether a cell has the scores of all models."""
    return found is not None and all(model in found for model in MODELS)


def run_cell(
    arguments: LogComparison,
    cell: Cell,
    shape: SyntheticConfig,
    record: Record,
    begin: Callable[[str], None],
) -> None:
    """Draws the log of a cell, and trains the models that have no scores yet.

    Args:
      arguments: the flags.
      cell: the cell.
      shape: the log.
      record: the scores so far, to which those of each model are added, with the `ceiling` (the AUC
        of the true probabilities), the `agreement` of clusters and groups (adjusted Rand index),
        and the `seconds` of drawing and training.
      begin: says what begins.
    """
    folder, start = arguments.output / cell.name, time.monotonic()
    begin("drawing")
    data = _draw(shape, folder)
    found = record.scores_of(cell.name, data)
    with np.load(folder / _TRUTH) as file:
        groups, probabilities = file["groups"], file["probabilities"]
    found["ceiling"] = auc(data.test.labels, probabilities)
    variants = {row.name: row for row in rows_of(arguments)}
    for i, model in enumerate(MODELS):
        if model in found:
            continue
        variant = variants[model]
        if model == "uniform":
            variant = _as_large(arguments, variant, found["ihas"]["table_share"])
        begin(variant.title)
        sources = [variants[other].run for other in MODELS[:i]]
        with silent():
            scores = score_variant(variant, data, folder, cell.seed, sources)
            if model == "ihas":
                bundle = load_bundle(folder / f"{variant.run}_{cell.seed}")
                found["agreement"] = adjusted_rand_score(groups, bundle.assign(data.test.ids))
        found[model] = scores
        now = time.monotonic()
        found["seconds"], start = found.get("seconds", 0.0) + now - start, now
        record.save()
        jax.clear_caches()  # compact models differ in shape, and their programs fill the memory


def remove(arguments: LogComparison, cell: Cell) -> None:
    """Removes the log and the runs of a cell."""
    shutil.rmtree(arguments.output / cell.name, ignore_errors=True)


def _draw(shape: SyntheticConfig, folder: Path) -> Dataset:
    """The store of a log, which is drawn unless it is there, with the truth about its test rows."""
    store = folder / "store"
    if not store.exists():
        folder.mkdir(parents=True, exist_ok=True)
        log = synthetic(shape)
        groups, probabilities = log.groups["test"], log.probabilities["test"]
        np.savez(folder / _TRUTH, groups=groups, probabilities=probabilities)
        save_dataset(log, store)
    return open_store(store)


def _as_large(arguments: LogComparison, uniform: Variant, share: float) -> Variant:
    """A uniform size of as many numbers of the table as iHAS keeps, at most all of them."""
    return replace(uniform, config=arguments.config_of("uniform", min(1.0, share)))
