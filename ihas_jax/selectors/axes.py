"""The best axes of a trained click model's embeddings, and what each is worth."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ihas_jax.errors import InputError
from ihas_jax.models.base import EMBEDDING, Model, Variables
from ihas_jax.models.turning import Freedom
from ihas_jax.nn.axes import Axes, identity, importance, moments
from ihas_jax.nn.principal import FELT, READ, own_axes, paired_axes, root, shared_axes
from ihas_jax.selectors.turning import check_uniform, network_of
from ihas_jax.selectors.usage import Usage, find_usage, free_mean

Measure = Literal["loss", "weights"]
"""What importance is measured by; see `axes_by`."""


def find_axes(
    model: Model,
    variables: Variables,
    ids: np.ndarray,
    rows: np.ndarray | None = None,
    *,
    by: Measure = "loss",
    turned: bool = True,
) -> Axes:
    """The best axes for some rows; see `find_usage` and `axes_by`, which say what is raised."""
    usage = find_usage(model, variables, ids, rows, turned=turned, curved=by == "loss")
    return axes_by(model, variables, usage, by=by, turned=turned)


def axes_by(
    model: Model,
    variables: Variables,
    usage: Usage,
    *,
    by: Measure = "loss",
    turned: bool = True,
) -> Axes:
    """The best axes that the model's freedom allows, and what each is worth on some rows.

    The importance of an axis is about twice the rise of the mean log loss when the axis is dropped:
    the second moment of the change of the logit, each row weighted by p (1 - p), which is the
    curvature of its loss. Clicks are not asked for: the first-order term of a trained model is zero
    on average, and rows that it knows by heart have small residuals, but not small curvature.

    Where all that a model does with its embeddings goes through linear units (DNN, Wide & Deep,
    FinalMLP), 'weights' takes the variance that an axis adds to these units instead, which is exact
    but does not know what the units are worth: cut and not trained again, a DNN loses more.

    A model without freedom gets its raw coordinates, with their importance.

    Args:
      model: the click model, with a uniform table.
      variables: its variables.
      usage: how the rows use the table.
      by: what importance is measured by; the loss needs the curvature.
      turned: whether better axes are looked for, or the coordinates are measured as they are; the
        same as for `usage`.

    Raises:
      InputError: the model has no linear units to measure by.
      ValueError: the table is not uniform, or has factors.
    """
    spec = model.embedding
    check_uniform(model, variables)
    network = network_of(model)
    freedom, free = network.freedom if turned else Freedom(), network.free_vectors()
    found = moments(spec, variables.params["tables"][EMBEDDING], usage.counts)
    mean = free_mean(found.mean, network, freedom)
    second = found.about(mean)
    if by == "weights":
        weights = network.readings(variables.params)
        if weights is None:
            raise InputError(
                "Axes by weights need a click model in which embeddings are read by linear units "
                "alone, such as dnn. Measure by the loss, or choose another model."
            )
        reading, floor = weights[:, None], READ
    else:
        assert usage.curvature is not None
        reading, floor = root(usage.curvature), FELT
    if freedom.maps == "own":
        return own_axes(mean, second, reading, floor, free)
    if freedom.maps == "paired":
        return paired_axes(mean, second, reading)
    if freedom.maps in ("common", "rotation"):
        orthogonal = freedom.maps == "rotation"
        return shared_axes(mean, second, reading, spec.sizes, free, orthogonal=orthogonal)
    raw = identity(spec, mean)
    squared = reading @ reading.swapaxes(-1, -2)
    return raw._replace(importance=importance(second, squared, raw.forward, raw.backward))
