"""The log-odds at which the output of a click model starts.

They are a value of a model's first parameters alone. Models that differ in nothing else share the
programs that train them and predict with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import linen as nn
from jax import Array

from ihas_jax.models.base import Model

_FIELD = "prior"
_STANDS_IN = 1.0


def split_prior(model: Model) -> tuple[Model, float | None]:
    """The model that all those share which differ in their prior alone, and the prior.

    There is no prior in a network that starts at even odds, or with several of them. Networks of
    other packages are what they are, since they may compute with their field `prior`.
    """
    priors: set[float] = set()

    def take(prior: float) -> float:
        priors.add(prior)
        return _STANDS_IN

    network = _changed(model.network, take)
    if len(priors) != 1:
        return model, None
    return dataclasses.replace(model, network=network), priors.pop()


def with_prior(model: Model, prior: float | Array | None) -> Model:
    """The inverse of `split_prior`; the prior may be one that JAX traces."""
    if prior is None:
        return model
    return dataclasses.replace(model, network=_changed(model.network, lambda _: prior))


def _changed(network: Any, change: Callable[[Any], Any]) -> Any:
    """A network whose priors, at any depth, are changed where they are not 0."""
    if isinstance(network, tuple):
        return tuple(_changed(part, change) for part in network)
    if not isinstance(network, nn.Module):
        return network
    changes = {}
    for field in dataclasses.fields(network):
        value = getattr(network, field.name)
        if field.name == _FIELD and value and _is_ours(network):
            changes[field.name] = change(value)
        elif field.name != "parent":
            changes[field.name] = _changed(value, change)
    return network.clone(**changes)


def _is_ours(network: nn.Module) -> bool:
    """Whether a network is one of this package, whose priors are for their init alone."""
    return type(network).__module__.startswith(f"{__package__.partition('.')[0]}.")
