"""The Bernoulli gates of iHAS (paper section 3.3)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ihas_jax.config import ClusterConfig, Config, GateConfig
from ihas_jax.errors import InputError
from ihas_jax.models.base import Model, Stats
from ihas_jax.models.forward import Lookup, Transformed
from ihas_jax.nn.gates import gate_penalty, half_product, sample_gates, select_gates
from ihas_jax.nn.mlp import Linear
from ihas_jax.selectors.base import Recipe, Selector, SelectorParams, Weights
from ihas_jax.selectors.budget import require_room
from ihas_jax.selectors.clusters import check_clusters, fit_clusters, idle_in_router
from ihas_jax.selectors.experts import plan_experts
from ihas_jax.selectors.normalize import fresh_norm, normalize
from ihas_jax.selectors.plan import Plan, SearchResult


class Gates(NamedTuple):
    """Deterministic gates of a batch.

    Attributes:
      masks: `[B, K]` of 0 and 1.
      probs: `[B, K]` probabilities of open gates.
      thresholds: `[B]` thresholds of the probabilities.
    """

    masks: Array
    probs: Array
    thresholds: Array


@dataclass(frozen=True)
class BernoulliGates(Selector):
    """One gate per embedding coordinate, opened with probability sigmoid(w E + b).

    With `config.instance_wise` off the probabilities are sigmoid(w*), one vector for all
    instances (ablation iHAS-4). With a `config.rank` r, w is a product of two matrices.

    Note: the paper's w has no factors.

    Attributes:
      config: the choices of the gates.
      coordinates: K = N * D.
      cluster: the choices of clustering.
      costs: weight of each field's gates in the sparsity of the penalty; None for equal ones.
      axis_name: mapped axis whose devices share a batch.
    """

    config: GateConfig
    coordinates: int
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    costs: tuple[float, ...] | None = None
    axis_name: str | None = None

    @property
    def clusters(self) -> int:
        """C, the number of clusters."""
        return self.cluster.clusters

    @property
    def recipe(self) -> Recipe:
        """Bi-level search, then clusters (Algorithm 1)."""
        return Recipe(gate_batches="validation")

    def init(self, key: Array) -> Weights:
        """Fresh gates: a Linear layer K -> K, or the vector w* of U(-1/sqrt(K), 1/sqrt(K)).

        The second factor of a matrix of small rank has entries of variance 1 / r, so that the
        first logits vary as those of the whole matrix.
        """
        if self.config.instance_wise and self.config.rank is None:
            layer = Linear(self.coordinates).init(key, jnp.zeros((1, self.coordinates)))
            return Weights(layer["params"], stats=self._fresh_stats())
        if self.config.instance_wise:
            return Weights({"linear": self._factors(key)}, stats=self._fresh_stats())
        bound = self.coordinates**-0.5
        vector = jax.random.uniform(key, (self.coordinates,), minval=-bound, maxval=bound)
        return Weights({"vector": vector})

    def _factors(self, key: Array) -> SelectorParams:
        """Fresh factors of w, `[K, r]` and `[r, K]`, and biases `[K]`."""
        keys, number, rank = jax.random.split(key, 3), self.coordinates, self.config.rank
        assert rank is not None
        bound = number**-0.5
        return {
            "factor": jax.random.uniform(keys[0], (number, rank), minval=-bound, maxval=bound),
            "kernel": jax.random.uniform(
                keys[1], (rank, number), minval=-((3 / rank) ** 0.5), maxval=(3 / rank) ** 0.5
            ),
            "bias": jax.random.uniform(keys[2], (number,), minval=-bound, maxval=bound),
        }

    def _fresh_stats(self) -> Stats:
        if self.config.inputs == "raw":
            return {}
        return {"inputs": fresh_norm(self.coordinates, affine=False)[1]}

    def _inputs(self, weights: Weights, embeddings: Array, *, train: bool) -> tuple[Array, Stats]:
        """What the gates see of embeddings, `[B, K]`, and the new running statistics."""
        flat = embeddings.reshape(embeddings.shape[0], -1)
        if not weights.stats:
            return flat, {}
        flat, norm = normalize(flat, weights.stats["inputs"], train=train, axis_name=self.axis_name)
        return flat, {"inputs": norm}

    def logits(self, gates: SelectorParams, inputs: Array) -> Array:
        """Log-odds of open gates, `[B, K]`, from inputs `[B, N, D]` or `[B, K]`."""
        flat = inputs.reshape(inputs.shape[0], -1)
        if not self.config.instance_wise:
            return jnp.broadcast_to(gates["vector"], flat.shape)
        if not self.config.gradient_to_tables:
            flat = lax.stop_gradient(flat)
        product = jnp.matmul if self.config.matmul == "float32" else half_product
        layer = gates["linear"]
        if "factor" in layer:
            flat = product(flat, layer["factor"])
        return product(flat, layer["kernel"]) + layer["bias"]

    def sample(self, weights: Weights, lookup: Lookup, key: Array) -> Transformed:
        """Stochastic selection and the weighted penalty of equation 5."""
        embeddings, _, first = lookup
        inputs, stats = self._inputs(weights, embeddings, train=True)
        logits = self.logits(weights.gates, inputs)
        masks = sample_gates(key, logits, temperature=self.config.temperature, first_row=first)
        penalty = self.config.weight * gate_penalty(
            jax.nn.sigmoid(logits),
            l0_weight=self._l0_weight(),
            polarization=self.config.polarization,
            reduction=self.config.reduction,
        )
        if self.axis_name is not None and self.config.reduction == "sum":
            # gradients are averaged over the axis, a sum over the whole batch is not
            penalty *= lax.psum(1, self.axis_name)
        return Transformed(embeddings * masks.reshape(embeddings.shape), penalty, stats)

    def _l0_weight(self) -> Array | float:
        """Lambda, or that of each coordinate `[K]`."""
        if self.costs is None:
            return self.config.l0_weight
        each = np.repeat(self.costs, self.coordinates // len(self.costs))
        return jnp.asarray(self.config.l0_weight * each)

    def gates(self, weights: Weights, embeddings: Array) -> Gates:
        """Deterministic gates of embeddings `[B, N, D]`, by the threshold of each instance."""
        inputs, _ = self._inputs(weights, embeddings, train=False)
        probs = jax.nn.sigmoid(self.logits(weights.gates, inputs))
        masks, thresholds = select_gates(probs, rule=self.config.threshold, bins=self.config.bins)
        return Gates(masks, probs, thresholds)

    def select(self, weights: Weights, lookup: Lookup) -> Transformed:
        """Deterministic selection by each instance's threshold."""
        embeddings = lookup.vectors
        masks, probs, thresholds = self.gates(weights, embeddings)
        return Transformed(
            embeddings * masks.reshape(embeddings.shape),
            masks=masks,
            shown={"probs": probs, "thresholds": thresholds},
        )

    def with_axis(self, axis_name: str | None) -> BernoulliGates:
        """The gates of a batch that the devices of a mapped axis share."""
        return dataclasses.replace(self, axis_name=axis_name)

    def choose(self, found: SearchResult) -> Plan:
        """One model for each cluster of masked embeddings (Algorithm 1, lines 9 to 14)."""
        clusters, facts = fit_clusters(found, self, self.cluster)
        return dataclasses.replace(plan_experts(found, clusters, self.cluster), facts=facts)

    def check(self, train_rows: int) -> None:
        """Raises: InputError: K-means needs more rows than there are."""
        check_clusters("cluster.clusters", self.cluster, train_rows)


