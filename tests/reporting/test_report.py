"""`report.md` and the closing table: which number stands where."""

from __future__ import annotations

import pytest

from ihas_jax.config import Config
from ihas_jax.flags import replaced
from ihas_jax.reporting import report, scores
from ihas_jax.reporting.drawing import figure_names

METRICS = {
    "method": "ihas",
    "models": {"base": "dnn", "search": "dnn", "ihas": "dnn"},
    "base": {"auc": 0.7, "logloss": 0.5, "parameters": 1000},
    "search": {"auc": 0.71, "logloss": 0.49, "parameters": 1200, "kept": 0.6},
    "ihas": {"auc": 0.695, "logloss": 0.51, "parameters": 300, "router_parameters": 450},
    "clusters": [
        {"share": 0.25, "kept": 0.5, "widths": {"f0": 2, "f1": 1}, "model": "cluster_0",
         "fallback": None, "test": {"auc": 0.6, "logloss": 0.4}},
        {"share": 0.75, "kept": 0.625, "widths": {"f0": 4, "f1": 3}, "model": "all",
         "fallback": "it is small", "test": None},
    ],
    "kmeans": [{"rows": 2000, "inertia": 0.125}],
    "seconds": {"base": 1.25},
}  # fmt: skip
HISTORIES = {
    "base": [{"epoch": e, "auc": auc, "logloss": 0.5} for e, auc in enumerate((0.6, 0.8, 0.7))]
}


def lines(metrics=METRICS, config=None):
    names = figure_names(["f0", "f1"])
    return report.render_report(config or Config(), metrics, HISTORIES, names).splitlines()


def test_every_model_has_its_scores_and_what_it_is_above_the_base():
    found = lines()
    assert "| base | 0.7000 | 0.5000 | 1,000 |  |" in found
    assert "| search (iHAS-1) | 0.7100 | 0.4900 | 1,200 | +0.0100 |" in found
    assert "| iHAS | 0.6950 | 0.5100 | 300 | -0.0050 |" in found
    grid = scores.closing_table(METRICS)
    assert grid.rows[2] == ("iHAS", "0.6950", "0.5100", "300", "-0.0050")
    assert any("needs 450 more" in line for line in found)
    assert any("keeps 60.0% of the coordinates" in line for line in found)


def test_a_gain_over_another_click_model_is_not_shown():
    found = lines(METRICS | {"models": {"base": "fm", "search": "dnn", "ihas": "fm"}})
    assert "| search (iHAS-1), dnn | 0.7100 | 0.4900 | 1,200 |  |" in found
    assert "| iHAS, fm | 0.6950 | 0.5100 | 300 | -0.0050 |" in found


@pytest.mark.parametrize(
    ("name", "share", "said"), [("search", 0.0, True), ("search", 0.5, False), ("base", 0.0, False)]
)
def test_a_search_that_saw_its_validation_rows_is_said_to_have(name, share, said):
    config, names = replaced(Config(), "search.stopping_share", share), figure_names(["f0", "f1"])
    text = report.render_report(config, METRICS, {name: HISTORIES["base"]}, names)
    assert ("is of rows that the search has seen" in text) == said


def test_every_cluster_has_its_share_and_width_and_the_reason_of_a_fallback():
    found = lines()
    assert "| 0 | 25.0% | 50.0% | 0.6000 | 0.4000 | cluster_0 |" in found
    assert "| 1 | 75.0% | 62.5% | no rows | no rows | all (it is small) |" in found
    assert "| f1 | 1 | 3 |" in found
    assert "| 2,000 | 0.125000 |" in found


def test_the_best_epoch_is_that_of_the_best_auc_and_the_seconds_are_there():
    found = lines()
    assert "| base | 3 | 1 | 0.8000 | 0.5000 |" in found
    assert "| base | 1.2 |" in found


@pytest.mark.parametrize(
    ("config", "words"),
    [(Config(), "none"), (replaced(Config(), "gates.weight", 0.3), "gates.weight: ")],
)
def test_values_that_differ_from_the_papers_are_named(config, words):
    (line,) = [line for line in lines(config=config) if "differ from the paper's" in line]
    assert words in line and line.count(";") == 0


TEACHER = {"auc": 0.72, "logloss": 0.48, "parameters": 5000, "models": ["dnn:2", "gdcn"]}
STUDENT = {"method": "none", "seconds": {}, "base": METRICS["base"], "student": METRICS["base"]}


def test_without_teachers_nothing_is_said_of_them():
    assert scores.closing_table(METRICS).headers[-1] == "vs base"
    text = "\n".join(lines())
    assert "| AUC vs base |" in text and "teachers" not in text and "clicks" not in text


@pytest.mark.parametrize(
    ("metrics", "wanted", "other"),
    [
        (METRICS, "`--method none --retrain.teachers dnn:2 gdcn`", "worth what it adds"),
        (STUDENT, "worth what it adds to", "--method none"),
        (
            METRICS | {"teacher": TEACHER | {"models": ["search"]}},
            "learnt from clicks",
            "--method none",
        ),
    ],
)
def test_taught_models_stand_beside_a_base_that_is_said_to_have_learnt_from_clicks(
    metrics, wanted, other
):
    metrics = {"teacher": TEACHER} | metrics
    assert scores.closing_table(metrics).headers[-1] == "vs base, clicks"
    text = "\n".join(lines(metrics))
    assert "| parameters | AUC vs base, clicks |" in text
    assert "The base model has learnt from clicks" in text
    assert wanted in text and other not in text
