"""Click models: table shapes and a network over looked-up rows. `build_model` is the registry."""

from __future__ import annotations

import math

from ihas_jax.config import ModelConfig
from ihas_jax.models.base import Model
from ihas_jax.models.dnn import build_dnn
from ihas_jax.nn.embedding import Kept

_BUILDERS = {"dnn": build_dnn}


def build_model(
    config: ModelConfig,
    sizes: tuple[int, ...],
    *,
    kept: Kept | None = None,
    click_rate: float = 0.5,
    axis_name: str | None = None,
) -> Model:
    """Builds the click model that `config.name` names.

    Note: the output starts at the log-odds of `click_rate`; the reference library's starts
    near zero, as it does here with `config.init` 'torch'.

    Args:
      config: the model's choices.
      sizes: values of each field, N entries (`schema.sizes`).
      kept: kept coordinates of each field in the embedding table; None keeps all.
      click_rate: share of clicks among the rows to train on, strictly between 0 and 1.
      axis_name: mapped axis over which batch-norm statistics are averaged.
    """
    return _BUILDERS[config.name](
        config, sizes, kept, math.log(click_rate / (1 - click_rate)), axis_name
    )
