"""How far a training has come, and how early stopping judges its epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ihas_jax.training.metrics import Scores

_MUCH = 1.03
"""The factor between two loglosses from which on the user should look at both."""
GATE = "gate_"
"""How the names of metrics of gate steps begin."""
STEPS = f"{GATE}steps"
"""The name of the number of gate steps of a round."""


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
      sums: sum of each training metric over the batches of the epoch so far, of each metric of
        gate steps over these, and the number of gate steps.
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

    def begin(self, scores: Scores, facts: dict[str, float]) -> None:
        """Takes the start of the training for a candidate of early stopping."""
        self.best, self.lowest = scores.objective, scores.logloss
        self.history.append(facts)

    def add(self, metrics: Mapping[str, float], batches: int) -> None:
        """Adds the mean metrics of a round of that many batches."""
        for name, value in metrics.items():
            times = metrics[STEPS] if name.startswith(GATE) else batches
            total = value if name == STEPS else times * value
            self.sums[name] = self.sums.get(name, 0.0) + total
        self.round += 1

    def means(self, batches: int) -> dict[str, float]:
        """The mean of each metric over an epoch of that many batches, and over its gate steps."""
        steps, found = self.sums.get(STEPS, 0.0), {}
        for name, total in self.sums.items():
            if not name.startswith(GATE):
                found[name] = total / batches
            elif steps and name != STEPS:
                found[name] = total / steps
        return found

    def close_epoch(self, scores: Scores, facts: dict[str, float], *, keep: bool) -> bool:
        """Counts an epoch, and says whether its parameters are to be kept.

        Note: the wait ends when the logloss improves too. A small MLP on tiny embeddings starts
        with epochs of chance AUC in which only the logloss shows that it is learning.

        Args:
          scores: its scores on validation rows.
          facts: what the history keeps of it.
          keep: whether it is kept even if it is not the best one.
        """
        self.history.append(facts)
        better = self.best is None or scores.objective > self.best
        falling = self.lowest is None or scores.logloss < self.lowest
        self.waited = 0 if better or falling else self.waited + 1
        if falling:
            self.lowest = scores.logloss
        if better or keep:
            self.best, self.best_epoch = scores.objective, self.epoch
        self.epoch, self.round, self.sums = self.epoch + 1, 0, {}
        return better or keep

    def price(self) -> str:
        """What the best AUC costs in logloss, in words, or nothing if that is little."""
        kept = next(facts for facts in self.history if facts["epoch"] == self.best_epoch)
        least = min(self.history, key=lambda facts: facts["logloss"])
        if kept["logloss"] <= _MUCH * least["logloss"]:
            return ""
        return (
            f"keeps {epoch_name(self.best_epoch)} for its AUC, though its validation logloss of "
            f"{kept['logloss']:.4f} is above the {least['logloss']:.4f} of "
            f"{epoch_name(int(least['epoch']))}"
        )


def epoch_name(epoch: int) -> str:
    """What an epoch is called: its number, or the start of a training that counts as one."""
    return "the start" if epoch < 0 else f"epoch {epoch}"
