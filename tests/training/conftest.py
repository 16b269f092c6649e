from __future__ import annotations

import numpy as np
import pytest

from ihas_jax.config import TrainConfig
from ihas_jax.data.batches import Feed, Rounds
from ihas_jax.data.dataset import Split
from ihas_jax.training.task import Task


@pytest.fixture
def make_task(tiny, tmp_path):
    """A task on 40 rows: 5 batches of 8 in rounds of 2, so 3 rounds an epoch."""
    split = Split(np.asarray(tiny.data.ids), np.asarray(tiny.data.labels))

    def make(round_, evaluate, *, epochs=6, resident=True, gates=False, name="base", **config):
        extra = {}
        if gates:
            feed = Feed(np.arange(40, dtype=np.int32), 8, 2)
            extra = {"gate_split": split, "gate_feed": feed, "gate_every": 2}
        rounds = Rounds(
            split, Feed(np.arange(40, dtype=np.int32), 8, 1), 2, epochs, resident, **extra
        )
        train = TrainConfig(**{"batch_size": 8, "checkpoint_seconds": 3600, "patience": 2} | config)
        return Task(name, tmp_path / name, rounds, round_, evaluate, train)

    return make
