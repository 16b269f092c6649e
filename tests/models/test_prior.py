"""The log-odds at which a model starts are apart from what its programs depend on."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
import pytest
from flax import linen as nn

from ihas_jax.config import ModelConfig
from ihas_jax.models import MODELS, build_model
from ihas_jax.models.base import Model
from ihas_jax.models.forward import init_model
from ihas_jax.models.predict import predictor
from ihas_jax.models.prior import split_prior, with_prior

SIZES = (5, 4, 6, 7)


def models(name, rates=(0.2, 0.3), init="balanced"):
    config = ModelConfig(name=name, dim=4, hidden=(8, 4), init=init)
    return [build_model(config, SIZES, click_rate=rate) for rate in rates]


@pytest.mark.parametrize("init", ["balanced", "torch"])
@pytest.mark.parametrize("name", MODELS)
def test_models_that_differ_in_their_prior_share_one(name, init):
    pair = models(name, init=init)
    (one, first), (other, second) = map(split_prior, pair)
    assert one == other and hash(one) == hash(other)
    assert predictor(pair[0]) is predictor(pair[1])
    assert [with_prior(one, first), with_prior(other, second)] == pair
    if init == "balanced":
        assert (first, second) == (math.log(0.2 / 0.8), math.log(0.3 / 0.7))


def test_a_model_that_starts_at_even_odds_stays_as_it_is():
    (even,) = models("dnn", (0.5,))
    assert split_prior(even) == (even, None)
    assert with_prior(even, None) == even


def test_other_differences_stay():
    config = ModelConfig(name="dnn", dim=4, hidden=(8, 4))
    wide = build_model(dataclasses.replace(config, hidden=(8, 5)), SIZES, click_rate=0.2)
    (narrow,) = models("dnn", (0.2,))
    assert split_prior(wide)[0] != split_prior(narrow)[0]
    assert predictor(wide) is not predictor(narrow)


@pytest.mark.parametrize("name", ["lr", "wide_deep", "masknet", "finalmlp"])
def test_a_traced_prior_gives_the_same_parameters(name):
    (model,) = models(name, (0.2,))
    shared, prior = split_prior(model)
    init = jax.jit(lambda key, prior: init_model(key, with_prior(shared, prior)))
    key = jax.random.key(3)
    made, expected = init(key, prior), jax.jit(lambda key: init_model(key, model))(key)
    jax.tree.map(np.testing.assert_array_equal, made, expected)
    biases = [leaf for leaf in jax.tree.leaves(made.params["network"]) if leaf.size == 1]
    assert any(np.allclose(bias, math.log(0.25)) for bias in biases)


class Times(nn.Module):
    """A network of a user that computes with what it calls its prior."""

    prior: float
    part: nn.Module

    def __call__(self, vectors, *, train):
        return self.prior * self.part(vectors, train=train)


def test_a_prior_that_a_network_of_another_package_computes_with_stays():
    models_of = [
        Model(model.tables, Times(factor, model.network))
        for model, factor in zip(models("dnn", (0.5, 0.5)), (1.5, 2.5), strict=True)
    ]
    variables = init_model(jax.random.key(0), models_of[0])
    ids = np.zeros((3, len(SIZES)), np.int32)
    one, other = (predictor(model)(variables, ids, title="").probs for model in models_of)
    odds = [np.log(probs / (1 - probs)) for probs in (one, other)]
    np.testing.assert_allclose(odds[1], odds[0] * 2.5 / 1.5, rtol=1e-5)


class Two(nn.Module):
    first: nn.Module
    second: nn.Module


def test_a_network_with_several_priors_is_what_it_is():
    one, other = models("dnn")
    model = Model(one.tables, Two(one.network, other.network))
    assert split_prior(model) == (model, None)
    assert with_prior(model, None) == model
