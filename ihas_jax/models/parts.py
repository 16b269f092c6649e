"""The parts of click models: tables, first-order terms, MLPs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from ihas_jax.config import ModelConfig
from ihas_jax.models.base import EMBEDDING, LINEAR, Params, VectorsByTable
from ihas_jax.models.turning import Freedom
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.embedding import EmbeddingSpec, Kept, Vectors, align, flatten
from ihas_jax.nn.mlp import MLP


@dataclass(frozen=True)
class Parts:
    """The parts of one click model.

    Attributes:
      config: the model's choices.
      sizes: values of each field.
      kept: kept coordinates of each field in the embedding table; None keeps all.
      stored_values: number of values per field that have their own row in it; None for all.
      prior: log-odds of a click; the output starts there if `config.init` is 'balanced'.
      axis_name: mapped axis over which batch statistics are averaged.
    """

    config: ModelConfig
    sizes: tuple[int, ...]
    kept: Kept | None
    stored_values: tuple[int, ...] | None
    prior: float
    axis_name: str | None

    def embedding(
        self, vectors_per_field: int = 1, *, separate_init: bool = False
    ) -> EmbeddingSpec:
        """The embedding table, with one or more vectors of D coordinates per field."""
        dim = self.config.dim * vectors_per_field
        return EmbeddingSpec(
            self.sizes,
            dim,
            self.kept,
            vectors_per_field=vectors_per_field,
            separate_init=separate_init,
            stored_values=self.stored_values,
        )

    def linear(self) -> EmbeddingSpec:
        """The table of first-order weights."""
        return EmbeddingSpec(self.sizes, 1, init=self.config.linear_init)

    @property
    def bias(self) -> float:
        """Where a model's bias starts that is not the MLP's."""
        return self.prior if self.config.init == "balanced" else 0.0

    def wide(self) -> Wide:
        """The first-order term, with the model's bias."""
        return Wide(self.bias)

    def mlp(self, *, output: bool = True, prior: float = 0.0) -> MLP:
        """The MLP of `config`; its output starts at `prior`."""
        config = self.config
        return MLP(
            config.hidden,
            config.batch_norm,
            config.dropout,
            config.init,
            output=output,
            prior=prior,
            axis_name=self.axis_name,
        )


class Wide(nn.Module):
    """sum_n w[x_n] + b: the first-order term of the model, `[B]`."""

    prior: float

    @nn.compact
    def __call__(self, vectors: VectorsByTable) -> Array:
        """Vectors of the table of first-order weights -> `[B]`."""
        return total(vectors[LINEAR]) + self.param("bias", nn.initializers.constant(self.prior), ())


def total(vectors: Vectors) -> Array:
    """Sum of all looked-up values of each instance, `[B]`."""
    return jnp.concatenate([part.sum(axis=2) for part in vectors.values()], axis=1).sum(axis=1)


class Network(nn.Module):
    """A network over the vectors of an embedding table.

    Attributes:
      embedding: the table's shape.
      freedom: the maps of its embeddings that the network can absorb; none unless it says so.
    """

    embedding: EmbeddingSpec
    freedom: ClassVar[Freedom] = Freedom(why="its network does not say which maps it can absorb")

    def aligned(self, vectors: VectorsByTable) -> Array:
        """Embeddings `[B, N, D]`, zero at removed coordinates."""
        return align(self.embedding, vectors[EMBEDDING])

    def flat(self, vectors: VectorsByTable) -> Array:
        """The kept coordinates alone, `[B, sum(widths)]`."""
        return flatten(self.embedding, vectors[EMBEDDING])

    @nn.nowrap
    def before_coordinates(self) -> int:
        """Entries before the kept coordinates along axes of weights whose length depends on them.

        Such an axis holds the flat embeddings one or more times, and then whatever else there is.
        """
        return 0

    @nn.nowrap
    def free_vectors(self) -> np.ndarray:
        """`[N, M]` of bool, the vectors to which the freedom of maps applies."""
        return np.ones((len(self.embedding.sizes), self.embedding.vectors_per_field), bool)

    @nn.nowrap
    def readings(self, params: Params) -> np.ndarray | None:
        """`[N, D, H]`, weights through which alone embeddings act, H linear units; None without.

        Args:
          params: `tables` and `network`.
        """
        return None

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """Parameters of the same function for an embedding table of new coordinates.

        Args:
          params: `tables` and `network`, with the embedding table before it is turned; it stays as
            it is here.
          axes: the new coordinates, which `freedom` allows.

        Raises:
          InputError: nothing is free.
        """
        self.freedom.check()
        raise NotImplementedError(f"{type(self).__name__} lacks the method absorb")
