"""What prediction with a bundle calculates, as pure functions of weights and rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.errors import InputError
from ihas_jax.models.forward import predict
from ihas_jax.selectors.by_value import ScoreRouter, ValueRouter
from ihas_jax.selectors.routing import AnyRouter, assign_clusters, masked_embeddings
from ihas_jax.serving.bundle import Bundle, Served


class Program(NamedTuple):
    """A function and its weights.

    Attributes:
      function: `function(arrays, ids [B, N] int32) -> tree of arrays [B]`.
      arrays: the weights.
    """

    function: Callable[[Any, Array], Any]
    arrays: Any


def of_model(served: Served) -> Program:
    """Click probabilities `[B]` float32 of one model."""
    return Program(
        lambda variables, ids: predict(served.model, variables, ids, served.transform),
        served.variables,
    )


def of_router(router: AnyRouter | None) -> Program:
    """Clusters `[B]` int32; 0 where there is no router."""
    if router is None:
        return Program(lambda nothing, ids: jnp.zeros(ids.shape[:1], jnp.int32), ())
    if isinstance(router, ValueRouter):
        field = router.field
        return Program(
            lambda of_value, ids: of_value[ids[:, field]].astype(jnp.int32),
            jnp.asarray(router.of_value),
        )
    if isinstance(router, ScoreRouter):
        # a row of the table holds the scores of a value, so that each value is looked up once
        arrays = np.ascontiguousarray(router.scores.T), router.first, router.bias
        return Program(_best_score, jax.tree.map(jnp.asarray, arrays))
    model, selector = router.model, router.selector

    def nearest(arrays: Any, ids: Array) -> Array:
        variables, centroids = arrays
        points = masked_embeddings(model, selector, variables, ids).vectors
        return assign_clusters(points.reshape(points.shape[0], -1), centroids)

    return Program(nearest, (router.variables, jnp.asarray(router.centroids)))


def _best_score(arrays: Any, ids: Array) -> Array:
    scores, first, bias = arrays
    sums = scores[ids + first].astype(jnp.int32).sum(axis=1) + bias
    return jnp.argmax(jnp.pad(sums, ((0, 0), (1, 0))), axis=1).astype(jnp.int32)


def of_bundle(bundle: Bundle) -> Program:
    """The probability and the cluster of each row: all models answer, and one answer counts."""
    models = [of_model(served) for served in bundle.models]
    router = of_router(bundle.cluster_router)
    routes = np.array(bundle.routes, np.int32)

    def answer(arrays: Any, ids: Array) -> dict[str, Array]:
        of_models, of_clusters = arrays
        cluster = router.function(of_clusters, ids)
        probs = [model.function(own, ids) for model, own in zip(models, of_models, strict=True)]
        serving, chosen = jnp.asarray(routes)[cluster], probs[0]
        for index, own in enumerate(probs[1:], 1):
            chosen = jnp.where(serving == index, own, chosen)
        return {"probability": chosen, "cluster": cluster}

    return Program(answer, ([model.arrays for model in models], router.arrays))


def untraced(error: TypeError) -> Exception:
    """The error to raise where a trace for any number of rows fails."""
    if "DimExpr" not in str(error):
        return error
    return InputError(
        "The model can't be traced for any number of rows, since it asks for their number, as by "
        f"len(x). Ask for x.shape[0] in its place. ({error})"
    )
