"""What the stages of one run share: config, data, folder, seeds and the event log."""

from __future__ import annotations

import errno
import json
import os
import time
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from ihas_jax.config import ClusterConfig, Config, ModelConfig, TrainConfig
from ihas_jax.data.batches import Feed, Rounds
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.files import nan_to_null
from ihas_jax.models import build_model
from ihas_jax.models.base import Model
from ihas_jax.nn.embedding import Kept
from ihas_jax.processes import is_first
from ihas_jax.selectors.base import Selector
from ihas_jax.selectors.plan import Expert
from ihas_jax.selectors.registry import build_selector
from ihas_jax.selectors.selection import all_coordinates


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
      config: every choice of the run.
      data: the log.
      workdir: the folder of the run.
      searched_by: the click model that another run searched for this one; None where the run
        searches for itself.
      taught: `[n]` float32, what is learnt of the training rows in place of clicks, if anything.
    """

    config: Config
    data: Dataset
    workdir: Path
    searched_by: ModelConfig | None = None
    taught: np.ndarray | None = field(default=None, compare=False, repr=False)

    @cached_property
    def model(self) -> Model:
        """The click model with all coordinates and values."""
        return self.build(self.config.model)

    @cached_property
    def searched_model(self) -> Model:
        """The click model of the search."""
        return self.model if self.searched_by is None else self.build(self.searched_by)

    @cached_property
    def selector(self) -> Selector | None:
        """The selector of the method; None for a run of the click model alone."""
        if self.config.method == "none":
            return None
        return build_selector(self.config, self.searched_model, self.epoch_steps)

    @property
    def start(self) -> str:
        """What retraining starts from: see `Recipe.initial_weights` and `retrain.start`.

        A selection of principal axes means nothing to fresh weights, so it starts from the searched
        model by default.
        """
        if self.selector is None:
            return "fresh"
        own, asked = self.selector.recipe.initial_weights, self.config.retrain.start
        turned = self.config.search.rotate or self.own_axes
        by_default = "searched" if turned and own == "fresh" else own
        return by_default if asked is None or asked == "shared" else asked

    @property
    def shared(self) -> bool:
        """Whether the models of clusters have one table; see `ihas_jax.stages.shared`."""
        return self.config.retrain.start == "shared"

    @property
    def own_axes(self) -> bool:
        """Whether iHAS chooses on the principal axes of each cluster."""
        budget, axes = self.config.budget, self.config.of(ClusterConfig).axes
        return self.config.method == "ihas" and budget is not None and axes == "own"

    def expert_model(self, expert: Expert) -> Model:
        """The compact click model of an expert; see `retrain.carried` for the selection."""
        full, selection = self.model.embedding, expert.selection
        kept = None if selection.kept == all_coordinates(full) else selection.kept
        return self.build(self.config.model, expert.rows, kept, selection.stored_values(full))

    def build(
        self,
        config: ModelConfig,
        rows: np.ndarray | None = None,
        kept: Kept | None = None,
        stored_values: tuple[int, ...] | None = None,
    ) -> Model:
        """A click model for (some of) the training rows."""
        labels = self.data.train.labels if rows is None else self.data.train.labels[rows]
        # a log without a single click (or other row) has no log-odds
        click_rate = float(np.clip(labels.mean(), 1e-4, 1 - 1e-4))
        sizes = self.data.schema.sizes
        return build_model(
            config, sizes, kept=kept, stored_values=stored_values, click_rate=click_rate
        )

    def key(self, name: str) -> Array:
        """The PRNG key of the part of the run called `name`."""
        return jax.random.fold_in(jax.random.key(self.config.seed), zlib.crc32(name.encode()))

    def seed(self, name: str) -> int:
        """The integer seed, for NumPy and scikit-learn, of the part of the run called `name`."""
        return zlib.crc32(f"{name}/{self.config.seed}".encode())

    @property
    def epoch_steps(self) -> int:
        """Batches in an epoch of all training rows."""
        return -(-len(self.data.train.labels) // self.config.train.batch_size)

    def event(self, kind: str, facts: dict[str, Any]) -> None:
        """Appends a line to `log.jsonl`; of several processes the first one does."""
        if not is_first():
            return
        line = json.dumps(nan_to_null({"time": round(time.time(), 3), "event": kind, **facts}))
        with (self.workdir / "log.jsonl").open("ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(f"{line}\n".encode()) <= len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
            except OSError:
                file.truncate(end)
                raise

    @property
    def resident(self) -> bool:
        """Whether the training rows stay on the device."""
        return _fits(self.data.train, self.config.train)

    def rounds(
        self,
        name: str,
        *,
        rows: np.ndarray | None = None,
        epochs: int | None = None,
        gate_every: int = 0,
        gate_rows: np.ndarray | None = None,
    ) -> Rounds:
        """Batches of the given training rows, or of all, and gate batches for a search.

        Gate batches hold the given validation rows, or all.
        """
        train, valid, config = self.data.train, self.data.valid, self.config.train
        if self.taught is not None:
            train = Split(train.ids, self.taught)
        rows = np.arange(len(train.labels), dtype=np.int32) if rows is None else rows
        gates: dict[str, Any] = {}
        if gate_every:
            if gate_rows is None:
                gate_rows = np.arange(len(valid.labels), dtype=np.int32)
            feed = Feed(gate_rows, config.batch_size, self.seed(f"{name}/gates"))
            gates = {"gate_split": valid, "gate_feed": feed, "gate_every": gate_every}
        return Rounds(
            split=train,
            feed=Feed(rows, config.batch_size, self.seed(name), config.block_rows),
            round_batches=config.round_batches,
            epochs=config.max_epochs if epochs is None else epochs,
            resident=self.resident,
            **gates,
        )


def _fits(split: Split, config: TrainConfig) -> bool:
    return split.ids.nbytes + split.labels.nbytes <= config.device_data_gb * 1e9
