"""The bundles of a run: its base, searched and outcome models, ready to be served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax

from ihas_jax.data.drift import with_shares
from ihas_jax.models.base import (
    SELECTOR,
    TABLES,
    Model,
    Variables,
    count_parameters,
    fold_factors,
)
from ihas_jax.models.forward import Transform
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors.base import Selecting
from ihas_jax.selectors.plan import Expert, Plan
from ihas_jax.selectors.routing import AnyRouter
from ihas_jax.selectors.selection import Selection
from ihas_jax.selectors.turning import freedom_of
from ihas_jax.selectors.usage import find_usage
from ihas_jax.serving.bundle import Bundle, Served
from ihas_jax.stages.base import require_selector
from ihas_jax.stages.retrain import carried
from ihas_jax.stages.routers import exact_router
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns
from ihas_jax.training.task import Trained


def with_usage(run: Run, bundle: Bundle) -> Bundle:
    """A bundle of one full-size model that can be cut without rows."""
    (served,) = bundle.models
    turned = freedom_of(served.model).any
    usage = find_usage(served.model, served.variables, run.data.train.ids, turned=turned)
    return replace(bundle, usage=usage)


def base_bundle(run: Run, base: Trained) -> Bundle:
    """The click model with all coordinates."""
    return _bundle(run, (_whole(run.model, base.variables),))


def search_bundle(run: Run, search: SearchRuns) -> Bundle:
    """The searched model, which selects while it predicts."""
    model, transform = run.searched_model, Selecting(require_selector(run))
    served = _whole(model, search.variables, transform)
    if search.steps:
        rest = served.parameters - model.embedding.parameters
        parameters, size = _size(rest, search.steps[-1].selection, model.embedding)
        served = replace(served, parameters=parameters, bytes=size)
    return _bundle(run, (served,))


def outcome_bundle(
    run: Run, search: SearchRuns, plan: Plan, retrained: Sequence[Trained]
) -> Bundle:
    """The compact models of a plan, and their router if there are clusters."""
    pairs = zip(carried(run, plan), retrained, strict=True)
    if plan.shared:
        (expert, trained), *others = pairs
        first = _compact(run, expert, trained)
        models = (first, *(_over_table(first, trained) for _, trained in others))
    else:
        models = tuple(_compact(run, expert, trained) for expert, trained in pairs)
    if plan.router is not None:
        return _bundle(run, models, plan.routes, plan.router)
    if plan.centroids is None:
        return _bundle(run, models)
    return _bundle(run, models, plan.routes, exact_router(run, search, plan.centroids))


def _bundle(
    run: Run,
    models: tuple[Served, ...],
    routes: tuple[int, ...] = (0,),
    router: AnyRouter | None = None,
) -> Bundle:
    searched = run.searched_by or run.config.model
    return Bundle(run.config, searched, with_shares(run.data), models, routes, router)


def _whole(model: Model, variables: Variables, transform: Transform | None = None) -> Served:
    """A model that needs all of its parameters to serve, and what a selector knows of values."""
    a_row_each = (sum(model.embedding.sizes), 1)
    stats = jax.tree.leaves(variables.stats.get(SELECTOR, {}))
    known = [leaf for leaf in stats if leaf.shape == a_row_each]
    parameters = count_parameters((variables.params, known))
    return Served(model, variables, parameters, 4 * parameters, transform)


def _compact(run: Run, expert: Expert, trained: Trained) -> Served:
    """A retrained model, with its factors multiplied into its table."""
    model, full, selection = run.expert_model(expert), run.model.embedding, expert.selection
    rest = count_parameters(trained.variables.params) - model.embedding.parameters
    return Served(model, fold_factors(trained.variables), *_size(rest, selection, full))


def _over_table(first: Served, trained: Trained) -> Served:
    """A model with a network of its own over the table of the first one."""
    params, stats = trained.variables.params, trained.variables.stats
    network = {name: tree for name, tree in params.items() if name != TABLES}
    variables = Variables(first.variables.params | network, stats, first.variables.constants)
    parameters = count_parameters(network)
    return replace(first, variables=variables, parameters=parameters, bytes=4 * parameters)


def _size(rest: int, selection: Selection, spec: EmbeddingSpec) -> tuple[int, int]:
    """Parameters and bytes of what is kept of a table, and of `rest` numbers beside it."""
    return rest + selection.parameters(spec), 4 * rest + selection.bytes(spec)
