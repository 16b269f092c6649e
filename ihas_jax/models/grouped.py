"""A click model with a network for each group of rows over one embedding table."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import GROUPS, NETWORK, Model, Variables, VectorsByTable


class Grouped(nn.Module):
    """Networks of one shape, of which each row is answered by that of its group.

    Attributes:
      network: the network of every group.
      groups: C, how many there are.
    """

    network: nn.Module
    groups: int

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors, and the group of each row as `vectors[GROUPS]`, -> logits `[B]`."""
        vectors = dict(vectors)
        group: Any = vectors.pop(GROUPS)

        def answer(network: Any, vectors: VectorsByTable) -> Array:
            return network(vectors, train=train)

        many = nn.vmap(
            answer,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=None,
            axis_size=self.groups,
        )
        logits = many(self.network, vectors)
        return jnp.take_along_axis(logits, group[None], axis=0)[0]


def grouped_model(model: Model, groups: int) -> Model:
    """A click model with as many networks as there are groups."""
    return dataclasses.replace(model, network=Grouped(model.network, groups))


def stack_networks(variables: Variables, groups: int, noise: float, key: Array) -> Variables:
    """The variables of a grouped model whose networks are copies of one, with noise.

    Args:
      variables: those of the click model.
      groups: C.
      noise: standard deviation of what is added to a weight, as a multiple of that of its array.
      key: PRNG key of the noise.
    """
    leaves, tree = jax.tree.flatten(variables.params[NETWORK])
    keys = jax.random.split(key, max(len(leaves), 1))
    stacked = [
        leaf + noise * jnp.std(leaf) * jax.random.normal(k, (groups, *leaf.shape))
        for leaf, k in zip(leaves, keys, strict=False)
    ]
    params = variables.params | {NETWORK: {"network": jax.tree.unflatten(tree, stacked)}}
    copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * groups), variables.stats.get(NETWORK, {}))
    stats = variables.stats | ({NETWORK: {"network": copies}} if copies else {})
    return variables._replace(params=params, stats=stats)


def network_of(variables: Variables, group: int | Array) -> Variables:
    """The variables of the click model of one group, with the very arrays of the table."""
    params, stats = dict(variables.params), dict(variables.stats)
    for tree in (params, stats):
        if NETWORK in tree:
            tree[NETWORK] = jax.tree.map(lambda leaf: leaf[group], tree[NETWORK]["network"])
    constants = {name: tree for name, tree in variables.constants.items() if name != GROUPS}
    return Variables(params, stats, constants)
