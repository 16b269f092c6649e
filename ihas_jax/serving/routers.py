"""The router of a bundle on disk: its kind as JSON, and its arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ihas_jax.data.schema import Schema
from ihas_jax.models.base import EMBEDDING, Model, Variables
from ihas_jax.models.local import hold
from ihas_jax.nn.embedding import init_table
from ihas_jax.selectors.base import Selector
from ihas_jax.selectors.by_value import ScoreRouter, ValueRouter
from ihas_jax.selectors.routing import AnyRouter, Router, router_variables
from ihas_jax.serving.record import Record, RouterKind

_KINDS: dict[type, RouterKind] = {
    Router: "exact",
    ScoreRouter: "compiled",
    ValueRouter: "values",
}


def kind_of(router: AnyRouter | None) -> RouterKind | None:
    """The kind of a router, as the record of a bundle names it."""
    return None if router is None else _KINDS[type(router)]


def arrays_of(router: AnyRouter) -> dict[str, Any]:
    """The arrays of a router, as a checkpoint has them."""
    if isinstance(router, ValueRouter):
        return {"of_value": router.of_value}
    if isinstance(router, ScoreRouter):
        return dataclasses.asdict(router)
    return filled(router.variables) | {"centroids": router.centroids}


def shapes_of(
    record: Record, schema: Schema, source: Model, selector: Selector | None
) -> dict[str, Any] | None:
    """Arrays that have the shapes of those of a router; None where a bundle has none.

    Args:
      record: that of the bundle.
      schema: its vocabularies.
      source: the searched click model.
      selector: the selector of the search, which an exact router needs.
    """
    clusters = len(record.routes)
    if record.grouped_by is not None:
        return {"of_value": np.zeros(schema.sizes[record.grouped_by], np.uint8)}
    if record.router == "compiled":
        scores = np.zeros((clusters - 1, sum(schema.sizes)), np.int16)
        first = np.zeros(len(schema.sizes), np.int32)
        return dataclasses.asdict(ScoreRouter(np.zeros(clusters - 1, np.int32), scores, first))
    if record.router is None or selector is None:
        return None
    key, spec = jax.random.key(0), source.embedding
    variables = router_variables({EMBEDDING: init_table(key, spec)}, selector.init(key))
    return filled(variables) | {"centroids": jnp.zeros((clusters, spec.coordinates))}


def make(
    record: Record,
    arrays: dict[str, Any],
    source: Model,
    selector: Selector | None,
    split: bool | None = None,
) -> AnyRouter | None:
    """The router of a bundle from its arrays; see `shapes_of`, and `hold` for `split`."""
    if record.grouped_by is not None:
        return ValueRouter(record.grouped_by, np.asarray(arrays["of_value"]))
    if record.router == "compiled":
        return ScoreRouter(**jax.tree.map(np.asarray, arrays))
    if record.router is None or selector is None:
        return None
    variables = Variables(arrays["params"], arrays.get("stats", {}))
    variables, centroids = hold((variables, arrays["centroids"]), split)
    return Router(source, selector, variables, centroids)


def filled(variables: Variables) -> dict[str, Any]:
    """The parts of variables that hold arrays, since a checkpoint has no empty parts."""
    return {name: tree for name, tree in variables._asdict().items() if jax.tree.leaves(tree)}
