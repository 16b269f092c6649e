"""What a training is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ihas_jax.config import TrainConfig
from ihas_jax.data.batches import Rounds
from ihas_jax.models.base import Variables
from ihas_jax.training.metrics import Scores
from ihas_jax.training.steps import Batch, TrainState

Event = Callable[[str, dict[str, Any]], None]
"""Records one event: its kind and its JSON-ready facts."""
RoundStep = Callable[[Any, Batch, Any, Batch, Any, Any], tuple[Any, dict[str, Any]]]
"""Pure `round_(state, data, rows, gate_data, gate_rows, count) -> (state, metrics)`."""


@dataclass(frozen=True)
class Task:
    """One training and all that it needs.

    Attributes:
      name: the name in logs.
      directory: the folder of the checkpoints.
      rounds: the batches.
      round_: one round of updates.
      evaluate: `variables -> (scores on validation rows, more facts to record)`.
      config: epochs, patience, checkpoints.
      early_stopping: whether to stop early and keep the best epoch, or run all and keep the last.
      label: tells the task from others of the same name in logs.
      is_last: whether the facts of an epoch mean that it is the last one.
      start_counts: whether the state that the training starts from is a candidate of early
        stopping, as an epoch -1; a training from trained weights can then not end below them.
      finish: the paces, factors of the learning rates, at which the training goes on from its best
        epoch, one after the other; see `ihas_jax.training.finish`.
    """

    name: str
    directory: Path
    rounds: Rounds
    round_: RoundStep
    evaluate: Callable[[Variables], tuple[Scores, dict[str, float]]]
    config: TrainConfig
    early_stopping: bool = True
    label: str = ""
    is_last: Callable[[dict[str, float]], bool] = lambda facts: False
    start_counts: bool = False
    finish: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        """The name and the label of the task."""
        return f"{self.name}, {self.label}" if self.label else self.name


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
      variables: the variables of the best epoch, or of the last one without early stopping.
      state: the last state.
      history: facts of each epoch.
      seconds: training time.
    """

    variables: Variables
    state: TrainState
    history: list[dict[str, float]]
    seconds: float
