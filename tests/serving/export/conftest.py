"""Bundles with a router and drawn weights, in memory."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ihas_jax.config import ModelConfig
from ihas_jax.models import build_model
from ihas_jax.presets import preset
from ihas_jax.selectors.by_value import ScoreRouter, ValueRouter
from ihas_jax.selectors.registry import build_selector
from ihas_jax.selectors.routing import make_router
from ihas_jax.selectors.search import init_search

from .drawn import KEPT, SIZES, bundle_of, drawn, every_row, served


@pytest.fixture(scope="session")
def gates():
    """A search of iHAS with drawn weights: its config, model, selector and variables."""
    config = dataclasses.replace(preset("small"), model=ModelConfig(dim=4, hidden=(8, 4)))
    model = build_model(config.model, SIZES)
    selector = build_selector(config, model, 1)
    variables = init_search(jax.random.key(0), config, model, selector).variables
    params = drawn(variables.params)
    return SimpleNamespace(
        config=config, model=model, selector=selector, variables=variables._replace(params=params)
    )


@pytest.fixture(scope="session", params=["exact", "compiled", "value"])
def routed(request, gates):
    """A bundle of two models for three clusters, with each kind of router."""
    rng = np.random.default_rng(3)
    centroids = rng.normal(size=(3, 20)).astype(np.float32)
    first = np.concatenate([[0], np.cumsum(SIZES)[:-1]]).astype(np.int32)
    scores = rng.integers(-2, 3, size=(2, sum(SIZES))).astype(np.int16)  # with many ties
    router = {
        "exact": make_router(gates.model, gates.selector, gates.variables, centroids),
        "compiled": ScoreRouter(np.array([1, -1], np.int32), scores, first),
        "value": ValueRouter(3, np.array([2, 0, 1, 1, 0], np.uint8)),
    }[request.param]
    models = (served(gates.config.model, kept=KEPT), served(gates.config.model, 1))
    bundle = bundle_of(*models, config=gates.config, routes=(1, 0, 1), router=router)
    assert set(bundle.assign(every_row())) == {0, 1, 2}
    return bundle
