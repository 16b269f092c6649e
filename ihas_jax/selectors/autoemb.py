"""AutoEmb: a controller weighs embedding sizes by how frequent a value is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.config import Config
from ihas_jax.config.methods import AutoEmbConfig
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models.base import Model, Stats
from ihas_jax.models.forward import Lookup, Transformed
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.nn.mlp import Linear
from ihas_jax.selectors.base import Recipe, Selector, SelectorParams, Weights
from ihas_jax.selectors.normalize import fresh_norm, normalize, unit_product_scale
from ihas_jax.selectors.plan import SERVE_SEARCHED, Plan, SearchResult
from ihas_jax.selectors.refusals import refuse_several_vectors
from ihas_jax.selectors.usage import count_values

_EPSILON = 1e-5


def popularity_of(counts: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """log(1 + count) of each value, less its mean over the rows of its field, over its deviation.

    The variance of a field gets 1e-5 more, as in a batch norm: values that are equally frequent
    are all at 0.

    Args:
      counts: `[V]`, how many rows have each value.
      sizes: number of values of each field.

    Returns:
      `[V]` float32.
    """
    parts = []
    for own in np.split(counts, np.cumsum(sizes)[:-1]):
        logs, rows = np.log1p(own), max(own.sum(), 1)
        mean = logs @ own / rows
        variance = (logs - mean) ** 2 @ own / rows
        parts.append((logs - mean) / np.sqrt(variance + _EPSILON))
    return np.concatenate(parts).astype(np.float32)


def size_weights(controller: SelectorParams, popularity: Array) -> Array:
    """Weights of the candidate sizes, softmax(W tanh(u p + b) + c) with a network for each field.

    Args:
      controller: `hidden`, with kernel u and bias b `[N, H]`, and `output`, with kernel W
        `[N, H, C]` and bias c `[N, C]`.
      popularity: `[B, N, 1]`.

    Returns:
      `[B, N, C]`, adding up to 1 over the last axis.
    """
    hidden, output = controller["hidden"], controller["output"]
    units = jnp.tanh(popularity * hidden["kernel"] + hidden["bias"])
    scores = jnp.einsum("bnh,nhc->bnc", units, output["kernel"]) + output["bias"]
    return jax.nn.softmax(scores)


@dataclass(frozen=True)
class AutoEmb(Selector):
    """The sum over sizes k of a_k(p) tanh(BN_k(e_k W_k)), where p is the popularity of the value.

    From Zhao et al., "AutoEmb: Automated Embedding Dimensionality Search in Streaming
    Recommendations", ICDM 2021. A value has an embedding e_k of each candidate size d_k, side by
    side in its row of the table. Each field has linear maps W_k from d_k to D coordinates, batch
    norms, and a controller a. The soft sum is what is served: nothing is retrained.

    Note: of the paper we had the abstract and summaries. The rest is read from the code of it that
    a later paper of two of its authors compares with (Liu et al., "Automated Embedding Size Search
    in Deep Recommender Systems", SIGIR 2020).

    Note: on a stream popularity is the count so far, and that code gives the controller an
    embedding of the count and the value's last weights too. A stored log has one count of its
    training rows, so the controller sees the standardised logarithm of that alone, and a tanh layer
    that needs no batch norm.

    Note: in that code users and items have maps and controllers of their own; here each field has.
    Its candidates are mapped to the largest size, here to the sum of all, which is the size of the
    click model. Its sizes share one batch norm, whose running statistics are never used.

    Note: maps have no bias, since the batch norm would take it away again.

    Attributes:
      config: the method's choices.
      dims: the candidate sizes d_1 < ... < d_C, which add up to D.
      spec: shape of the table, uniform.
      axis_name: mapped axis over which batch statistics are averaged.
    """

    config: AutoEmbConfig
    dims: tuple[int, ...]
    spec: EmbeddingSpec
    axis_name: str | None = None

    @property
    def recipe(self) -> Recipe:
        """Bi-level search, whose model is the outcome."""
        return Recipe(gate_batches="validation")

    def init(self, key: Array) -> Weights:
        """Controllers that prefer no size, maps and batch norms, and values of popularity 0."""
        fields, dim, units = len(self.spec.sizes), self.spec.dim, self.config.hidden
        gates_key, *keys = jax.random.split(key, 1 + len(self.dims))
        scale = unit_product_scale(fields, dim) if self.config.unit_products else 1.0
        norms = [fresh_norm(fields * dim, scale=scale) for _ in self.dims]
        hidden = _linear(gates_key, fields, 1, units)
        output = {"kernel": (fields, units, len(self.dims)), "bias": (fields, len(self.dims))}
        return Weights(
            gates={
                "hidden": hidden | {"kernel": hidden["kernel"][:, 0]},
                "output": {name: jnp.zeros(shape) for name, shape in output.items()},
            },
            layers={
                f"size_{size}": {"kernel": _linear(k, fields, size, dim)["kernel"], "norm": affine}
                for size, k, (affine, _) in zip(self.dims, keys, norms, strict=True)
            },
            stats={
                "popularity": jnp.zeros((sum(self.spec.sizes), 1), jnp.float32),
                "norms": {
                    f"size_{size}": own for size, (_, own) in zip(self.dims, norms, strict=True)
                },
            },
        )

    def observe(self, weights: Weights, train: Split) -> Weights:
        """The weights with the popularity of all values in the training rows."""
        counts = count_values(self.spec.sizes, train.ids, title="[search] values")
        popularity = popularity_of(counts, self.spec.sizes)[:, None]
        return weights._replace(stats=weights.stats | {"popularity": popularity})

    def sample(self, weights: Weights, lookup: Lookup, key: Array) -> Transformed:
        """The candidates' sum, with the batch's statistics and without noise."""
        embeddings, norms = self._mixed(weights, lookup, self._mix(weights, lookup), train=True)
        return Transformed(embeddings, stats=weights.stats | {"norms": norms})

    def select(self, weights: Weights, lookup: Lookup) -> Transformed:
        """The candidates' sum with running statistics; all coordinates are kept."""
        embeddings, _ = self._mixed(weights, lookup, self._mix(weights, lookup), train=False)
        masks = jnp.ones((embeddings.shape[0], self.spec.coordinates), embeddings.dtype)
        return Transformed(embeddings, masks=masks)

    def pretrain(self, weights: Weights, lookup: Lookup, key: Array | None) -> Transformed:
        """The candidates' mean."""
        mix = jnp.full((*lookup.row_index.shape, len(self.dims)), 1 / len(self.dims))
        embeddings, norms = self._mixed(weights, lookup, mix, train=key is not None)
        return Transformed(embeddings, stats=weights.stats | {"norms": norms})

    def choose(self, found: SearchResult) -> Plan:
        """Nothing is retrained: the sum of all sizes is needed in prediction."""
        return SERVE_SEARCHED

    def with_axis(self, axis_name: str | None) -> AutoEmb:
        """The selector with batch statistics of all devices together."""
        return dataclasses.replace(self, axis_name=axis_name)

    def _mix(self, weights: Weights, lookup: Lookup) -> Array:
        """Weights `[B, N, C]` of the sizes of a batch's values."""
        return size_weights(weights.gates, lookup.read(weights.stats["popularity"]))

    def _mixed(
        self, weights: Weights, lookup: Lookup, mix: Array, *, train: bool
    ) -> tuple[Array, Stats]:
        """The sum `[B, N, D]` by weights `mix [B, N, C]`, and the new running statistics."""
        shape, flat = lookup.vectors.shape, (lookup.vectors.shape[0], self.spec.coordinates)
        mixed, norms = jnp.zeros_like(lookup.vectors), {}
        for k, (size, end) in enumerate(zip(self.dims, accumulate(self.dims), strict=True)):
            name, own = f"size_{size}", lookup.vectors[..., end - size : end]
            layer, stats = weights.layers[name], weights.stats["norms"][name]
            candidate = jnp.einsum("bnd,nde->bne", own, layer["kernel"]).reshape(flat)
            candidate, norms[name] = normalize(
                candidate, stats, layer["norm"], train=train, axis_name=self.axis_name
            )
            mixed += mix[..., k, None] * jnp.tanh(candidate).reshape(shape)
        return mixed, norms


def _linear(key: Array, fields: int, inputs: int, outputs: int) -> dict[str, Any]:
    """Fresh linear layers: `kernel [N, inputs, outputs]` and `bias [N, outputs]`."""
    layer, x = Linear(outputs), jnp.zeros((1, inputs))
    return jax.vmap(lambda k: layer.init(k, x)["params"]["linear"])(jax.random.split(key, fields))


def default_dims(dim: int) -> tuple[int, ...]:
    """An eighth of D, a quarter of D and the rest; fewer sizes where D is below 8."""
    small = sorted({max(1, dim // 8), max(1, dim // 4)})
    while small and dim - sum(small) <= small[-1]:
        small.pop()
    return (*small, dim - sum(small))


def build_autoemb(config: Config, model: Model, epoch_steps: int) -> AutoEmb:
    """Builds the controllers of AutoEmb.

    Raises:
      InputError: embeddings of the model are several vectors, they are too small for two sizes, or
        the sizes do not add up to theirs.
    """
    options, spec, name = config.of(AutoEmbConfig), model.embedding, config.model.name
    refuse_several_vectors(config, model)
    dims = options.dims or default_dims(spec.dim)
    if options.dims is None and len(dims) == 1:
        raise InputError(
            f"--method autoemb does not go with --model {name}, whose embeddings have the size "
            f"{spec.dim}, with no sizes below it to choose. Take another model or method."
        )
    if sum(dims) != spec.dim:
        raise InputError(
            f"--autoemb.dims add up to {sum(dims)}, but embeddings of --model {name} have the size "
            f"{spec.dim}, of which each candidate is a part. Choose sizes that add up to it."
        )
    return AutoEmb(options, dims, spec)
