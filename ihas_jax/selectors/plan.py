"""The plan that a method makes of a search: the models to retrain, and the rows of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models.base import Model, Variables
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors.by_value import ScoreRouter, ValueRouter
from ihas_jax.selectors.selection import Selection

ENTRIES = (
    *("base", "search", "teacher", "student", "clusters", "selection", "gates"),
    *("gain", "microseconds", "method", "models", "seconds"),
)
"""The entries of metrics.json beside that of the method and the facts of its plan."""


class SearchResult(NamedTuple):
    """A searched model, and the rows to choose by.

    Attributes:
      model: the searched click model.
      variables: the variables of model and selector.
      train: training rows.
      valid: validation rows.
      key: PRNG key.
      seed: seed of scikit-learn and NumPy.
      budget: how many numbers of the searched table all models of the plan may keep together; None
        where the options of the method decide.
      shared: whether all clusters are to have the table of one model of all rows.
    """

    model: Model
    variables: Variables
    train: Split
    valid: Split
    key: Array
    seed: int
    budget: int | None = None
    shared: bool = False


@dataclass(frozen=True, eq=False)
class Expert:
    """One model to retrain: what it keeps, and the rows that it is trained on.

    Attributes:
      selection: what the model keeps of the searched embedding table.
      name: 'cluster_0', 'cluster_1', ..., or 'all' for the model of all rows next to those
        of clusters; empty for the only model of a plan without clusters.
      rows: training rows, `[n]` int32; None for all.
      valid_rows: validation rows, `[m]` int32; None for all.
      axes: the axes that the searched model is turned to before the selection, in float32; None
        for its own coordinates.
    """

    selection: Selection
    name: str = ""
    rows: np.ndarray | None = None
    valid_rows: np.ndarray | None = None
    axes: Axes | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """The models to retrain, and which of them serves a row.

    In a plan without experts the searched model serves all rows. A selection for all rows is a
    plan of one expert. Clusters are a plan with centroids or a router.

    Attributes:
      experts: the models to retrain.
      routes: index of the expert that serves each cluster.
      reasons: for each cluster, why the model of all rows serves it, or None.
      centroids: `[C, K]` float32, in the space of masked embeddings; None without clusters of them.
      shares: share of the training rows in each cluster.
      facts: what to report of the choice, JSON-ready; entries of metrics.json.
      shared: whether all experts have the table of the first one.
      router: routes rows by their values; None without clusters, or where a row belongs to the
        nearest centroid.
    """

    experts: tuple[Expert, ...]
    routes: tuple[int, ...] = (0,)
    reasons: tuple[str | None, ...] = (None,)
    centroids: np.ndarray | None = None
    shares: tuple[float, ...] = (1.0,)
    facts: Mapping[str, Any] = field(default_factory=dict)
    shared: bool = False
    router: ScoreRouter | ValueRouter | None = None

    def __post_init__(self) -> None:
        """Raises: InputError: a fact has the name of another entry of metrics.json."""
        if taken := [name for name in ENTRIES if name in self.facts]:
            raise InputError(
                f"Plan.facts can't have the entry {taken[0]!r}, which metrics.json has for every "
                "method; choose another name."
            )

    @property
    def clustered(self) -> bool:
        """Whether rows are routed to clusters."""
        return self.centroids is not None or self.router is not None

    @property
    def tables(self) -> tuple[Expert, ...]:
        """The experts that have a table of their own."""
        return self.experts[:1] if self.shared else self.experts

    def parameters(self, spec: EmbeddingSpec) -> int:
        """Numbers of a table that all experts keep together; `spec` is the searched table."""
        return sum(expert.selection.parameters(spec) for expert in self.tables)


def single(selection: Selection) -> Plan:
    """The plan of one model for all rows."""
    return Plan((Expert(selection),))


SERVE_SEARCHED = Plan(())
"""The plan of methods whose searched model is the outcome."""
