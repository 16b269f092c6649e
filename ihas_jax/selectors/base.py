"""What a selection method is to the search loop."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from jax import Array

SelectorParams = dict[str, Any]


class Selected(NamedTuple):
    """Result of a deterministic selection.

    Attributes:
      embeddings: `[B, N, D]` after selection.
      masks: `[B, K]` of 0 and 1.
      probs: `[B, K]` probabilities behind the masks.
      thresholds: `[B]` thresholds applied to them.
    """

    embeddings: Array
    masks: Array
    probs: Array
    thresholds: Array


class Selector(Protocol):
    """A transform of embeddings `[B, N, D]`, learnt on validation batches."""

    def init(self, key: Array) -> SelectorParams:
        """Fresh parameters."""

    def sample(
        self, params: SelectorParams, embeddings: Array, key: Array, first_row: Array | int
    ) -> tuple[Array, Array]:
        """Training: embeddings `[B, N, D]` after a stochastic selection, and the penalty `[]`."""

    def select(self, params: SelectorParams, embeddings: Array) -> Selected:
        """Evaluation: the deterministic selection."""