def build_bernoulli(config: Config, model: Model, epoch_steps: int) -> BernoulliGates:
    """Builds the gates of iHAS.

    Raises:
      InputError: the budget has no room for a model of each cluster, or the rank of the gates is
        none of a smaller matrix.
    """
    if config.budget is not None:
        clusters = config.of(ClusterConfig).clusters
        require_room("budget", config.budget, model.embedding, clusters)
    gates, spec = config.of(GateConfig), model.embedding
    if gates.rank is not None and 2 * gates.rank >= spec.coordinates:
        raise InputError(
            f"--gates.rank {gates.rank} has as many numbers as the whole matrix of "
            f"{spec.coordinates} coordinates or more. Choose a rank below half of them, or leave "
            "it out."
        )
    costs = field_costs(spec.sizes, gates.cost) if gates.cost else None
    return BernoulliGates(gates, spec.coordinates, config.of(ClusterConfig), costs)


def idle_in_gates(config: Config) -> dict[str, str]:
    """The options of iHAS that would have no effect; see `Method.idle`."""
    cluster = config.of(ClusterConfig)
    found = idle_in_router(cluster, cluster.clusters)
    if not config.of(GateConfig).instance_wise:
        why = "--gates.no-instance-wise has gates that read no embeddings. Choose one of the two"
        names = ("inputs", "gradient_to_tables", "matmul", "rank")
        found |= {f"gates.{name}": why for name in names}
    if config.of(GateConfig).threshold == "half":
        why = "--gates.threshold half looks at no histogram. Choose one of the two"
        found |= {"gates.bins": why}
    if config.budget is None:
        why = "a majority of rows chooses coordinates where there is no budget. Choose a --budget"
        found |= {"cluster.cut": why, "cluster.axes": why}
    return found


def field_costs(sizes: tuple[int, ...], power: float) -> tuple[float, ...]:
    """A power of each field's number of values, divided by the mean over the fields."""
    costs = np.array(sizes, float) ** power
    return tuple((costs / costs.mean()).tolist())
