"""What a compiled router costs beside the exact one."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ihas_jax.selectors.by_value import ScoreRouter
from ihas_jax.selectors.plan import Plan
from ihas_jax.selectors.routing import AnyRouter, make_router
from ihas_jax.stages.base import require_selector
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns
from ihas_jax.stages.speed import microseconds_per_row


def exact_router(run: Run, search: SearchRuns, centroids: np.ndarray) -> AnyRouter:
    """The router to the nearest centroid."""
    return make_router(run.searched_model, require_selector(run), search.variables, centroids)


def router_facts(run: Run, search: SearchRuns, plan: Plan) -> dict[str, Any]:
    """Parameters and time of the router of a plan, and of the exact one, as JSON.

    Nothing is measured where the plan has no compiled router. `test_agreement` is the share of test
    rows that both routers send to the same cluster.
    """
    if not isinstance(plan.router, ScoreRouter) or plan.centroids is None:
        return {}
    routers = {"compiled": plan.router, "exact": exact_router(run, search, plan.centroids)}
    ids, title = run.data.test.ids, "[evaluate] router"
    clusters = {name: one.assign(ids, title=title) for name, one in routers.items()}
    assigns = [partial(one.assign, title=title) for one in routers.values()]
    times = dict(zip(routers, microseconds_per_row(assigns, ids), strict=True))
    return {
        "test_agreement": float((clusters["compiled"] == clusters["exact"]).mean()),
        **{
            name: {"parameters": one.parameters, "microseconds": times[name]}
            for name, one in routers.items()
        },
    }
