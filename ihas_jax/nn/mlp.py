"""The multi-layer perceptron of the reference library."""

from __future__ import annotations

import jax
from flax import linen as nn
from jax import Array

from ihas_jax.config import BiasInit


class Linear(nn.Module):
    """Fully connected layer, `[..., F_in]` -> `[..., features]`.

    Attributes:
      features: outputs.
      bias_init: the weight starts in U(-1/sqrt(F_in), 1/sqrt(F_in)); the bias too with
        'uniform', as in torch, or at `bias`.
      bias: the constant at which the biases start otherwise.
    """

    features: int
    bias_init: BiasInit = "zeros"
    bias: float = 0.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the layer."""
        bound = x.shape[-1] ** -0.5

        def uniform(key: Array, shape: tuple[int, ...], dtype: object = None) -> Array:
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        constant = nn.initializers.constant(self.bias)
        bias_init = uniform if self.bias_init == "uniform" else constant
        return nn.Dense(self.features, kernel_init=uniform, bias_init=bias_init, name="linear")(x)


class MLP(nn.Module):
    """Linear -> (batch norm) -> ReLU -> (dropout) for each width, then Linear to one logit.

    `[B, F]` -> `[B]`, or `[B, hidden[-1]]` without the output layer.

    Note: with torch's random biases and embeddings that start near zero, the sign of a hidden
    unit is its bias's for every instance: half of the units start dead, and now and then nearly
    all of a layer of eight, which then learns next to nothing. Zero biases avoid that, if the
    output starts at the log-odds of a click: else the first steps, which lower every logit,
    switch off all units with positive output weights.

    Note: running variances use the batch's biased variance, torch's the unbiased one: a factor
    of B / (B - 1).

    Attributes:
      hidden: widths of the hidden layers.
      batch_norm: normalise before each ReLU (epsilon 1e-5, momentum 0.9).
      dropout: rate after each ReLU; needs a 'dropout' rng in training.
      bias_init: see `Linear`.
      output: whether the last Linear(1) is there.
      prior: its bias at the start, unless `bias_init` is 'uniform'.
      axis_name: mapped axis over which batch statistics are averaged.
    """

    hidden: tuple[int, ...]
    batch_norm: bool = False
    dropout: float = 0.0
    bias_init: BiasInit = "zeros"
    output: bool = True
    prior: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Applies the network; `train` selects batch statistics and dropout."""
        for i, width in enumerate(self.hidden):
            x = Linear(width, self.bias_init, name=f"hidden_{i}")(x)
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
        return Linear(1, self.bias_init, self.prior, name="output")(x)[..., 0] if self.output else x
