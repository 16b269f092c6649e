"""Flags that would have no effect are refused, and comparisons leave them out."""

from __future__ import annotations

import dataclasses

import pytest

from ihas_jax.config import Config
from ihas_jax.errors import InputError
from ihas_jax.flags import replaced, value_of
from ihas_jax.pipeline.fit import fit
from ihas_jax.pipeline.idle import check_flags, for_method
from ihas_jax.selectors.registry import METHODS, Method, register_method

TAUGHT = {"retrain.teachers": ("lr",)}
AT_ONCE = {"search.pretrain_epochs": 0}
STEADY = {"gates.instance_wise": False}
IDLE = [
    ("none", {}, "budget", 0.5, "--method none keeps the whole table"),
    ("none", {}, "search.rotate", True, "--method none has no search"),
    ("none", {}, "retrain.start", "tables", "no searched model to start from"),
    ("none", TAUGHT, "retrain.start", "fresh", "a student starts from fresh weights"),
    ("adafs_soft", {}, "retrain.start", "searched", "serves its searched model"),
    ("adafs_hard", TAUGHT, "retrain.start", "fresh", "serves its searched model"),
    ("autoemb", {}, "retrain.start", "searched", "serves its searched model"),
    ("ihas", {}, "cluster.cut", "axes", "Choose a --budget"),
    ("ihas", {}, "cluster.axes", "own", "Choose a --budget"),
    ("ihas", {}, "cluster.min_agreement", 0.5, "Choose --cluster.router compiled"),
    ("ihas", {"cluster.clusters": 1}, "cluster.router", "compiled", "one cluster has no router"),
    ("spectral", {"spectral.clusters": 2}, "cluster.min_agreement", 0.5, "router compiled"),
    ("ihas", STEADY, "gates.inputs", "unit", "gates that read no embeddings"),
    ("ihas", STEADY, "gates.matmul", "bfloat16", "gates that read no embeddings"),
    ("ihas", STEADY, "gates.rank", 2, "gates that read no embeddings"),
    ("ihas", STEADY, "gates.gradient_to_tables", False, "gates that read no embeddings"),
    ("ihas", {"gates.threshold": "half"}, "gates.bins", 9, "looks at no histogram"),
    ("spectral", {}, "cluster.clusters", 3, "Choose that"),
    ("spectral", {"budget": 0.5}, "cluster.cut", "axes", "Choose that"),
    ("spectral", {"budget": 0.5}, "cluster.axes", "own", "Choose that"),
    ("spectral", {}, "cluster.min_rows", 7, "one model for all rows"),
    ("spectral", {"spectral.clusters": 2}, "cluster.majority", 0.9, "Choose that"),
    ("ihas", {"budget": 0.5}, "cluster.majority", 0.9, "--budget says how much is kept"),
    ("pep", {"budget": 0.5}, "pep.kept", 0.7, "--budget says how much is kept"),
    ("uniform", {"budget": 0.5}, "uniform.dim", 3, "--budget says how much is kept"),
    ("ihas", {}, "retrain.teacher_weight", 0.5, "there are no teachers"),
    ("none", {}, "retrain.teacher_mean", "log_odds", "there are no teachers"),
    ("pep", {}, "retrain.teacher_folds", 2, "no teacher is trained in folds"),
    (*("pep", {"retrain.teachers": ("base",)}), "retrain.teacher_folds", 2, "in folds"),
    ("none", TAUGHT, "retrain.teacher_mean", "log_odds", "there is one teacher"),
    ("uniform", AT_ONCE, "retrain.start", "searched", "--method uniform has no searched model"),
    ("mixed", AT_ONCE, "retrain.start", "tables", "has no searched model"),
    ("random", AT_ONCE, "retrain.start", "fresh", "has no searched model"),
]
AT_WORK = [
    ("none", TAUGHT, "retrain.teacher_weight", 0.5),
    ("none", {"retrain.teachers": ("base", "lr")}, "retrain.teacher_folds", 2),
    ("none", {"retrain.teachers": ("lr:2",)}, "retrain.teacher_mean", "log_odds"),
    ("adafs_soft", TAUGHT, "retrain.teacher_weight", 0.5),  # its search is taught
    ("ihas", {"budget": 0.5}, "cluster.cut", "axes"),
    ("ihas", {"budget": 0.5}, "cluster.axes", "own"),
    ("ihas", {}, "gates.inputs", "unit"),
    ("ihas", {"gates.threshold": "literal"}, "gates.bins", 9),
    ("ihas", {"cluster.router": "compiled"}, "cluster.min_agreement", 0.5),
    ("spectral", {"spectral.clusters": 2}, "cluster.router", "compiled"),
    ("ihas", {}, "search.rotate", True),
    ("spectral", {"spectral.clusters": 2}, "cluster.min_rows", 7),
    ("ihas", {}, "cluster.majority", 0.9),
    ("pep", {}, "cluster.cut", "axes"),  # an option of another method of a comparison
    ("uniform", {}, "retrain.start", "searched"),
]


def config_of(method, values, flag=None, value=None):
    config = Config(method=method)
    for name, wanted in {**values, **({flag: value} if flag else {})}.items():
        config = replaced(config, name, wanted)
    return config


@pytest.mark.parametrize(("method", "values", "flag", "value", "why"), IDLE)
def test_a_flag_without_effect_is_refused(method, values, flag, value, why):
    name = flag.replace("_", "-")
    with pytest.raises(InputError, match=f"^--{name} would have .*{why}.* leave --{name} out"):
        check_flags(config_of(method, values, flag, value))
    check_flags(config_of(method, values))


@pytest.mark.parametrize(("method", "values", "flag", "value"), AT_WORK)
def test_a_flag_with_an_effect_stays(method, values, flag, value):
    config = config_of(method, values, flag, value)
    check_flags(config)
    assert for_method(config) == config


@pytest.mark.parametrize(("method", "values", "flag", "value", "why"), IDLE)
def test_comparisons_leave_out_what_means_nothing_to_a_method(method, values, flag, value, why):
    config = config_of(method, values, flag, value)
    if flag.startswith("retrain.teacher"):  # which means nothing to any method
        assert for_method(config) == config
    else:
        assert for_method(config) == config_of(method, values)


def test_every_default_is_no_flag():
    for method in ("none", *METHODS):
        check_flags(Config(method=method))


def test_nothing_is_written_before_flags_are_checked(tiny, small, tmp_path):
    config = dataclasses.replace(tiny.config, method="none")
    with pytest.raises(InputError, match=r"^--retrain\.start would have no effect"):
        fit(replaced(config, "retrain.start", "tables"), small, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_method_from_outside_may_name_such_flags():
    register_method(
        "own",
        Method("Own", lambda *_: None, idle=lambda config: {"search.rotate": "it is. Choose pep"}),
    )
    with pytest.raises(InputError, match=r"--search\.rotate would have no effect, since it is\."):
        check_flags(config_of("own", {"search.rotate": True}))


def test_a_flag_is_read_by_its_name():
    config = config_of("ihas", {"search.gate_optimizer.l2": 0.25, "gates.weight": 0.5})
    assert value_of(config, "search.gate-optimizer.l2") == 0.25
    assert (value_of(config, "gates.weight"), value_of(config, "method")) == (0.5, "ihas")
    with pytest.raises(InputError, match="SearchConfig has no value named 'weight'"):
        value_of(config, "search.weight")
