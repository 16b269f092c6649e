"""What `ihas_jax.selectors` offers."""

from __future__ import annotations

from ihas_jax.config import MethodConfig
from ihas_jax.models.forward import Lookup, Transformed
from ihas_jax.selectors.base import Recipe, Selecting, Selector, Weights
from ihas_jax.selectors.budget import fill, numbers_to_keep
from ihas_jax.selectors.plan import SERVE_SEARCHED, Expert, Plan, SearchResult, single
from ihas_jax.selectors.registry import METHODS, Method, register_method
from ihas_jax.selectors.search import make_gate_step, make_model_step
from ihas_jax.selectors.selection import Selection, kept_coordinates, mark_largest

__all__ = [
    "METHODS",
    "SERVE_SEARCHED",
    "Expert",
    "Lookup",
    "Method",
    "MethodConfig",
    "Plan",
    "Recipe",
    "SearchResult",
    "Selecting",
    "Selection",
    "Selector",
    "Transformed",
    "Weights",
    "fill",
    "kept_coordinates",
    "make_gate_step",
    "make_model_step",
    "mark_largest",
    "numbers_to_keep",
    "register_method",
    "single",
]
