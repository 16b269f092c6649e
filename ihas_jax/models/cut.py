"""The weights that a compact click model has of a full-size one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.errors import InputError
from ihas_jax.models.base import EMBEDDING, NETWORK, Model, Variables
from ihas_jax.models.parts import Network
from ihas_jax.nn.compact import slice_table


def cut_variables(
    full: Model,
    compact: Model,
    source: Variables,
    like: Variables,
    values: np.ndarray | None = None,
) -> Variables:
    """The kept part of a full-size model, in new arrays.

    Args:
      full: the model with all coordinates and values.
      compact: the model with the kept ones.
      source: the variables of `full`.
      like: those of `compact`, or their shapes; its constants are kept.
      values: `[V]` of bool, the kept values; None for all.

    Raises:
      InputError: as `cut_network`.
    """
    tables = {
        name: slice_table(
            full.tables[name],
            source.params["tables"][name],
            spec,
            values if name == EMBEDDING else None,
        )
        for name, spec in compact.tables.items()
    }
    network = cut_network(full, compact, source.params[NETWORK], like.params[NETWORK])
    stats = {name: source.stats[name] for name in like.stats}
    stats = cut_network(full, compact, stats, dict(like.stats))
    network, stats = jax.tree.map(jnp.copy, (network, stats))
    return Variables({"tables": tables, NETWORK: network}, stats, like.constants)


def cut_network(full: Model, compact: Model, tree: Any, like: Any) -> Any:
    """The part of a full-size model's network weights that a compact model has.

    An axis that differs holds all K coordinates one or more times in a row, and the entries that
    both models have after them, or before them where the network says so
    (`Network.before_coordinates`).

    Args:
      full: the model with all coordinates.
      compact: the model with the kept coordinates.
      tree: parameters or statistics of the network of `full`.
      like: those of `compact`.

    Raises:
      InputError: an axis differs in another way, as in a network from a plug-in.
    """
    coordinates, columns = full.embedding.coordinates, np.array(compact.embedding.columns, int)
    network = full.network
    before = network.before_coordinates() if isinstance(network, Network) else 0

    def places(size: int, wanted: int) -> np.ndarray:
        """Places of the entries to keep along an axis."""
        copies, rest = divmod(size - wanted, max(coordinates - len(columns), 1))
        after = size - before - copies * coordinates
        if rest or copies < 1 or after < 0:
            raise InputError(
                f"The network of this click model has an axis of {size} entries where the compact "
                f"one has {wanted}, and it does not hold the {coordinates} coordinates first, so "
                "it can't be cut. Choose --retrain.start fresh or tables."
            )
        kept = (columns + coordinates * np.arange(copies)[:, None]).ravel() + before
        return np.concatenate([np.arange(before), kept, np.arange(size - after, size)])

    def cut(leaf: Array, target: Array) -> Array:
        for axis, (size, wanted) in enumerate(zip(leaf.shape, target.shape, strict=True)):
            if size != wanted:
                leaf = leaf.take(places(size, wanted), axis)
        return leaf

    return jax.tree.map(cut, tree, like)
