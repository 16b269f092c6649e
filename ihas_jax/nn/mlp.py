"""Fully connected layers as in the reference library: initial weights, layers, the MLP."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from ihas_jax.config.model import InitRule

_Shape = tuple[int, ...]


def uniform(bound: float) -> Callable[..., Array]:
    """An initialiser that draws from U(-bound, bound)."""

    def init(key: Array, shape: _Shape, dtype: object = None) -> Array:
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return init


def torch_uniform(fan_in: int) -> Callable[..., Array]:
    """Torch's initialiser of a layer with `fan_in` inputs: the bound is 1 / sqrt(fan_in)."""
    return uniform(fan_in**-0.5)


class Linear(nn.Module):
    """Fully connected layer, `[..., F_in]` -> `[..., features]`, initialised as in torch."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the layer."""
        init = torch_uniform(x.shape[-1])
        return nn.Dense(self.features, kernel_init=init, bias_init=init, name="linear")(x)


def batch_norm(
    train: bool,
    axis_name: str | None = None,
    *,
    name: str | None = None,
    affine: bool = True,
    scale: float = 1.0,
) -> nn.BatchNorm:
    """Batch norm over all axes but the last: epsilon 1e-5, momentum 0.9.

    Note: running variances use the batch's biased variance, torch's the unbiased one: a factor
    of n / (n - 1), where n numbers are averaged.

    Args:
      train: take the batch's statistics and update the running ones, rather than use those.
      axis_name: mapped axis over which batch statistics are averaged.
      name: of the module within the one that calls it.
      affine: whether a scale and a bias are learnt.
      scale: where the scale starts.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        use_fast_variance=False,  # E[x^2] - E[x]^2 loses the digits of numbers far from zero
        momentum=0.9,
        epsilon=1e-5,
        use_scale=affine,
        use_bias=affine,
        scale_init=nn.initializers.constant(scale),
        axis_name=axis_name,
        name=name,
    )


class DenseBeforeNorm(nn.Module):
    """A fully connected layer in front of a batch norm, `[..., F]` -> `[..., features]`.

    The norm takes the bias away again, so that its gradient is zero. Computed, it is rounding
    noise, of which Adam makes whole steps; here it is exactly zero.
    """

    features: int
    kernel_init: Callable[..., Array]
    bias_init: Callable[..., Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the layer."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        return x @ kernel + lax.stop_gradient(bias)


def dense(features: int, name: str, x: Array, rule: InitRule, *, normed: bool = False) -> Array:
    """A fully connected layer of the module that calls it, `[..., F]` -> `[..., features]`.

    Initial weights and biases are torch's; with the rule 'balanced' the biases are zero. A batch
    norm follows where `normed`.
    """
    init = torch_uniform(x.shape[-1])
    bias_init = init if rule == "torch" else nn.initializers.zeros
    layer = DenseBeforeNorm if normed else nn.Dense
    return layer(features, kernel_init=init, bias_init=bias_init, name=name)(x)


def to_logit(name: str, x: Array, rule: InitRule, prior: float) -> Array:
    """A dense layer to one logit per row, `[..., F]` -> `[...]`.

    Initial weights and bias are torch's; with the rule 'balanced' the bias is `prior` and the
    signs of the weights alternate.
    """
    init = torch_uniform(x.shape[-1])

    def alternating(key: Array, shape: _Shape, dtype: object = None) -> Array:
        signs = 1.0 - 2.0 * (jnp.arange(shape[0]) % 2)
        return signs[:, None] * jnp.abs(init(key, shape))

    kernel_init, bias_init = init, init
    if rule == "balanced":
        kernel_init, bias_init = alternating, nn.initializers.constant(prior)
    return nn.Dense(1, kernel_init=kernel_init, bias_init=bias_init, name=name)(x)[..., 0]


class MLP(nn.Module):
    """Linear -> (batch norm) -> ReLU -> (dropout) for each width, then Linear to one logit.

    `[B, F]` -> `[B]`, or `[B, hidden[-1]]` without the output layer.

    Note: `init_rule` 'torch' is the reference library's. Embeddings start near zero, so the sign
    of a hidden unit is that of its random bias for every instance, and half of the units start
    dead; lowering all logits to the click rate in the first steps switches off more; and if the
    output weights of the others have one sign, the logit stays bounded on one side.
    With layers as small as (16, 8) some trainings then fail. 'balanced' starts with zero
    biases, the output bias at the log-odds of a click, and output weights of alternating sign;
    it does not change anything else.

    Attributes:
      hidden: widths of the hidden layers.
      batch_norm: normalise before each ReLU.
      dropout: rate after each ReLU; needs a 'dropout' rng in training.
      init_rule: 'balanced' or 'torch'.
      output: whether the network ends in the layer to one logit.
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
            x = dense(width, f"hidden_{i}", x, self.init_rule, normed=self.batch_norm)
            if self.batch_norm:
                x = batch_norm(train, self.axis_name, name=f"norm_{i}")(x)
            x = nn.relu(x)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return to_logit("output", x, self.init_rule, self.prior) if self.output else x


def regularize(name: str, x: Array, mlp: MLP, train: bool) -> Array:
    """Applies batch norm and dropout, if `mlp` has them, to its input `[B, F]`."""
    if mlp.batch_norm:
        x = batch_norm(train, mlp.axis_name, name=name)(x)
    return nn.Dropout(mlp.dropout, deterministic=not train)(x)
