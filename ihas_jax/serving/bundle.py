"""The bundle: click models, the router to them, and the schema of raw rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ihas_jax.config import Config, ModelConfig
from ihas_jax.data.checks import as_ids
from ihas_jax.data.schema import Schema
from ihas_jax.errors import InputError
from ihas_jax.models.base import Model, Variables
from ihas_jax.models.forward import Transform
from ihas_jax.models.local import on_devices
from ihas_jax.models.predict import Prediction, predictor
from ihas_jax.models.streaming import SIZES
from ihas_jax.nn.embedding import Kept
from ihas_jax.selectors.by_value import ScoreRouter
from ihas_jax.selectors.routing import AnyRouter, Router
from ihas_jax.selectors.usage import Usage

if TYPE_CHECKING:
    from ihas_jax.data.raw.encoder import Encoder


@dataclass(frozen=True, eq=False)
class Served:
    """One model of a bundle.

    Attributes:
      model: the click model.
      variables: the variables of the model.
      parameters: number of parameters that prediction needs, without what a mask removes.
      bytes: size of the parameters, and of the record of which numbers and values are kept.
      transform: the deterministic selection, if a searched model serves; None otherwise.
    """

    model: Model
    variables: Variables
    parameters: int
    bytes: int
    transform: Transform | None = None

    def predict(self, ids: np.ndarray, *, title: str, rows: np.ndarray | None = None) -> Prediction:
        """Predictions of (some of) the rows of ids `[n, N]`."""
        return self.begin(ids, title=title, rows=rows)()

    def begin(
        self, ids: np.ndarray, *, title: str, rows: np.ndarray | None = None
    ) -> Callable[[], Prediction]:
        """Starts to predict (some of) the rows of ids `[n, N]`; the function ends that."""
        program = predictor(self.model, self.transform)
        return program.begin(self._placed, ids, title=title, rows=rows)

    @cached_property
    def _placed(self) -> Variables:
        """The variables, with tables on the host split over the devices."""
        return on_devices(self.variables)


@dataclass(frozen=True, eq=False)
class Bundle:
    """Everything that prediction with the models of a run needs.

    Attributes:
      config: the run's config.
      searched: the click model that was searched, by this run or another one.
      schema: vocabularies of the fields.
      models: the models that serve.
      routes: for each cluster, the index of the model that serves it.
      router: routes a row to its cluster; None for one model without clusters.
      usage: how the training rows use the table of the one model, by which it can be cut; None
        where that was not counted.
    """

    config: Config
    searched: ModelConfig
    schema: Schema
    models: tuple[Served, ...]
    routes: tuple[int, ...] = (0,)
    router: AnyRouter | None = None
    usage: Usage | None = None

    def __repr__(self) -> str:
        """A line, without the vocabularies and weights."""
        models = "one model" if len(self.models) == 1 else f"{len(self.models)} models"
        return (
            f"<Bundle of {models} ({self.config.model.name}, {self.config.method}): "
            f"{len(self.schema.names)} fields, {self.parameters:,} parameters>"
        )

    @property
    def kept(self) -> tuple[Kept | None, ...]:
        """Kept coordinates of each field in each model; None for a model with all of them."""
        return tuple(served.model.embedding.kept for served in self.models)

    @property
    def parameters(self) -> int:
        """Number of parameters that the models need."""
        return sum(served.parameters for served in self.models)

    @property
    def cluster_router(self) -> AnyRouter | None:
        """The router that tells clusters apart; None where there is one, for its gates alone."""
        return self.router if len(self.routes) > 1 else None

    @property
    def serving_router(self) -> AnyRouter | None:
        """The router that rows pass in prediction; None where one model serves all clusters."""
        return self.router if len(self.models) > 1 else None

    @property
    def router_parameters(self) -> int:
        """Number of parameters that only routing needs; 0 where one model serves all rows."""
        return router.parameters if (router := self.serving_router) else 0

    @property
    def bytes(self) -> int:
        """Size of models and router."""
        router = self.serving_router
        return sum(served.bytes for served in self.models) + (router.bytes if router else 0)

    @cached_property
    def encoder(self) -> Encoder:
        """Encodes raw rows, as `predict_proba` takes them, to ids `[n, N]`."""
        from ihas_jax.data.raw.encoder import Encoder  # polars is needed for raw rows only

        return Encoder(self.schema)

    def assign(self, ids: np.ndarray) -> np.ndarray:
        """Cluster `[n]` of each row of ids `[n, N]`, also where one model serves several clusters.

        Raises:
          InputError: as `predict_ids`.
        """
        return self.assign_checked(self.check(ids))

    def assign_checked(self, ids: np.ndarray, title: str = "[predict] router") -> np.ndarray:
        """Cluster `[n]` of each row of ids `[n, N]`, which are not checked."""
        router = self.cluster_router
        if not len(ids) or router is None:
            return np.zeros(len(ids), np.int32)
        return router.assign(ids, title=title)

    def masks(self, ids: np.ndarray) -> np.ndarray:
        """Open gates `[n, K]` of each row of ids `[n, N]`, int8; K = N * D, field by field.

        Raises:
          InputError: as `predict_ids`; or the bundle has no gates per row.
        """
        if not isinstance(self.router, Router):
            why = (
                "a compiled router needs none"
                if isinstance(self.router, ScoreRouter)
                else (f"the method {self.config.method} has none per row")
            )
            raise InputError(f"The bundle has no gates, since {why}.")
        ids = self.check(ids)
        if not len(ids):
            return np.zeros((0, self.router.model.embedding.coordinates), np.int8)
        return self.router.masks(ids, title="[predict] gates")

    def predict_ids(self, ids: np.ndarray) -> np.ndarray:
        """Click probabilities `[n]` for ids `[n, N]`, each row by the model of its cluster.

        Where one model serves all clusters, no row is routed.

        Args:
          ids: integers of any dtype, local to each field and by the bundle's own schema.

        Raises:
          InputError: the ids are not integers `[n, N]`, or one is out of range for its field; the
            message names the row and the field.
        """
        ids = self.check(ids)
        return self.predict_assigned(ids, self.serving_clusters(ids))

    def serving_clusters(self, ids: np.ndarray, title: str = "[predict] router") -> np.ndarray:
        """Cluster `[n]` by which each row of ids is served, which are not checked.

        It is 0 for all rows where one model serves them all.
        """
        if self.serving_router is None:
            return np.zeros(len(ids), np.int32)
        return self.assign_checked(ids, title)

    def predict_assigned(
        self, ids: np.ndarray, clusters: np.ndarray, title: str = "[predict] rows"
    ) -> np.ndarray:
        """Click probabilities `[n]` of rows in their order, each by the model of its cluster.

        Args:
          ids: `[n, N]`, which are not checked.
          clusters: `[n]` cluster of each row.
          title: title of the progress bar.
        """
        probs = np.empty(len(ids), np.float32)
        serving = np.array(self.routes)[clusters]
        begun = []  # all models compute at once
        for index, served in enumerate(self.models):
            rows = np.flatnonzero(serving == index)
            if len(rows):
                chosen = None if len(rows) == len(ids) else rows
                begun.append((rows, served.begin(ids, title=title, rows=chosen)))
        for rows, finish in begun:
            probs[rows] = finish().probs
        return probs

    def predict_proba(self, rows: Any) -> np.ndarray:
        """Click probabilities `[n]` for raw rows.

        An `OtherShareWarning` says if far more values of a field are unknown than in the log from
        which the vocabularies were counted.

        Args:
          rows: a data frame of Polars (also lazy), pandas or PyArrow, a mapping of columns by name,
            one row as a mapping of scalars, or a list of such rows.

        Raises:
          InputError: as `ihas_jax.data.raw.encoder.Encoder`.
        """
        return self.predict_ids(self.encoder(rows))

    def warm_up(self) -> None:
        """Compiles all programs of prediction, so that none is compiled later.

        A service calls this before its first request. There are five programs for each model and
        for an exact router, whatever the numbers of rows.
        """
        for rows in SIZES:
            ids = np.zeros((rows, len(self.schema.names)), np.int32)
            self.serving_clusters(ids, "[predict] warm-up")
            for served in self.models:
                served.predict(ids, title="[predict] warm-up")

    def check(self, ids: np.ndarray) -> np.ndarray:
        """Ids `[n, N]` of any integer dtype, as models take them.

        Raises:
          InputError: as `predict_ids`.
        """
        return as_ids(ids, self.schema.sizes, self.schema.names)
