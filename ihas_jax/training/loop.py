"""The training loop of every stage: rounds, validation, early stopping, checkpoints, resume."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.config import TrainConfig
from ihas_jax.data.batches import Round, RoundIterator, Rounds
from ihas_jax.data.dataset import Split
from ihas_jax.models.base import Variables
from ihas_jax.progress import Tracker, say, track, warn
from ihas_jax.training.checkpoint import Checkpoints, Items
from ihas_jax.training.metrics import DivergedError, Scores
from ihas_jax.training.parallel import data_mesh, replicate, shard_rows
from ihas_jax.training.steps import Batch, TrainState

_MUCH = 1.03
"""The factor between two loglosses from which on the user should look at both."""
Tree = TypeVar("Tree")
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


@dataclass
class Progress:
    """How far a task has come, as JSON-ready values that are part of each checkpoint.

    Attributes:
      epoch: number of finished epochs.
      round: number of finished rounds in the epoch after those.
      best_epoch: epoch whose parameters are kept.
      best: objective of the best epoch.
      lowest: lowest validation logloss so far.
      waited: number of epochs since the objective or the logloss improved.
      seconds: training time, over all resumptions.
      finished: whether the task is finished.
      position: where the batches resume.
      sums: sum of each training metric over the batches of the epoch so far.
      history: facts of each finished epoch.
    """

    epoch: int = 0
    round: int = 0
    best_epoch: int = -1
    best: float | None = None
    lowest: float | None = None
    waited: int = 0
    seconds: float = 0.0
    finished: bool = False
    position: dict[str, int] | None = None
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


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


def train(task: Task, state: TrainState, event: Event) -> Trained:
    """Trains until a task is finished, from its newest checkpoint if there is one.

    A killed run resumes bit for bit: the state, the best parameters, the place in the data
    and the history are saved together, between rounds.

    Raises:
      InputError: the loss, a parameter, a validation prediction or the validation logloss is not
        finite.
    """
    with Checkpoints(task.directory) as checkpoints:
        trainer = Trainer(task, state, event, checkpoints)
        if not trainer.progress.finished:
            trainer.train()
    return trainer.trained()


class Trainer:
    """The changing parts of one `train`: state, best parameters, progress, clock."""

    def __init__(
        self, task: Task, state: TrainState, event: Event, checkpoints: Checkpoints
    ) -> None:
        """Reads the newest checkpoint, if there is one."""
        self.task, self.event, self._checkpoints = task, event, checkpoints
        self.mesh = data_mesh(task.config.batch_size)
        self.state: Any = replicate(state, self.mesh)
        self.best = _copy(self.state.variables)
        self.progress = Progress()
        self._clock = self._saved = time.monotonic()
        self._cost = 0.0
        if self.mesh.size < jax.device_count():
            say(
                f"[{task.title}] uses one of {jax.device_count()} devices, since they don't divide "
                f"a batch of {task.config.batch_size} evenly; change --train.batch-size."
            )
        self._resume()
        self.iterator = RoundIterator(task.rounds, self._make)
        if self.progress.position is not None:
            self.iterator.seek(self.progress.position)

    def _resume(self) -> None:
        found = self._checkpoints.restore(self._items())
        if found is None:
            # a task without epochs is finished before it starts
            self.progress.finished = not self.task.rounds.epochs
            return
        items, facts = found
        self.state = replace(items["state"], params=items["params"])
        constants = _copy(self.state.constants)
        self.best = self.best._replace(constants=constants, **items["best"])
        self.progress = Progress(**facts)
        if not self.progress.finished:
            place = {"epoch": self.progress.epoch, "round": self.progress.round}
            say(f"[{self.task.title}] resumes at epoch {place['epoch']}, round {place['round']}")
            self.event("resume", {"stage": self.task.name, **place})

    def trained(self) -> Trained:
        """The result so far."""
        return Trained(self.best, self.state, self.progress.history, self.progress.seconds)

    def begin(self) -> None:
        """Scores the start of a training if it counts, once."""
        if self.task.start_counts and not self.progress.history:
            scores, more = self._validate()
            facts = {"epoch": -1, **scores.facts, **more}
            self.progress.best, self.progress.lowest = scores.objective, scores.logloss
            self.progress.history.append(facts)
            self.event("epoch", {"stage": self.task.name, **facts})
            say(f"[{self.task.title}] start - [Metrics] {scores}")

    def train(self) -> None:
        """Trains rounds and epochs until the task is finished."""
        self.begin()
        rounds, progress = self.task.rounds, self.progress
        round_ = jax.jit(self.task.round_, donate_argnums=0)
        resident = self.transfer(rounds.split, rounds.gate_split) if rounds.resident else None
        while not progress.finished:
            with self.track() as bar:
                while progress.round < rounds.per_epoch:
                    item, transferred = next(self.iterator)
                    data, gate_data = resident or transferred
                    rows, gate_rows = self._rows(item)
                    self.state, metrics = round_(
                        self.state, data, rows, gate_data, gate_rows, np.int32(item.batches)
                    )
                    self.count(jax.device_get(metrics), item.batches)
                    bar.advance(item.batches * self.task.config.batch_size)
                    if progress.round < rounds.per_epoch and self.due():
                        self.save()
            self.close_epoch()
            if progress.finished or self.due():
                self.save()

    def track(self) -> AbstractContextManager[Tracker]:
        """Shows the progress of the rest of the epoch."""
        rounds, progress = self.task.rounds, self.progress
        left = rounds.feed.batches_per_epoch - progress.round * rounds.length
        description = f"[{self.task.title}] epoch {progress.epoch}"
        return track(description, left * self.task.config.batch_size)

    def count(self, metrics: dict[str, Any], batches: int) -> None:
        """Adds the mean metrics of a round, the only values that a round copies to the host."""
        progress = self.progress
        values = {name: float(value) for name, value in metrics.items()}
        self._require_finite("loss", values["loss"])
        for name, value in values.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + batches * value
        progress.round += 1

    def close_epoch(self) -> None:
        """Validates, keeps the parameters of the best AUC, and decides whether to stop.

        Note: the wait ends when the logloss improves too. A small MLP on tiny embeddings starts
        with epochs of chance AUC in which only the logloss shows that it is learning.
        """
        task, progress = self.task, self.progress
        scores, more = self._validate()
        batches = task.rounds.feed.batches_per_epoch
        means = {name: total / batches for name, total in progress.sums.items()}
        facts = {"epoch": progress.epoch, **means, **scores.facts, **more}
        progress.history.append(facts)
        self.event("epoch", {"stage": task.name, **facts})
        losses = " - ".join(f"{name}: {value:.4f}" for name, value in means.items())
        say(f"[{task.title}] epoch {progress.epoch} - {losses} - [Metrics] {scores}")
        best, lowest = progress.best, progress.lowest
        better = best is None or scores.objective > best
        falling = lowest is None or scores.logloss < lowest
        progress.waited = 0 if better or falling else progress.waited + 1
        progress.lowest = scores.logloss if falling else lowest
        if better or not task.early_stopping:
            progress.best, progress.best_epoch = scores.objective, progress.epoch
            self.best = _copy(self.state.variables)
        stalled = task.early_stopping and progress.waited >= task.config.patience
        progress.epoch, progress.round, progress.sums = progress.epoch + 1, 0, {}
        progress.finished = stalled or task.is_last(facts) or progress.epoch >= task.rounds.epochs
        if stalled:
            say(
                f"[{task.title}] stops: neither AUC nor logloss improved for {progress.waited} "
                f"epochs; keeps {epoch_name(progress.best_epoch)}"
            )
        if progress.finished and task.early_stopping:
            self._compare_losses()

    def _compare_losses(self) -> None:
        """Warns if the best AUC is at the cost of the logloss."""
        progress, history = self.progress, self.progress.history
        kept = next(facts for facts in history if facts["epoch"] == progress.best_epoch)
        least = min(history, key=lambda facts: facts["logloss"])
        if kept["logloss"] > _MUCH * least["logloss"]:
            warn(
                f"[{self.task.title}] keeps {epoch_name(progress.best_epoch)} for its AUC, though "
                f"its validation logloss of {kept['logloss']:.4f} is above the "
                f"{least['logloss']:.4f} of {epoch_name(int(least['epoch']))}"
            )

    def _validate(self) -> tuple[Scores, dict[str, float]]:
        try:
            scores, more = self.task.evaluate(self.state.variables)
        except DivergedError:
            raise self._diverged("validation prediction", float("nan")) from None
        self._require_finite("validation logloss", scores.logloss)
        return scores, more

    def _require_finite(self, what: str, value: float) -> None:
        if not np.isfinite(value):
            raise self._diverged(what, value)

    def _diverged(self, what: str, value: float) -> DivergedError:
        progress = self.progress
        return DivergedError(
            f"The {what} of '{self.task.title}' became {value} in epoch {progress.epoch}, round "
            f"{progress.round}. Checkpoints of earlier rounds stay in {self.task.directory}. "
            "Try a smaller --optimizer.learning-rate, with a new --output."
        )

    def _items(self) -> Items:
        best = {"params": self.best.params, "stats": self.best.stats}
        best = {name: tree for name, tree in best.items() if jax.tree.leaves(tree)}
        state = self.state
        return {"params": state.params, "state": replace(state, params=None), "best": best}

    def due(self, runs: int = 1) -> bool:
        """Whether it is time for a checkpoint of each of `runs` runs."""
        # writing takes at most a twentieth of the time, unless a checkpoint per round is wanted
        least = self.task.config.checkpoint_seconds
        least = max(least, 20 * runs * self._cost) if least else 0.0
        return time.monotonic() - self._saved >= least

    def save(self) -> None:
        """Writes a checkpoint.

        Raises:
          InputError: a parameter is not finite.
        """
        # no loss has shown yet what the last update of the round did
        if not _all_finite(self.state.params):
            raise self._diverged("largest weight", float("inf"))
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now
        self.progress.position = self.iterator.position
        self._checkpoints.save(self._items(), asdict(self.progress))
        self._saved = time.monotonic()
        self._cost = self._saved - now

    def transfer(self, data: Split | None, gate_data: Split | None) -> tuple[Batch, Batch]:
        """Puts the training rows, and the gate rows if there are any, on the devices."""
        assert data is not None
        gate_data = gate_data or Split(data.ids[:0], data.labels[:0])
        return replicate((_batch(data), _batch(gate_data)), self.mesh)

    def _make(self, item: Round) -> tuple[Round, Any]:
        """A round, and its rows on the devices where the round carries them."""
        if item.data is None:
            return item, None
        return item, self.transfer(item.data, item.gate_data)

    def _rows(self, item: Round) -> tuple[Any, Any]:
        if not item.gate_rows.size:
            return shard_rows(item.rows, self.mesh), jnp.zeros((0, 0), jnp.int32)
        return shard_rows(item.rows, self.mesh), shard_rows(item.gate_rows, self.mesh)


def epoch_name(epoch: int) -> str:
    """What an epoch is called: its number, or the start of a training that counts as one."""
    return "the start" if epoch < 0 else f"epoch {epoch}"


def _batch(split: Split) -> Batch:
    return Batch(cast(Any, split.ids), cast(Any, split.labels))


def _copy(tree: Tree) -> Tree:
    """A tree in new arrays, since a round donates those of its state."""
    return jax.tree.map(jnp.copy, tree)


@jax.jit
def _all_finite(tree: Any) -> Array:
    """Whether all numbers of a tree are finite; only one bool leaves the device."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
