"""How the benchmark measures: settings, turns, rows of its table.

Two sides of a comparison take turns in one process, on the same ids, batch and threads, and a
figure is the median over the turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

import jax
import jax.numpy as jnp

import ihas_jax as ihas
from ihas_jax.data.dataset import Split

HAS_TORCH = find_spec("torch") is not None and jax.default_backend() == "cpu"
"""Whether torch is measured too: the extra `bench` is installed and both would run on the CPU."""

TorchKind = Literal["adam", "fused", "sparse"]
Side = Callable[[], float]
"""Runs one turn and returns its seconds per step (or whatever the unit is)."""


@dataclass(frozen=True)
class Settings:
    """The size and the number of measurements."""

    batch_size: int = 2048
    """The number of rows in a batch."""
    steps: int = 20
    """The number of steps in a turn of ihas_jax, which is one round."""
    turns: int = 7
    """The number of turns of each side, whose median counts."""
    shrink: int = 1
    """A divisor of the numbers of values, for a quick look."""


@dataclass
class Row:
    """One row of the table.

    Attributes:
      measure: what was measured.
      unit: of `values`.
      values: median of each side.
      goals: for a side the ratio to our first side that is wanted.
      ours: the side that the ratios divide by.
      facts: anything else worth keeping.
      about: lines on hardware, versions and command.
    """

    measure: str
    unit: str
    values: dict[str, float]
    goals: dict[str, float] = field(default_factory=dict)
    ours: str = "rowwise"
    facts: dict[str, Any] = field(default_factory=dict)
    about: list[str] = field(default_factory=list)

    @property
    def ratios(self) -> dict[str, float]:
        """The time of every other side as a multiple of ours; none where sides are parts."""
        if not self.ours:
            return {}
        ours = self.values[self.ours]
        return {name: value / ours for name, value in self.values.items() if name != self.ours}


def timed(
    step: Callable[..., tuple[Any, Any]], state: Any, arguments: Sequence[Any], settings: Settings
) -> Side:
    """A side whose turn is one call of a round of `settings.steps` steps.

    Args:
      step: takes the state and the arguments; returns the next state and metrics.
      state: the state of the first turn; each turn hands the next one on.
      arguments: what every call gets besides.
      settings: says how many steps a call has.

    Returns:
      What runs a turn and returns its seconds per step, until the results are there.
    """

    def turn() -> float:
        nonlocal state
        start = time.perf_counter()
        state, metrics = step(state, *arguments)
        jax.block_until_ready((state, metrics))
        return (time.perf_counter() - start) / settings.steps

    return turn


def torch_threads() -> int:
    """Threads that torch computes with; ours take all cores."""
    import torch

    return torch.get_num_threads()


def milliseconds(seconds: dict[str, float]) -> dict[str, float]:
    """Values in seconds as milliseconds."""
    return {name: 1e3 * value for name, value in seconds.items()}


def resident(data: Split, settings: Settings) -> tuple[ihas.Batch, jax.Array]:
    """Rows on the device, and the row numbers `[R, B]` of a round over them."""
    rows = jnp.arange(settings.steps * settings.batch_size, dtype=jnp.int32)
    batches = ihas.Batch(jnp.asarray(data.ids), jnp.asarray(data.labels))
    return batches, rows.reshape(settings.steps, settings.batch_size)
