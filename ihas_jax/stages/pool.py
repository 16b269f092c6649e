"""A pool of click models on clicks, of which the best is a base and the best mean teaches."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ihas_jax.config import ModelConfig
from ihas_jax.stages.base import train_base
from ihas_jax.stages.lessons import Speaker, has_predictions, write_predictions
from ihas_jax.stages.run import Run
from ihas_jax.training.loop import Trained
from ihas_jax.training.metrics import Scores, logloss, score
from ihas_jax.training.predict import predictor

FOLDER = "pool"
_MOST = 8
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Member:
    """A click model of a pool.

    Attributes:
      name: the name of its folder and of its predictions.
      run: the run that trained it.
      trained: the result of the training.
      probs: `[m]`, its click probabilities of the validation rows.
      scores: those of the validation rows.
    """

    name: str
    run: Run
    trained: Trained
    probs: np.ndarray
    scores: Scores


def train_member(run: Run, model: ModelConfig, l2: float, number: int = 0) -> Member:
    """Trains a click model on clicks, with a seed and in a folder of its own.

    Args:
      run: the run whose pool it is.
      model: the click model.
      l2: the coefficient of its L2 term.
      number: tells members from each other that differ in their seed alone.
    """
    name = member_name(model, l2) + (f"_{number}" if number else "")
    config = replace(
        run.config,
        method="none",
        budget=None,
        model=model,
        optimizer=replace(run.config.optimizer, l2=l2),
        seed=zlib.crc32(f"{name}/{run.config.seed}".encode()),
    )
    own = Run(config, run.data, run.workdir / FOLDER / name)
    own.workdir.mkdir(parents=True, exist_ok=True)
    (trained,) = train_base([own])
    ids, labels = run.data.valid
    probs = predictor(own.model)(trained.variables, ids, title=f"[{name}] validation").probs
    return Member(name, own, trained, probs, score(labels, probs))


def member_name(model: ModelConfig, l2: float) -> str:
    """The name of a click model of a pool, by what pools try."""
    norm = "_norm" if model.batch_norm else ""
    dropout = f"_dropout_{model.dropout:g}" if model.dropout else ""
    return f"{model.name}_{l2:g}{norm}{dropout}"


def write_lessons(run: Run, member: Member) -> None:
    """Writes what a member predicts of training and test rows, once, as files of the run."""
    if not has_predictions(run, member.name):
        speaker = Speaker(member.run.model, member.trained.variables)
        history, seconds = member.trained.history, member.trained.seconds
        write_predictions(run, member.name, [speaker], history, seconds)


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
