"""Which teachers a run has."""

from __future__ import annotations

import dataclasses

import pytest

from ihas_jax.config import Config, ModelConfig, RetrainConfig
from ihas_jax.errors import InputError
from ihas_jax.stages.teachers import Teacher, teach_after_search, teachers_of


def taught(*teachers, **choices):
    return Config(retrain=RetrainConfig(teachers=teachers), **choices)


def test_a_teacher_for_each_seed_with_the_choices_of_the_run():
    model = ModelConfig(name="fm", dim=16, hidden=(7,))
    found = teachers_of(taught("dnn:2", "gdcn", "ffm", "base", "search", model=model))
    dnn, gdcn = (dataclasses.replace(model, name=name) for name in ("dnn", "gdcn"))
    ffm = dataclasses.replace(model, name="ffm", dim=4)
    assert found == (
        Teacher("dnn_0", dnn), Teacher("dnn_1", dnn), Teacher("gdcn_0", gdcn),
        Teacher("ffm_0", ffm), Teacher("base"), Teacher("search"),
    )  # fmt: skip


def test_small_vectors_of_pairs_stay_small():
    (fnfm,) = teachers_of(taught("fnfm", model=ModelConfig(dim=2)))
    assert fnfm.model is not None and fnfm.model.dim == 2


def test_entries_of_one_name_add_up():
    names = [teacher.name for teacher in teachers_of(taught("dnn", "lr", "dnn:2"))]
    assert names == ["dnn_0", "dnn_1", "dnn_2", "lr_0"]


@pytest.mark.parametrize(("names", "after"), [((), False), (("dnn",), False), (("search",), True)])
def test_the_searched_model_can_only_teach_after_the_search(names, after):
    assert teach_after_search(taught(*names)) == after


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("gdnc",), r"gdnc names no .* mean gdcn\? The teachers are base, search, lr, .*dnn:4"),
        (("base:2",), "base:2 names no teacher. Did you mean base?"),
        (("dnn:",), "dnn: needs a number of seeds after the colon"),
        (("dnn:0",), "dnn:0 needs a number of seeds"),
        (("dnn:two",), "dnn:two needs a number of seeds"),
        (("base", "base"), "names base twice"),
    ],
)
def test_an_entry_that_names_no_teacher_is_refused(names, message):
    with pytest.raises(InputError, match=f"--retrain.teachers {message}"):
        teachers_of(taught(*names))


def test_a_run_without_a_search_has_no_searched_teacher():
    with pytest.raises(InputError, match=r"--method none has no search; leave search out"):
        teachers_of(taught("search", method="none"))
