"""What to try next: each rule, where it applies and where it does not."""

from __future__ import annotations

import math

import pytest

from ihas_jax.config import Config
from ihas_jax.flags import replaced
from ihas_jax.presets import preset
from ihas_jax.stages.advice import advise, more_updates

OWN = {"fallback": None}
HEALTHY = {
    "method": "ihas",
    "search": {"gate_updates": 2340, "from_half": 0.44, "differ": 0.14},
    "clusters": [OWN, OWN],
}
"""The gates of the synthetic log with --preset small, as measured."""
BEST_LATER = [{"epoch": e, "auc": auc, "logloss": 0.5} for e, auc in enumerate((0.7, 0.8, 0.75))]
BEST_FIRST = [{"epoch": e, "auc": auc, "logloss": 0.5} for e, auc in enumerate((0.8, 0.75, 0.7))]
HISTORIES = {"base": BEST_LATER, "search": BEST_FIRST, "retrain cluster_0": BEST_LATER}


def found(metrics=HEALTHY, histories=HISTORIES, config=None):
    return advise(config or preset("small"), metrics, histories)


def only(*arguments, **more):
    (advice,) = found(*arguments, **more)
    return advice


def searched(**facts):
    return HEALTHY | {"search": HEALTHY["search"] | facts}


def test_a_run_without_a_diagnosis_has_nothing_to_try():
    assert found() == []


@pytest.mark.parametrize("missing", ["gate_updates", "differ"])
def test_metrics_of_an_earlier_version_give_no_false_alarm(missing):
    old = {name: value for name, value in HEALTHY["search"].items() if name != missing}
    assert found(HEALTHY | {"search": old}) == []


def test_masks_that_are_alike_are_named_with_how_much_they_differ():
    advice = only(searched(differ=0.0042))
    assert "do not depend on the instance" in advice.found and "0.42%" in advice.found
    assert "`--gates.weight 0.0001`" in advice.remedy
    assert "`--gates.inputs unit`" in advice.remedy and "`--cluster.clusters 1`" in advice.remedy
    again = only(searched(differ=0.0), config=replaced(preset("small"), "gates.inputs", "unit"))
    assert "unit" not in again.remedy and "`--cluster.clusters 1`" in again.remedy


@pytest.mark.parametrize(
    ("metrics", "config"),
    [
        (searched(differ=0.011), preset("small")),
        (searched(differ=0.0) | {"clusters": [OWN]}, preset("small")),  # which has no use for them
        (searched(differ=0.0), replaced(preset("small"), "gates.instance_wise", False)),
    ],
)
def test_masks_that_differ_or_need_not_are_left_alone(metrics, config):
    assert found(metrics, config=config) == []


def test_gates_that_barely_moved_are_near_even_odds():
    advice = only(searched(gate_updates=150, from_half=0.083))
    assert "barely moved" in advice.found and "150 updates" in advice.found
    assert "1/2 is 0.083" in advice.found
    assert "--search.gate-every 1 " in advice.remedy
    assert "--preset small" in only(searched(from_half=0.02), config=preset("paper")).remedy


def test_gates_without_probabilities_are_judged_by_the_length_of_their_way():
    metrics = {"method": "autofield", "search": {"gate_updates": 63}}
    config = preset("paper", method="autofield")
    advice = only(metrics, {}, config)
    assert "63 updates" in advice.found and "at most" in advice.found and "0.063" in advice.found
    assert found(metrics | {"search": {"gate_updates": 101}}, {}, config) == []
    # its searched model is the outcome
    served = {"method": "adafs_soft", "adafs_soft": {"gate_updates": 0}}
    assert "0 updates" in only(served, {}, preset("small", method="adafs_soft")).found


def test_gates_that_moved_are_left_alone():
    assert found(searched(gate_updates=1, from_half=0.24)) == []


def small(*numbers):
    few = {"fallback": "it has 40 training rows, fewer than cluster.min_rows = 100"}
    return HEALTHY | {"clusters": [few if c in numbers else OWN for c in range(3)]}


