"""The gates of a search: how far they have moved, and whether masks differ from row to row."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import Array

from ihas_jax.models.base import Variables
from ihas_jax.models.forward import embed
from ihas_jax.models.streaming import Streamed
from ihas_jax.selectors.base import Selecting
from ihas_jax.stages.base import require_selector
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns

_SHOWN_ROWS = 1000


def show_gates(run: Run, search: SearchRuns) -> dict[str, np.ndarray]:
    """Gate probabilities and thresholds of the first test rows, at most 1000, for figures.

    Returns:
      `probs` `[S, K]` and `thresholds` `[S]`, or nothing where the selector has no gates per row.
    """
    model, transform = run.searched_model, Selecting(require_selector(run))

    def batch(variables: Variables, ids: Array) -> Any:
        made = embed(model, variables, ids, transform)[1]
        return {} if made is None else dict(made.shown)

    rows = run.data.test.ids[:_SHOWN_ROWS]
    return Streamed(batch)(search.variables, rows, title="[evaluate] sample")


def gate_facts(run: Run, search: SearchRuns, shown: dict[str, np.ndarray]) -> dict[str, Any]:
    """What a searched model shows of its gates, as JSON; nothing where other batches move them.

    Args:
      run: the run.
      search: its search.
      shown: the result of `show_gates`; empty where the method has no gates per row.

    Returns:
      `gate_updates`, how often the gates were moved, and of gates per row what `describe` says.
    """
    if require_selector(run).recipe.gate_batches != "validation":
        return {}
    steps = len(search.searched.history) * run.epoch_steps
    return {
        "gate_updates": steps // run.config.search.gate_every,
        **(describe(**shown) if shown else {}),
    }


def describe(probs: np.ndarray, thresholds: np.ndarray) -> dict[str, float]:
    """How gates differ from even odds, and masks from row to row.

    Args:
      probs: `[S, K]` probabilities of open gates.
      thresholds: `[S]` those above which a gate is open.

    Returns:
      `from_half`, the mean distance of a probability from 1/2, where fresh gates are; and
      `differ`, the share of the coordinates that one row keeps and another one does not, a mean
      over pairs of rows: that of 2 m (1 - m), where the share m of the rows keeps a coordinate.
    """
    kept = (probs > thresholds[:, None]).mean(axis=0)
    return {
        "from_half": float(np.abs(probs - 0.5).mean()),
        "differ": float((2 * kept * (1 - kept)).mean()),
    }
