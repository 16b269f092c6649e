"""The turn of a trained click model's embeddings to other axes, which leaves its function."""

from __future__ import annotations

from ihas_jax.models.base import EMBEDDING, FACTORS, Model, Variables
from ihas_jax.models.parts import Network
from ihas_jax.models.turning import Freedom
from ihas_jax.nn.axes import Axes, turn_table


def check_free(model: Model) -> None:
    """Raises: InputError: the embeddings of the model can't be turned; the message says why."""
    network_of(model).freedom.check()


def freedom_of(model: Model) -> Freedom:
    """The maps of embeddings that leave the model's function as it is."""
    return network_of(model).freedom


def has_readings(model: Model) -> bool:
    """Whether embeddings are read by linear units alone, so that axes can be found by weights."""
    return type(network_of(model)).readings is not Network.readings


def turn(model: Model, variables: Variables, axes: Axes) -> Variables:
    """The variables of the same function with the embedding table in new coordinates.

    Arrays beside the model's, such as a selector's, stay as they are.

    Raises:
      InputError: the model's embeddings can't be turned.
      ValueError: the table is not uniform, or has factors.
    """
    check_free(model)
    check_uniform(model, variables)
    params = network_of(model).absorb(variables.params, axes)
    table = turn_table(model.embedding, params["tables"][EMBEDDING], axes)
    params = params | {"tables": params["tables"] | {EMBEDDING: table}}
    return variables._replace(params=params)


def network_of(model: Model) -> Network:
    """The model's network, or one without freedom in place of a module of another class."""
    return model.network if isinstance(model.network, Network) else Network(model.embedding)


def check_uniform(model: Model, variables: Variables) -> None:
    """Raises: ValueError: the table is not uniform, or has factors."""
    spec = model.embedding
    if spec.kept is not None or spec.stored_values is not None or FACTORS in variables.constants:
        raise ValueError("axes are those of a uniform table without factors")
