"""The multi-layer perceptron of the reference library."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ihas_jax.config import InitRule

_Shape = tuple[int, ...]


def uniform_init(key: Array, shape: _Shape, fan_in: int) -> Array:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): torch's initial weights and biases of a Linear layer."""
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


class Linear(nn.Module):
    """Fully connected layer, `[..., F_in]` -> `[..., features]`, initialised as in torch."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the layer."""

        def init(key: Array, shape: _Shape, dtype: object = None) -> Array:
            return uniform_init(key, shape, x.shape[-1])

        return nn.Dense(self.features, kernel_init=init, bias_init=init, name="linear")(x)


class MLP(nn.Module):
    """Linear -> (batch norm) -> ReLU -> (dropout) for each width, then Linear to one logit.

    `[B, F]` -> `[B]`, or `[B, hidden[-1]]` without the output layer.

    Note: `init_rule` 'torch' is the reference library's. Embeddings start near zero, so the sign
    of a hidden unit is that of its random bias for every instance, and half of the units start
    dead; lowering all logits to the click rate in the first steps switches off more; and if the
    output weights of those that are left have one sign, the logit stays bounded on one side.
    With layers as small as (16, 8) some trainings then fail. 'balanced' starts with zero
    biases, the output bias at the log-odds of a click, and output weights of alternating sign;
    all else is the same.

    Note: running variances use the batch's biased variance, torch's the unbiased one: a factor
    of B / (B - 1).

    Attributes:
      hidden: widths of the hidden layers.
      batch_norm: normalise before each ReLU (epsilon 1e-5, momentum 0.9).
      dropout: rate after each ReLU; needs a 'dropout' rng in training.
      init_rule: 'balanced' or 'torch'.
      output: whether the last Linear(1) is there.
      prior: log-odds of a click, the output bias of 'balanced'.
      axis_name: mapped axis over which batch statistics are averaged.
    """

    hidden: tuple[int, ...]
    batch_norm: bool = False
    dropout: float = 0.0
    init_rule: InitRule = "balanced"
    output: bool = True
    prior: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Applies the network; `train` selects batch statistics and dropout."""
        for i, width in enumerate(self.hidden):
            x = self._linear(width, f"hidden_{i}", x, 0.0)
            if self.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=0.9,
                    epsilon=1e-5,
                    axis_name=self.axis_name,
                    name=f"norm_{i}",
                )(x)
            x = nn.relu(x)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return self._linear(1, "output", x, self.prior)[..., 0] if self.output else x

    def _linear(self, features: int, name: str, x: Array, bias: float) -> Array:
        fan_in = x.shape[-1]

        def uniform(key: Array, shape: _Shape, dtype: object = None) -> Array:
            return uniform_init(key, shape, fan_in)

        def alternating(key: Array, shape: _Shape, dtype: object = None) -> Array:
            signs = 1.0 - 2.0 * (jnp.arange(fan_in) % 2)
            return signs[:, None] * jnp.abs(uniform_init(key, shape, fan_in))

        kernel_init, bias_init = uniform, uniform
        if self.init_rule == "balanced":
            kernel_init = alternating if name == "output" else uniform
            bias_init = nn.initializers.constant(bias)
        return nn.Dense(features, kernel_init=kernel_init, bias_init=bias_init, name=name)(x)
