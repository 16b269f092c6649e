"""The first lines of a report: better, smaller, faster?"""

from __future__ import annotations

import math

import pytest

from ihas_jax.reporting.answers import answers


def microseconds(low, middle, high):
    spread = {"middle": middle, "low": low, "high": high}
    times = {"base": {"middle": 0.5}, "spectral": {"middle": 0.5 * middle}}
    return times | {"ratio": spread, "turns": 7}


METRICS = {
    "method": "spectral",
    "base": {"auc": 0.7, "parameters": 1000},
    "spectral": {"auc": 0.71, "parameters": 250},
    "gain": {"auc": 0.01, "low": 0.004, "high": 0.016, "p": 0.0012},
    "microseconds": microseconds(0.8, 0.9, 0.95),
}


def test_each_question_has_its_line_with_its_numbers():
    better, smaller, faster = answers(METRICS)
    assert better == (
        "- **Better?** Yes. Spectral has a test AUC of 0.7100 and the base model one of 0.7000: "
        "+0.0100 ± 0.0060 (95 % certainty on these test rows, p 0.001)."
    )
    assert smaller == (
        "- **Smaller?** Yes. Spectral has 250 parameters and the base model 1,000: 4.0 times fewer."
    )
    assert faster == (
        "- **Faster?** Yes. Spectral takes 0.45 µs per row and the base model 0.50: 0.90 times as "
        "long, 0.80 to 0.95 in 7 turns."
    )


@pytest.mark.parametrize(
    ("gain", "half", "words"),
    [
        (0.01, 0.011, "Can't be told apart."),
        (-0.01, 0.011, "Can't be told apart."),
        (0.0, 0.0, "Can't be told apart."),
        (-0.01, 0.009, "No, worse."),
        (0.0005, 0.0001, "Yes."),
    ],
)
def test_a_gain_within_the_noise_is_none(gain, half, words):
    found = {"auc": gain, "low": gain - half, "high": gain + half, "p": 0.5}
    line = answers(METRICS | {"gain": found})[0]
    assert f"**Better?** {words} " in line
    assert ("another seed may change 0.001" in line) == (gain == 0.0005)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        ((0.8, 0.9, 1.01), "Can't be told apart."),
        ((0.99, 1.2, 1.3), "Can't be told apart."),
        ((1.1, 1.2, 1.3), "No, slower."),
    ],
)
def test_a_time_is_other_where_all_turns_agree(ratio, words):
    assert f"**Faster?** {words} " in answers(METRICS | {"microseconds": microseconds(*ratio)})[2]


def test_what_routing_needs_counts():
    own = METRICS["spectral"] | {"router_parameters": 3750}
    line = answers(METRICS | {"spectral": own})[1]
    assert "No, larger. Spectral has 4,000 parameters" in line and "4.0 times more" in line
    assert "3,750 of them serve routing, and without them there are 4.0 times fewer" in line
    equal = METRICS["spectral"] | {"parameters": 1000}
    assert "No, of equal size." in answers(METRICS | {"spectral": equal})[1]


def test_what_was_not_measured_is_said_with_how_to_get_it():
    old = {name: METRICS[name] for name in ("method", "base", "spectral")}
    better, smaller, faster = answers(old)
    assert "Not known." in better and "+0.0100" in better and "Delete metrics.json" in better
    assert "4.0 times fewer" in smaller
    assert "Not known." in faster and "Delete metrics.json" in faster


def test_few_test_rows_have_no_noise_and_one_class_no_auc():
    gain = {"auc": 0.01, "low": math.nan, "high": math.nan, "p": math.nan}
    line = answers(METRICS | {"gain": gain})[0]
    assert "Not known." in line and "too few" in line and "nan" not in line
    own = METRICS["spectral"] | {"auc": math.nan}
    line = answers(METRICS | {"spectral": own, "gain": gain})[0]
    assert "Not known." in line and "one class" in line and "nan" not in line


def test_a_base_model_alone_has_nothing_beside_it():
    found = answers({"method": "none", "base": METRICS["base"]})
    assert len(found) == 3 and all("? ** Not".replace("? **", "?**") in line for line in found)
    assert "--method" in found[0] and "1,000 parameters" in found[1]


def test_a_student_stands_beside_the_base_model():
    own = METRICS["microseconds"] | {"student": {"middle": 0.45}}
    metrics = METRICS | {"method": "none", "student": METRICS["spectral"], "microseconds": own}
    assert all("student" in line for line in answers(metrics))
