"""A trained full-size model, cut to a share of its table without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real

import jax
import numpy as np

from ihas_jax.config.shares import SpectralConfig
from ihas_jax.errors import InputError, require_type
from ihas_jax.models import build_model
from ihas_jax.models.base import Variables, count_parameters, fold_factors
from ihas_jax.models.cut import cut_variables
from ihas_jax.models.forward import init_model
from ihas_jax.progress import say
from ihas_jax.selectors.budget import numbers_of, require_room
from ihas_jax.selectors.selection import all_coordinates
from ihas_jax.selectors.turning import freedom_of, turn
from ihas_jax.selectors.usage import find_usage
from ihas_jax.selectors.worth import best_by
from ihas_jax.serving.bundle import Bundle, Served


@dataclass(frozen=True)
class Cut:
    """A model that was cut.

    Attributes:
      bundle: the model, ready to be served.
      share: the share of all worth that its table keeps.
      rise: by how much the mean logloss is predicted to rise, from the axes' spectrum.
    """

    bundle: Bundle
    share: float
    rise: float


def cut(bundle: Bundle, budget: float, ids: np.ndarray | None = None) -> Bundle:
    """A full-size model, cut to a share of its embedding table without training.

    The table is turned to the principal axes by which the network reads it, where the click model
    allows it, and keeps the numbers that are worth most; see `ihas_jax.selectors.spectral`.

    Args:
      bundle: a bundle of one model with all coordinates, such as that of a run without a method.
      budget: the share of the table's numbers to keep.
      ids: `[n, N]`, rows like those that the model is to serve: how often a value occurs says what
        its numbers are worth. None for the training rows, which the bundle of a run knows.

    Raises:
      InputError: the bundle has another model, or knows of no rows; the budget has no room for a
        coordinate; or the ids do not fit the bundle.
    """
    return measure_cut(bundle, budget, ids).bundle


def measure_cut(bundle: Bundle, budget: float, ids: np.ndarray | None = None) -> Cut:
    """A cut, and what is known of it beforehand; see `cut`."""
    served = _whole(bundle)
    full, spec = served.model, served.model.embedding
    if not isinstance(budget, Real) or not 0 < budget <= 1:
        raise InputError(f"A budget must be a share above 0 and at most 1, not {budget!r}.")
    budget = float(budget)
    require_room("budget", budget, spec)
    usage = bundle.usage
    if ids is not None and not len(ids):
        raise InputError("There are no ids, so nothing says how often values occur.")
    if ids is not None:
        turned = freedom_of(full).any
        usage = find_usage(full, served.variables, bundle.check(ids), turned=turned)
    if usage is None:
        raise InputError(
            "The bundle does not know how often values occur. Give ids, such as the training rows."
        )
    numbers = numbers_of(budget, spec)
    expert, share, worth = best_by(full, served.variables, usage, numbers, "numbers", own=True)
    selection = expert.selection
    kept = None if selection.kept == all_coordinates(spec) else selection.kept
    model = build_model(bundle.config.model, bundle.schema.sizes, kept=kept)
    source = served.variables
    if expert.axes is not None:
        source = turn(full, source, expert.axes)
    like = jax.eval_shape(lambda: init_model(jax.random.key(0), model))
    own = cut_variables(full, model, source, Variables(like.params, like.stats))
    own = fold_factors(own._replace(constants=selection.constants(model.embedding)))
    rest = count_parameters(own.params) - model.embedding.parameters
    size = rest + selection.parameters(spec), 4 * rest + selection.bytes(spec)
    config = replace(bundle.config, method="spectral", budget=budget).having(SpectralConfig())
    made = replace(bundle, config=config, models=(Served(model, own, *size),), usage=None)
    return Cut(made, share, worth * (1 - share) / 2)


def can_be_cut(bundle: Bundle) -> bool:
    """Whether a bundle is of one model with all coordinates and values."""
    served, spec = bundle.models[0], bundle.models[0].model.embedding
    whole = spec.kept is None and spec.stored_values is None
    # a table may have all of its widths, and zeros in place of single numbers
    whole = whole and served.parameters == count_parameters(served.variables.params)
    return whole and len(bundle.models) == 1 and not served.transform


def with_room(bundle: Bundle, budgets: Sequence[float]) -> list[float]:
    """The budgets that have room for a coordinate, from the largest on.

    Raises:
      InputError: the bundle is not of one model with all coordinates, or no budget has room.
    """
    spec = _whole(bundle).model.embedding
    found: list[float] = []
    for budget in sorted(budgets, reverse=True):
        try:
            require_room("budget", budget, spec)
        except InputError as error:
            if not found:
                raise
            say(f"[cut] {100 * budget:g} % of the table is left out: {error}")
        else:
            found.append(budget)
    return found


def _whole(bundle: Bundle) -> Served:
    """Raises: InputError: there is no bundle of one model with all coordinates and values."""
    require_type("bundle", bundle, Bundle, "Read one with ihas.load_bundle.")
    if not can_be_cut(bundle):
        raise InputError(
            "Only one click model of full size can be cut, and the bundle holds several models, or "
            "one that is smaller already or selects while it predicts. Cut the bundle of a run "
            "with --method none, or make this one again with a smaller --budget."
        )
    return bundle.models[0]
