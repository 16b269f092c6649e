"""A pool of click models on clicks: candidates for the base model, for teachers and for small ones.

The best mean of their predictions teaches.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ihas_jax.models.predict import predictor
from ihas_jax.stages.base import train_base
from ihas_jax.stages.candidates import valid_facts
from ihas_jax.stages.lessons import (
    Speaker,
    Taught,
    has_predictions,
    mean_prediction,
    write_predictions,
)
from ihas_jax.stages.run import Run
from ihas_jax.stages.trials import Trial
from ihas_jax.training.metrics import Scores, logloss, score
from ihas_jax.training.task import Trained

FOLDER = "pool"
_MOST = 8
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Member:
    """A click model of a pool.

    Attributes:
      name: the name of its folder and of its predictions.
      trial: what it is trained with.
      run: the run that trained it.
      trained: the result of the training.
      probs: `[m]`, its click probabilities of the validation rows.
      scores: those of the validation rows.
    """

    name: str
    trial: Trial
    run: Run
    trained: Trained
    probs: np.ndarray
    scores: Scores


def train_member(run: Run, trial: Trial) -> Member:
    """Trains a click model on clicks for the pool of a run, with a seed and folder of its own."""
    name = trial.name(run.config)
    config = replace(
        run.config,
        method="none",
        budget=None,
        model=trial.model,
        optimizer=trial.optimizer,
        seed=zlib.crc32(f"{name}/{run.config.seed}".encode()),
    )
    own = Run(config, run.data, run.workdir / FOLDER / name)
    own.workdir.mkdir(parents=True, exist_ok=True)
    (trained,) = train_base([own])
    ids, labels = run.data.valid
    probs = predictor(own.model)(trained.variables, ids, title=f"[{name}] validation").probs
    return Member(name, trial, own, trained, probs, score(labels, probs))


def write_lessons(run: Run, member: Member) -> None:
    """Writes what a member predicts of training and test rows, once, as files of the run."""
    if not has_predictions(run, member.name):
        speaker = Speaker(member.run.model, member.trained.variables)
        history, seconds = member.trained.history, member.trained.seconds
        write_predictions(run, member.name, [speaker], history, seconds)


def mean_facts(run: Run, members: Sequence[Member], taught: Taught) -> dict[str, Any]:
    """Scores of the mean prediction of members on validation and test rows, and their size.

    A member counts as often as it is named.
    """
    data, kind = run.data, run.config.retrain.teacher_mean
    valid = mean_prediction([member.probs for member in members], kind)
    return {
        **score(data.test.labels, taught.test).facts,
        **valid_facts(score(data.valid.labels, valid)),
        "parameters": taught.parameters,
        "bytes": 4 * taught.parameters,
    }


def best_mean(labels: np.ndarray, probs: Sequence[np.ndarray]) -> tuple[int, ...]:
    """The predictions whose mean has the least logloss, found greedily; one may count twice.

    Each of eight steps adds the prediction that makes the logloss of the mean least (Caruana et
    al., ICML 2004); the best of the eight means counts, of equal ones that of the fewest.

    Args:
      labels: `[m]`, 0 or 1.
      probs: click probabilities `[m]` of each model.
    """
    chosen: list[int] = []
    reached: list[float] = []
    total = np.zeros(len(labels))
    for step in range(_MOST):
        losses = [logloss(labels, (total + own) / (step + 1)) for own in probs]
        best = int(np.argmin(losses))
        chosen.append(best)
        reached.append(losses[best])
        total = total + probs[best]
    fewest = next(i for i, loss in enumerate(reached) if loss <= min(reached) + _ROUNDING)
    return tuple(chosen[: 1 + fewest])
