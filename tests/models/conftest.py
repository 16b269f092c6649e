from __future__ import annotations

import pytest

from ihas_jax.config import ModelConfig
from ihas_jax.models import MODELS


@pytest.fixture(scope="module", params=MODELS)
def small(request):
    """A small configuration of each model."""
    return ModelConfig(
        name=request.param, dim=3, hidden=(8,), cross_layers=2, xdeepfm_cin=(3, 2),
        afm_attention=3, autoint_width=4, autoint_layers=1, afn_neurons=3, finalmlp_gate=8,
        finalmlp_heads=2, masknet_blocks=2, masknet_width=3,
    )  # fmt: skip
