"""Trials of the methods of Table 2 on validation rows, before their seeds are run."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from compare import validation_score

from ihas_jax.config import Config
from ihas_jax.data.dataset import Dataset
from ihas_jax.flags import replaced
from ihas_jax.pipeline.idle import for_method

_SHARED: dict[str, tuple[Any, ...]] = {
    "optimizer.learning_rate": (3e-4, 1e-3, 3e-3),
    "optimizer.l2": (0.0, 1e-6, 1e-5, 1e-4),
}
_KEPT = (0.125, 0.25, 0.5)
"""The shares of the table, or of its size, that a baseline may keep."""
_SPACES: dict[str, dict[str, tuple[Any, ...]]] = {
    "none": {},
    "pep": {"pep.kept": (0.2, 0.4, 0.6, 0.8, 0.9), "pep.epochs": (10, 20, 40)},
    "autofield": {"autofield.weights": ("softmax", "gumbel"), "search.gate_every": (2, 5, 10)},
    "optembed": {"optembed.reach": (0.3, 1.0, 3.0), "optembed.weight": (1e-4, 1e-3, 1e-2)},
    "adafs_soft": {"adafs.relu": (True, False), "search.gate_every": (2, 5, 10)},
    "adafs_hard": {"adafs.relu": (True, False), "search.gate_every": (2, 5, 10)},
    "optfs": {
        "optfs.epochs": (5, 10, 15),
        "optfs.temperature": (200.0, 1000.0, 5000.0),
        "optfs.weight": (1e-3, 1e-2, 1e-1),
    },
    "autodim": {"autodim.dims": ((2, 4, 8, 16), (4, 8, 16), (8, 16))},
    "autoemb": {
        "autoemb.hidden": (16, 32, 64),
        "search.gate_optimizer.learning_rate": (1e-4, 1e-3, 1e-2),
    },
    "sseds": {"sseds.kept": (0.1, 0.25, 0.5, 0.75, 0.9)},
    "dimreg": {"dimreg.weight": (0.01, 0.1, 1.0), "dimreg.l1_ratio": (0.5, 1.0, 1.7)},
    "mixed": {"mixed.alpha": (0.1, 0.2, 0.3, 0.5), "mixed.kept": _KEPT},
    "spectral": {"spectral.cut": ("numbers", "axes"), "spectral.kept": _KEPT},
    "magnitude": {"magnitude.structured": (False, True), "magnitude.kept": _KEPT},
    "random": {"random.kept": _KEPT},
    "ihas": {
        "gates.l0_weight": (0.4, 0.8, 1.0, 1.2),
        "gates.weight": (1e-4, 1e-3, 1e-2),
        "retrain.start": (None, "tables"),
    },
}
"""The values that a method may try, in addition to those that all share."""
_FIELDS: dict[str, str] = {"autofield": "autofield.fields", "adafs_hard": "adafs.fields"}
_FIELD_SHARES = (0.25, 0.5, 0.75)
"""The numbers of fields that such a method may keep, as shares of all fields."""
_DRAWS = 50
"""Draws for each wanted config, of which those of a config that was drawn before do not count."""
_SEED = 10_000
"""A seed that the table does not use."""


def best_of(default: Config, data: Dataset, folder: Path, count: int) -> Config:
    """The best on validation rows of the default config and `count` - 1 other random configs.

    Args:
      default: the config of the method without trials.
      data: the log.
      folder: the folder of the trials.
      count: number of configs; with fewer than two there are no trials, and with more
        than the method's values make, all of these are tried.
    """
    fields = len(data.schema.names)
    trials = {default: folder / f"{default.method}_0"}
    for i in range(1, _DRAWS * count):
        if len(trials) < count:
            trials.setdefault(drawn(default, fields, i), folder / f"{default.method}_{i}")
    if len(trials) == 1:
        return default
    found = [
        validation_score(dataclasses.replace(trial, seed=_SEED), data, place)
        for trial, place in trials.items()
    ]
    return [*trials][int(np.argmax(found))]


def drawn(config: Config, fields: int, trial: int) -> Config:
    """A config with values drawn from those that its method may try on a log with some fields.

    Options without an effect, such as how much to keep under a budget, have their defaults.
    """
    rng = np.random.Generator(np.random.Philox(key=[trial, zlib.crc32(config.method.encode())]))
    space = _SHARED | _SPACES.get(config.method, {})
    if config.method in _FIELDS:
        space[_FIELDS[config.method]] = tuple(round(share * fields) for share in _FIELD_SHARES)
    if config.method == "uniform":
        sizes = (round(share * config.model.dim) for share in _KEPT)
        space["uniform.dim"] = tuple(max(1, size) for size in sizes)
    for flag, values in space.items():
        config = replaced(config, flag, values[rng.integers(len(values))])
    return for_method(config)
