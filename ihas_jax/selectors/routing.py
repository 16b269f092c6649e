"""The router: masked embeddings of a row, and the cluster whose centroid is nearest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.errors import InputError
from ihas_jax.models.base import EMBEDDING, SELECTOR, Model, Variables, count_parameters
from ihas_jax.models.forward import Transformed, embed
from ihas_jax.models.local import on_devices
from ihas_jax.models.streaming import Streamed
from ihas_jax.selectors.base import Selecting, Selector, Weights, weights_of
from ihas_jax.selectors.by_value import ScoreRouter, ValueRouter


def masked_embeddings(
    model: Model, selector: Selector, variables: Variables, ids: Array, *, by_field: bool = False
) -> Transformed:
    """The deterministic selection for ids `[B, N]`; `by_field` as in `lookup`."""
    made = embed(model, variables, ids, Selecting(selector), by_field=by_field)[1]
    assert made is not None
    return made


def assign_clusters(points: Array, centroids: Array) -> Array:
    """Index of the nearest centroid, `[B, K]` and `[C, K]` -> `[B]` int32.

    The distance is Euclidean; of equally near centroids the first is taken.

    Raises:
      InputError: the shapes differ from these or, outside of `jit`, a number is nan.
    """
    if np.ndim(points) != 2 or np.ndim(centroids) != 2 or points.shape[1] != centroids.shape[1]:
        raise InputError(
            f"Points {list(np.shape(points))} can't be assigned to centroids "
            f"{list(np.shape(centroids))}; [B, K] and [C, K] are needed."
        )
    for what, numbers in (("point", points), ("centroid", centroids)):
        if not isinstance(numbers, jax.core.Tracer) and np.isnan(numbers).any():
            row = int(np.isnan(numbers).any(axis=1).argmax())
            raise InputError(f"The {what} in row {row} has a nan, so no centroid is its nearest.")
    distances = (centroids**2).sum(axis=1) - 2 * points @ centroids.T
    return jnp.argmin(distances, axis=1).astype(jnp.int32)


@dataclass(frozen=True, eq=False)
class Router:
    """Routes a row to its cluster.

    Attributes:
      model: the searched click model.
      selector: the searched gates.
      variables: the embedding table and the gates, without the rest of the model.
      centroids: `[C, K]` float32.
    """

    model: Model
    selector: Selector
    variables: Variables
    centroids: np.ndarray

    @property
    def parameters(self) -> int:
        """Number of parameters that routing needs."""
        return count_parameters((self.variables.params, self.centroids))

    @property
    def bytes(self) -> int:
        """Size of what routing needs."""
        return 4 * self.parameters

    def assign(self, ids: np.ndarray, *, title: str) -> np.ndarray:
        """Cluster `[n]` of each row of ids `[n, N]`."""
        return _assign(self.model, self.selector)(self._placed, ids, title=title)

    def masks(self, ids: np.ndarray, *, title: str) -> np.ndarray:
        """Open gates `[n, K]` of each row of ids `[n, N]`, int8."""
        return _masks(self.model, self.selector)(self._placed[0], ids, title=title)

    @cached_property
    def _placed(self) -> tuple[Variables, Any]:
        """Variables and centroids, with tables on the host split over the devices."""
        return on_devices((self.variables, self.centroids))


AnyRouter = Router | ScoreRouter | ValueRouter


def make_router(
    model: Model, selector: Selector, variables: Variables, centroids: np.ndarray
) -> Router:
    """The router of a searched model; it needs only the embedding table and the gates."""
    tables = {EMBEDDING: variables.params["tables"][EMBEDDING]}
    return Router(model, selector, router_variables(tables, weights_of(variables)), centroids)


def router_variables(tables: dict[str, Any], weights: Weights) -> Variables:
    """The variables of a router: tables, and what a selector has of gates and statistics."""
    gates = {SELECTOR: weights.gates} if weights.gates else {}
    stats = {SELECTOR: weights.stats} if weights.stats else {}
    return Variables({"tables": tables, **gates}, stats)


@lru_cache(maxsize=8)
def _assign(model: Model, selector: Selector) -> Streamed:
    def assign(inputs: tuple[Variables, Array], ids: Array) -> Array:
        variables, centroids = inputs
        points = masked_embeddings(model, selector, variables, ids, by_field=True).vectors
        return assign_clusters(points.reshape(len(ids), -1), centroids)

    return Streamed(assign)


@lru_cache(maxsize=8)
def _masks(model: Model, selector: Selector) -> Streamed:
    def masks(variables: Variables, ids: Array) -> Array | None:
        found = masked_embeddings(model, selector, variables, ids, by_field=True).masks
        return None if found is None else found.astype(jnp.int8)

    return Streamed(masks)
