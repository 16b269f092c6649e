"""The equations of the registry are those in the docstrings of the networks."""

from __future__ import annotations

import pytest

from ihas_jax.config import ModelConfig
from ihas_jax.models import MODELS, build_model
from ihas_jax.models.crosses import Crosses

NAMES = tuple(MODELS)
CROSSES = {"dcn": "vector", "dcnv2": "matrix", "gdcn": "gated"}


def words(text):
    return " ".join(text.split())


@pytest.mark.parametrize("name", sorted(set(NAMES) - CROSSES.keys()))
def test_the_docstring_of_the_network_begins_with_the_equation(name):
    network = build_model(ModelConfig(name=name), (5, 4, 3)).network
    assert words(network.__doc__).startswith(MODELS[name].equation)


@pytest.mark.parametrize(("name", "kind"), CROSSES.items())
def test_the_cross_of_the_equation_is_that_of_its_kind(name, kind):
    assert build_model(ModelConfig(name=name), (5, 4, 3)).network.crosses.kind == kind
    (line,) = (line for line in Crosses.__doc__.splitlines() if f"'{kind}': x <- " in line)
    assert f"with {line.partition(': ')[2]}" in MODELS[name].equation
