"""The training loop of every stage: rounds, validation, early stopping, checkpoints, resume."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.data.batches import Round, RoundIterator
from ihas_jax.data.dataset import Split
from ihas_jax.models.placing import copied, place, whole
from ihas_jax.processes import agreed
from ihas_jax.progress import Tracker, say, track, warn
from ihas_jax.training.checkpoint import Checkpoints, Items
from ihas_jax.training.dealing import deal_rows, dealt_numbers, part_of
from ihas_jax.training.layout import compile_round, compile_settle, say_split, training_mesh
from ihas_jax.training.metrics import DivergedError, Scores
from ihas_jax.training.parallel import computing_on, replicate, shard_rows
from ihas_jax.training.steps import Batch, TrainState
from ihas_jax.training.stopping import Progress, epoch_name
from ihas_jax.training.task import Event, Task, Trained


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
        self.mesh = training_mesh(task.config, state)
        say_split(task.title, self.mesh, state)
        self._shapes = jax.tree.map(jax.typeof, state)
        self.state: Any = place(state, self.mesh)
        self.best = copied(self.state.variables)
        self.progress = Progress()
        self._clock = self._saved = time.monotonic()
        self._cost = 0.0
        self._resume()
        rounds = task.rounds
        if not rounds.resident:
            rounds = replace(rounds, shard=part_of(self.mesh))
        self.iterator = RoundIterator(rounds, self._make)
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
        constants = copied(self.state.constants)
        self.best = self.best._replace(constants=constants, **items["best"])
        self.progress = Progress(**facts)
        if not self.progress.finished:
            place = {"epoch": self.progress.epoch, "round": self.progress.round}
            say(f"[{self.task.title}] resumes at epoch {place['epoch']}, round {place['round']}")
            self.event("resume", {"stage": self.task.name, **place})

    def trained(self) -> Trained:
        """The result so far, with tables that devices split on the host."""
        best = whole(self.best, self._shapes.variables)
        state = whole(self.state, self._shapes)
        return Trained(best, state, self.progress.history, self.progress.seconds)

    def begin(self) -> None:
        """Scores the start of a training if it counts, once."""
        if self.task.start_counts and not self.progress.history:
            scores, more = self._validate()
            facts = {"epoch": -1, **scores.facts, **more}
            self.progress.begin(scores, facts)
            self.event("epoch", {"stage": self.task.name, **facts})
            say(f"[{self.task.title}] start - [Metrics] {scores}")

    def train(self) -> None:
        """Trains rounds and epochs until the task is finished."""
        self.begin()
        rounds, progress = self.task.rounds, self.progress
        round_ = compile_round(self.task.round_, self.state, self.mesh)
        settle = compile_settle(self.state, self.mesh)
        resident = self.transfer(rounds.split, rounds.gate_split) if rounds.resident else None
        while not progress.finished:
            with self.track() as bar:
                while progress.round < rounds.per_epoch:
                    item, transferred = next(self.iterator)
                    data, gate_data = resident or transferred
                    rows, gate_rows = self._rows(item)
                    with computing_on(self.mesh):
                        self.state, metrics = round_(
                            self.state, data, rows, gate_data, gate_rows, np.int32(item.batches)
                        )
                    self.count(jax.device_get(metrics), item.batches)
                    bar.advance(item.batches * self.task.config.batch_size)
                    if progress.round < rounds.per_epoch and self.due():
                        self.save()
            self.state = settle(self.state)
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
        values = {name: float(value) for name, value in metrics.items()}
        self._require_finite("loss", values["loss"])
        self.progress.add(values, batches)

    def close_epoch(self) -> None:
        """Validates, keeps the parameters of the best AUC, and decides whether to stop."""
        task, progress = self.task, self.progress
        scores, more = self._validate()
        batches = task.rounds.feed.batches_per_epoch
        means = progress.means(batches)
        facts = {"epoch": progress.epoch, **means, **scores.facts, **more}
        self.event("epoch", {"stage": task.name, **facts})
        losses = " - ".join(f"{name}: {_digits(value)}" for name, value in means.items())
        say(f"[{task.title}] epoch {progress.epoch} - {losses} - [Metrics] {scores}")
        if progress.close_epoch(scores, facts, keep=not task.early_stopping):
            self.best = copied(self.state.variables)
        stalled = task.early_stopping and progress.waited >= task.config.patience
        progress.finished = stalled or task.is_last(facts) or progress.epoch >= task.rounds.epochs
        if stalled:
            say(
                f"[{task.title}] stops: neither AUC nor logloss improved for {progress.waited} "
                f"epochs; keeps {epoch_name(progress.best_epoch)}"
            )
        if progress.finished and task.early_stopping and (price := progress.price()):
            warn(f"[{task.title}] {price}")

    def _validate(self) -> tuple[Scores, dict[str, float]]:
        try:
            scores, more = self.task.evaluate(self.state.variables)
        except DivergedError:
            raise self._diverged("validation prediction", float("nan")) from None
        self._require_finite("validation logloss", scores.logloss)
        return agreed(lambda: (scores, more))  # machines may differ in their last bits

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
        return agreed(lambda: time.monotonic() - self._saved >= least)

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
        """Puts the training rows, and the gate rows if there are any, on all devices."""
        assert data is not None
        gate_data = gate_data or Split(data.ids[:0], data.labels[:0])
        return replicate((_batch(data), _batch(gate_data)), self.mesh)

    def _make(self, item: Round) -> tuple[Round, Any]:
        """A round, and its rows on the devices where the round carries them."""
        if item.data is None:
            return item, None
        if self.mesh.size == 1:
            return item, self.transfer(item.data, item.gate_data)
        gate_data = item.gate_data and deal_rows(item.gate_data, len(item.gate_rows), self.mesh)
        return item, (deal_rows(item.data, len(item.rows), self.mesh), gate_data)

    def _rows(self, item: Round) -> tuple[Any, Any]:
        """The row numbers of a round on the devices."""
        numbers: Sequence[np.ndarray] = (item.rows, item.gate_rows)
        if item.data is not None and self.mesh.size > 1:
            size = self.task.config.batch_size
            numbers = [dealt_numbers(len(part), size, self.mesh) for part in numbers]
        rows, gate_rows = (shard_rows(p, self.mesh) if p.size else p for p in numbers)
        return rows, gate_rows


def _digits(value: float) -> str:
    """A metric to four digits after the point, and a small one, such as a penalty, to three."""
    return f"{value:.4f}" if abs(value) >= 0.01 or not value else f"{value:.3g}"


def _batch(split: Split) -> Batch:
    return Batch(cast(Any, split.ids), cast(Any, split.labels))


@jax.jit
def _all_finite(tree: Any) -> Array:
    """Whether all numbers of a tree are finite; only one bool leaves the device."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