def test_a_cluster_below_its_size_is_named_with_its_rows():
    advice = only(small(1))
    assert "cluster 1: it has 40 training rows, fewer than cluster.min_rows = 100" in advice.found
    for flag in ("--cluster.clusters 2", "--cluster.min-rows"):
        assert f"`{flag}" in advice.remedy
    spectral = small(0, 2) | {"method": "spectral"}
    config = replaced(preset("small", method="spectral"), "retrain.start", "shared")
    advice = only(spectral, config=config)
    assert "cluster 0: it has" in advice.found and "cluster 2: it has" in advice.found
    assert "`--spectral.clusters 2`" in advice.remedy


def test_a_single_cluster_can_not_be_fewer():
    metrics = HEALTHY | {"clusters": small(0)["clusters"][:1]}
    assert "clusters 0" not in only(metrics).remedy
    # one cluster can't go on from a shared start, and groups of values are no clusters to count
    shared = replaced(preset("small"), "retrain.start", "shared")
    two = HEALTHY | {"clusters": small(0)["clusters"][:2]}
    assert "clusters 1" in only(two).remedy and "clusters 1" not in only(two, config=shared).remedy
    alike = searched(differ=0.0)
    assert "clusters 1" not in only(alike, config=shared).remedy
    assert found(alike, config=replaced(preset("small"), "retrain.group_by", "a")) == []


@pytest.mark.parametrize(
    "reason", [None, "a network for it alone has no smaller logloss on validation rows"]
)
def test_a_cluster_without_a_model_for_another_reason_is_not_too_small(reason):
    assert found(HEALTHY | {"clusters": [OWN, {"fallback": reason}]}) == []


@pytest.mark.parametrize("name", ["base", "student", "retrain", "retrain cluster_0"])
def test_a_training_that_was_best_after_its_first_epoch_overfits(name):
    advice = only(histories={name: BEST_FIRST})
    assert "Overfitting from the first epoch on" in advice.found
    assert f"{name} goes from an AUC of 0.8000 (epoch 0) to an AUC of 0.7000" in advice.found
    for flag in ("--optimizer.l2 0.0001`", "--optimizer.learning-rate"):
        assert f"`{flag}" in advice.remedy
    assert ("`--retrain.teachers dnn:2" in advice.remedy) == (name != "base")


def test_overfitting_is_seen_where_the_start_counts_and_where_there_is_no_auc():
    start = [{"epoch": -1, "auc": 0.81, "logloss": 0.5}, *BEST_FIRST]
    assert "0.8100 (the start)" in only(histories={"retrain": start}).found
    losses = [{"epoch": e, "auc": math.nan, "logloss": 0.1 + e} for e in range(3)]
    assert (
        "from a logloss of 0.1000 (epoch 0) to a logloss of 2.1000"
        in only(histories={"base": losses}).found
    )


@pytest.mark.parametrize(
    "histories",
    [
        {"base": BEST_LATER},
        {"base": BEST_FIRST[:1]},  # one epoch is the first and the last
        {"retrain": [{"epoch": e, "auc": 0.73 - 4e-4 * e, "logloss": 0.4} for e in range(3)]},
        {"search": BEST_FIRST, "teacher dnn": BEST_FIRST},  # of which nothing is served
    ],
)
def test_a_training_that_needs_its_epochs_or_has_one_is_left_alone(histories):
    assert found(histories=histories) == []


def test_flags_that_a_run_has_are_not_advised_again():
    config = preset("compact")
    assert "teachers" not in only(histories={"retrain": BEST_FIRST}, config=config).remedy
    strong = replaced(config, "optimizer.l2", 1e-3)
    assert "l2" not in only(histories={"base": BEST_FIRST}, config=strong).remedy


def test_each_diagnosis_has_its_line():
    for gates in ({"differ": 0.0}, {"differ": 0.0, "from_half": 0.01}):
        metrics = small(0) | searched(**gates) | {"clusters": small(0)["clusters"]}
        said = [advice.found for advice in found(metrics, {"base": BEST_FIRST}, Config())]
        moved = "from_half" not in gates  # masks of gates that have not moved are alike
        assert len(said) == 3
        assert any("Masks" in one for one in said) == moved
        assert any("barely moved" in one for one in said) == (not moved)


def test_the_remedy_for_few_gate_updates_is_new_to_the_run():
    assert "--preset small" in more_updates(preset("paper"))
    for config in (preset("small"), preset("small", method="dimreg")):
        assert "preset" not in more_updates(config)
    assert more_updates(preset("small")).startswith(
        "choose --search.gate-every 1 or --train.batch-size 256 or "
    )
