"""Microseconds per row of predictions, which take turns."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from bench.common import Side
from compare import Variant

from ihas_jax.data.dataset import Dataset
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages.bundles import search_bundle
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import search
from ihas_jax.stages.speed import take_turns

_TURNS = 5


def time_inference(
    variants: Sequence[Variant], data: Dataset, folder: Path, seed: int, turns: int = _TURNS
) -> dict[str, float]:
    """Microseconds per test row of a variant's whole prediction, gates and routing included.

    See `take_turns_in_predicting`, which times variants of one seed.
    """
    predictors = {v.name: _predictor(v, data, folder / f"{v.run}_{seed}", seed) for v in variants}
    return take_turns_in_predicting(predictors, data.test.ids, turns)


def take_turns_in_predicting(
    predictors: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    ids: np.ndarray,
    turns: int = _TURNS,
) -> dict[str, float]:
    """Microseconds per row of predictions of ids `[n, N]`, by turns; the median counts."""

    def side(predict: Callable[[np.ndarray], np.ndarray]) -> Side:
        def turn() -> float:
            start = time.perf_counter()
            predict(ids)
            return 1e6 * (time.perf_counter() - start) / len(ids)

        return turn

    return take_turns({name: side(predict) for name, predict in predictors.items()}, turns)


def _predictor(
    variant: Variant, data: Dataset, workdir: Path, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Click probabilities `[n]` of ids `[n, N]`, by the bundle of a run or its searched model."""
    if variant.key != "search":
        return load_bundle(workdir).predict_ids
    run = Run(dataclasses.replace(variant.config, seed=seed), data, workdir)
    (found,) = search([run])  # the search has ended and is read back
    (searched,) = search_bundle(run, found).models
    return lambda ids: searched.predict(ids, title="[predict] searched model").probs
