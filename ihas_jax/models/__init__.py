"""Click models: table shapes and a network over embeddings, and what authors of a model need."""

from __future__ import annotations

from ihas_jax.models.base import Model, Variables
from ihas_jax.models.parts import Network, Parts
from ihas_jax.models.registry import MODELS, ClickModel, build_model, register_model

__all__ = [
    "MODELS",
    "ClickModel",
    "Model",
    "Network",
    "Parts",
    "Variables",
    "build_model",
    "register_model",
]
