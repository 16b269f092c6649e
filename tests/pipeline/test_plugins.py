"""Modules that register click models and methods, as other processes need them."""

from __future__ import annotations

import pickle

import pytest

from ihas_jax.errors import InputError
from ihas_jax.models import MODELS
from ihas_jax.pipeline.plugins import import_file, modules_of
from ihas_jax.selectors import METHODS

CODE = """
from dataclasses import dataclass

import ihas_jax as ihas
from ihas_jax.config import MethodConfig
from ihas_jax.models import MODELS
from ihas_jax.selectors import METHODS, Method


@dataclass(frozen=True)
class OwnConfig(MethodConfig):
    flag = "own_method"


ihas.register_model("own_model", MODELS["fm"])
ihas.register_method("own_method", Method("Own", METHODS["uniform"].build, (OwnConfig,)))
"""


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Registries as they were before the test."""
    for registry in (MODELS, METHODS):
        for name in ("_entries", "sources"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


def test_files_that_registered_what_is_used_are_named_once(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(CODE)
    import_file(path)
    assert modules_of(["fm", "own_model", "own_model"]) == (str(path),)
    assert modules_of(["fm"]) == ()


def test_objects_of_a_file_can_be_copied(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(CODE)
    import_file(path)
    own = METHODS["own_method"].options[0]()
    assert pickle.loads(pickle.dumps(own)) == own


@pytest.mark.parametrize("names", [{"__name__": "__main__"}, {}])
def test_what_the_program_itself_registers_is_refused_where_it_is_used(names):
    exec(CODE, names)
    with pytest.raises(InputError, match=r"can't import 'own_model' .*workers=1"):
        modules_of(["own_model"])
    assert modules_of(["fm"]) == ()
