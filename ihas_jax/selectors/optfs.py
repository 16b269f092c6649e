"""OptFS: a gate for each value of each field, annealed until it is open or shut."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ihas_jax.config import AdamConfig, Config
from ihas_jax.config.methods import OptFSConfig
from ihas_jax.models.base import SELECTOR, Model
from ihas_jax.models.forward import Lookup, Transformed
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors.base import Recipe, Selector, Weights
from ihas_jax.selectors.plan import Plan, SearchResult, single
from ihas_jax.selectors.selection import mark_largest, select_values
from ihas_jax.training.missed import BETA1, BETA2, EPSILON

_START = 0.5
_FRESH = 1 / (1 + math.exp(-_START))


def annealed(epoch: Array, epochs: int, final: float) -> Array:
    """Temperature T `[]` of an epoch: it rises from 1 in the first to `final` by equal factors.

    Epochs after the last have the final temperature, and so has a single epoch.

    Args:
      epoch: `[]`, counted from 0.
      epochs: length of the search.
      final: T of the last epoch.
    """
    if epochs == 1:
        return jnp.full((), final, float)
    return (final ** (1 / (epochs - 1))) ** jnp.minimum(epoch, epochs - 1)


def soft_factor(gates: Array, temperature: Array) -> Array:
    """sigmoid(T g) / sigmoid(1/2) of gates g of any shape: 1 for a fresh gate at T = 1."""
    return jax.nn.sigmoid(temperature * gates) / _FRESH


def ticket(gates: np.ndarray) -> np.ndarray:
    """Whether each of the gates g `[V]` is open, g > 0; without an open one, the largest is."""
    opened = gates > 0
    if not opened.any():
        opened[np.argmax(gates)] = True
    return opened


@dataclass(frozen=True)
class OptFSGates(Selector):
    """A gate for each value, soft at first and hardened by a rising temperature.

    From Lyu et al., "Optimizing Feature Set for Click-Through Rate Prediction", WWW 2023.

    Note: the penalty is a mean over all V values where the paper has a sum, so that one weight
    serves tables of all sizes. Adam's epsilon is divided by V as the gradients are; at 1e-8 it
    would swallow those of a large table, and no gate would ever close.

    Note: steps of the gates have the size 1 / (steps of the search), where the published code
    gives gates the model's learning rate. Gates that the loss does not hold open so fall from
    1/2 to 0 within half of the search, whatever the length of the log.

    Note: first-order weights, which the published models lack, have no gates.

    Attributes:
      config: the method's choices.
      spec: shape of the table, uniform.
      epoch_steps: training steps of an epoch.
    """

    config: OptFSConfig
    spec: EmbeddingSpec
    epoch_steps: int

    @property
    def recipe(self) -> Recipe:
        """A search of fixed length, then retraining from the weights of an early epoch."""
        return Recipe(
            gate_batches="training",
            epochs=self.config.epochs,
            rewind_epochs=self.config.rewind,
            initial_weights="rewound" if self.config.rewind else "initial",
        )

    def init(self, key: Array) -> Weights:
        """All gates at 1/2, and a count of training steps."""
        gates = jnp.full((sum(self.spec.sizes), 1), _START, float)
        return Weights({"gates": gates}, stats={"steps": jnp.zeros((), jnp.int32)})

    def sample(self, weights: Weights, lookup: Lookup, key: Array) -> Transformed:
        """Embeddings times soft factors, without noise; the penalty is the mean gate, weighted."""
        steps = weights.stats["steps"]
        temperature = self._temperature(steps)
        factors = soft_factor(_looked_up(weights, lookup), temperature)
        soft = jax.nn.sigmoid(temperature * weights.gates["gates"])
        values = sum(self.spec.sizes)
        if len(soft) > values:  # padding has no gates
            soft = jnp.where(jnp.arange(len(soft))[:, None] < values, soft, 0.0)
        penalty = self.config.weight * (soft.sum() / values)
        return Transformed(lookup.vectors * factors, penalty, {"steps": steps + 1})

    def select(self, weights: Weights, lookup: Lookup) -> Transformed:
        """Embeddings times soft factors at the last step's temperature; masks mark open gates.

        Masks are those of retraining, where a gate below 0 removes its value. In the search such
        a gate has a small factor.
        """
        last = jnp.maximum(weights.stats["steps"] - 1, 0)
        gates = _looked_up(weights, lookup)
        opened = (gates > 0).astype(gates.dtype)
        masks = jnp.broadcast_to(opened, lookup.vectors.shape).reshape(gates.shape[0], -1)
        factors = soft_factor(gates, self._temperature(last))
        return Transformed(lookup.vectors * factors, masks=masks)

    def optimizer(self, config: AdamConfig) -> optax.GradientTransformation:
        """Adam without L2; the method sets step and epsilon, and `config` does not matter."""
        epsilon = EPSILON / sum(self.spec.sizes)
        rate = 1 / (self.config.epochs * self.epoch_steps)
        return optax.adam(rate, b1=BETA1, b2=BETA2, eps=epsilon)

    def choose(self, found: SearchResult) -> Plan:
        """Keeps the values with open gates, scaled as fresh gates scale them.

        Under a budget the values of the largest gates are kept, as many as it has rows for.
        """
        gates = np.asarray(found.variables.params[SELECTOR]["gates"])[:, 0]
        if found.budget is None:
            opened = ticket(gates)
        else:
            opened = mark_largest(gates, found.budget // self.spec.dim)
        return single(select_values(opened, self.spec, scale=1 / _FRESH))

    def _temperature(self, steps: Array) -> Array:
        """Temperature `[]` of the training step after `steps` steps."""
        return annealed(steps // self.epoch_steps, self.config.epochs, self.config.temperature)


def _looked_up(weights: Weights, lookup: Lookup) -> Array:
    """Gates `[B, N, 1]` of a batch's values."""
    return lookup.read(weights.gates["gates"])


def build_optfs(config: Config, model: Model, epoch_steps: int) -> OptFSGates:
    """Builds the gates of OptFS."""
    return OptFSGates(config.of(OptFSConfig), model.embedding, epoch_steps)
