"""What the stages of one run share: config, data, folder, seeds and the event log."""

from __future__ import annotations

import errno
import json
import os
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from ihas_jax.config import Config, TrainConfig
from ihas_jax.data.batches import Feed, Rounds
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.files import nan_to_null, read_json, write_json
from ihas_jax.models import build_model
from ihas_jax.models.base import Model
from ihas_jax.nn.embedding import Kept

_SECONDS = "stages.json"


@dataclass(frozen=True)
class Run:
    """One run: its config, its data, its folder."""

    config: Config
    data: Dataset
    workdir: Path

    def key(self, name: str) -> Array:
        """The PRNG key of the part of the run called `name`."""
        return jax.random.fold_in(jax.random.key(self.config.seed), zlib.crc32(name.encode()))

    def seed(self, name: str) -> int:
        """An integer seed for NumPy and scikit-learn, from the same two things as `key`."""
        return zlib.crc32(f"{name}/{self.config.seed}".encode())

    def model(
        self,
        kept: Kept | None = None,
        rows: np.ndarray | None = None,
        held: tuple[int, ...] | None = None,
    ) -> Model:
        """The click model for (some of) the training rows; `kept` and `held` as `build_model`'s."""
        labels = self.data.train.labels if rows is None else self.data.train.labels[rows]
        # a log without a single click (or other row) has no log-odds
        click_rate = float(np.clip(labels.mean(), 1e-4, 1 - 1e-4))
        sizes = self.data.schema.sizes
        return build_model(self.config.model, sizes, kept=kept, held=held, click_rate=click_rate)

    @property
    def epoch_steps(self) -> int:
        """Batches in an epoch of all training rows."""
        return -(-len(self.data.train.labels) // self.config.train.batch_size)

    def event(self, kind: str, facts: dict[str, Any]) -> None:
        """Appends a line to `log.jsonl`."""
        line = json.dumps(nan_to_null({"time": round(time.time(), 3), "event": kind, **facts}))
        with (self.workdir / "log.jsonl").open("ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(f"{line}\n".encode()) <= len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
            except OSError:
                file.truncate(end)
                raise

    def rounds(
        self,
        name: str,
        *,
        rows: np.ndarray | None = None,
        epochs: int | None = None,
        gate_every: int = 0,
        gate_rows: np.ndarray | None = None,
    ) -> Rounds:
        """Training batches, of the given training rows only; with gate batches for a search.

        Those are of the given validation rows, or of all.
        """
        train, valid, config = self.data.train, self.data.valid, self.config.train
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
            resident=_fits(train, config),
            **gates,
        )


def _fits(split: Split, config: TrainConfig) -> bool:
    return split.ids.nbytes + split.labels.nbytes <= config.device_data_gb * 1e9


def read_seconds(run: Run) -> dict[str, float]:
    """Seconds of each finished stage of a run."""
    path = run.workdir / _SECONDS
    return read_json(path) if path.exists() else {}


def write_seconds(run: Run, seconds: dict[str, float]) -> None:
    """Records the finished stages of a run."""
    write_json(run.workdir / _SECONDS, seconds)
