"""The answers of the comparison at equal sizes: the goal, and clusters beside one model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from ihas_jax.reporting.comparison import Gain, Spread


@pytest.fixture
def verdict(script):
    """The verdict on a method's AUC by seed, those of the uniform and the full size."""
    rows, verdicts = script("sizes.rows"), script("sizes.verdict")
    answers = script("sizes.answers")

    def judge(method, uniform, full):
        sizes = rows.Sizes(rows.kinds_of(["spectral"]), (0.5,), taught=True)
        by_row = {"student": full, "uniform_0.5": uniform, "spectral_0.5": method}
        found = {row: aucs(*values) for row, values in by_row.items()}
        ((kind, only),) = verdicts.verdicts(sizes, found, 0.5)
        assert kind.name == "spectral"
        lines = [line.split(" | ") for line in answers.goal_lines(sizes, {"a log": found})]
        (row,), (last,) = ([x for x in lines if x[0] == f"| {w}"] for w in ("a log", "everywhere"))
        return only, (row[2], row[3].removesuffix(" |"), last[3].removesuffix(" |"))

    return judge


UNIFORM = np.array([0.801, 0.800, 0.802, 0.799, 0.803])
NOISE = np.array([1e-5, -1e-5, 2e-5, -2e-5, 0.0])


@pytest.mark.parametrize(
    ("gain", "loss", "words"),
    [
        (0.0012, 0.0021, ("holds", "holds")),
        (0.0008, 0.0021, ("holds", "does not hold")),
        (-0.0002, 0.0021, ("holds", "does not hold")),
        (-0.0004, 0.0021, ("does not hold", "does not hold")),
        (-0.0002, 0.0019, ("holds", "not asked for")),
        (-0.0004, 0.0019, ("does not hold", "not asked for")),
        (0.0012, -0.0021, ("holds", "not asked for")),  # the uniform size is the better one
    ],
)
def test_the_goal_has_two_parts(verdict, gain, loss, words):
    found, cells = verdict(UNIFORM + gain + NOISE, UNIFORM, UNIFORM + loss - NOISE)
    assert tuple(found.words.values()) == words
    assert found.gain.spread.mean == pytest.approx(gain)
    assert found.loss == pytest.approx(loss)
    reached = "does not hold" not in words
    cell = f"{gain:+.4f}" + (" (p <0.001)" if words[1] != "not asked for" else "")
    last = "reached" if reached else "**not in 1 of 1**"
    assert cells == (f"{-loss:+.4f}", cell if reached else f"**{cell}**", last)


def test_a_gain_within_the_noise_of_the_seeds_is_none(verdict):
    noise = np.array([0.006, -0.004, 0.005, -0.003, 0.002])
    found, cells = verdict(UNIFORM + noise, UNIFORM, UNIFORM + 0.003 - NOISE)
    p = ttest_1samp(noise, 0).pvalue
    assert found.gain.p == pytest.approx(p) and p > 0.05
    assert found.gain.spread.mean > 0.001
    assert found.words == {"not below": "holds", "above": "does not hold"}
    assert f"(p {p:.3f})**" in cells[1]


def test_a_verdict_on_one_class_is_not_defined(verdict):
    found, cells = verdict([float("nan")] * 2, [float("nan")] * 2, [float("nan")] * 2)
    assert set(found.words.values()) == {"not defined"}
    assert cells == ("not defined", "not defined", "not known")


def test_the_level_is_that_of_the_goal(script):
    verdict = script("sizes.verdict").Verdict
    for p, word in ((0.049, "holds"), (0.051, "does not hold")):
        found = verdict(Gain(Spread(0.002, 0.001), p), 0.002)
        assert found.words["above"] == word


def aucs(*values):
    return [{"auc": auc} for auc in values]


def test_several_clusters_are_compared_with_one(script):
    rows, answers = script("sizes.rows"), script("sizes.answers")
    sizes = rows.Sizes(rows.kinds_of(["spectral", "ihas"]), (0.5,), taught=True)
    found = {
        "spectral_0.5": aucs(0.70, 0.72, 0.71),
        "spectral_two_0.5": aucs(0.71, 0.73, 0.7201),
        "ihas_own_0.5": aucs(0.71, 0.73, 0.72),
        "ihas_own_one_0.5": aucs(0.71, 0.75, 0.71),
        "ihas_one_0.5": aucs(0.71, 0.73, 0.72),
    }
    lines = answers.cluster_lines(sizes, {"log": found})
    headers, _, row = (line.split(" | ") for line in lines if line.startswith("|"))
    assert headers[2:] == [
        *("Spectral, two clusters", "iHAS", "iHAS on principal axes"),
        "iHAS, own axes of each cluster |",
    ]
    assert row[2:] == [
        *("**+0.0100 ± 0.0001 (p <0.001)**", "", ""),
        "-0.0033 ± 0.0153 (p 0.742) |",
    ]
    assert answers.cluster_lines(rows.Sizes(rows.kinds_of([]), (0.5,), taught=True), {}) == []
