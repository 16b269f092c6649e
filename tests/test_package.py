"""`import ihas_jax` alone imports nothing heavy, and its names come when they are asked for."""

from __future__ import annotations

import pytest

import ihas_jax
from ihas_jax import api


@pytest.mark.parametrize("name", ["nonsense", "a.b", "data.nothing", "", "__wrapped__"])
def test_a_name_that_there_is_not_is_an_attribute_error(name):
    assert not hasattr(ihas_jax, name)
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        getattr(ihas_jax, name)


def test_names_and_modules_are_there():
    assert set(api.__all__) == set(ihas_jax.__all__)
    for name in api.__all__:
        assert getattr(ihas_jax, name) is getattr(api, name)
    assert ihas_jax.data.schema.Schema is ihas_jax.Schema
    assert set(ihas_jax.__all__) <= set(dir(ihas_jax))
    namespace = {}
    exec("from ihas_jax import *", namespace)
    assert namespace.keys() >= set(api.__all__)
