"""The report, table and figure of a compression, from metrics that one can check by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ihas_jax.config import Config
from ihas_jax.pipeline.present_front import present_front
from ihas_jax.reporting.front import render_front
from ihas_jax.reporting.front_figure import draw_front
from ihas_jax.reporting.front_table import front_table
from ihas_jax.reporting.front_words import choice, verdict
from ihas_jax.stages.run import Run


def facts(name, valid_auc, parameters, microseconds, taught=True, **more):
    own = {"auc": valid_auc + 0.01, "logloss": 0.6 - 0.2 * valid_auc, "bytes": 4 * parameters}
    valid = {"valid_auc": valid_auc, "valid_logloss": 0.5 - 0.2 * valid_auc, "valid_doubt": 0.001}
    size = {"parameters": parameters, "microseconds": microseconds, "taught": taught}
    return {"name": name, "budget": 1.0, **own, **valid, **size, **more}


@pytest.fixture
def metrics():
    """The best is dnn at 20 %; dnn at 10 % is behind by 0.0015, which is just allowed."""
    base = facts("base", 0.740, 8000, 2.0, taught=False) | {"trial": "dnn_1e-05"}
    candidates = [
        base,
        facts("lr_1e-05 on clicks", 0.745, 500, 0.2, taught=False),
        facts("dnn, spectral, 20 %", 0.750, 2000, 1.9),
        facts("dnn, spectral, 10 %", 0.7485, 1000, 1.8),
        facts("dnn, spectral, 5 %", 0.7482, 600, 0.5),
        facts("dcnv2, uniform, 5 %", 0.7481, 700, 0.6),
        facts("dcnv2, uniform, 2 %", 0.730, 300, 0.3),
    ]
    whole = facts("dnn, D = 16", 0.751, 8000, 0.0)
    del whole["microseconds"]
    return {
        "rows": {"training": 12345, "validation": 678, "test": 910, "clicks": 0.000432}
        | {"logloss_of_rate": 0.46},
        "base": base,
        "chosen": candidates[3],
        "gain": {"auc": 0.0085, "low": 0.002, "high": 0.015},
        "chance": {"auc": 0.2585, "low": 0.25, "high": 0.267},
        "front": candidates[1:4],
        "candidates": candidates,
        "diverged": [],
        "choices": {"tolerance": 0.0005, "standard_errors": 2.0},
        "students": [whole],
        "teachers": ["ffm_0", "lr_0", "ffm_0"],
        "teacher": whole | {"parameters": 100_000},
        "pool": [{"name": "ffm_0", "valid_auc": 0.747, "valid_logloss": 0.4}],
    }


def rows_of(text):
    """The cells of all rows of all tables, by their first cell."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {first.strip(): rest for first, *rest in lines}


def test_the_report_says_how_small_how_good_how_fast_how_sure(metrics):
    text = render_front(Config(), metrics)
    assert "**dnn, spectral, 10 %** is, of 7 candidates, the smallest that is about as good" in text
    assert "8.0 times fewer parameters than the base model" in text
    assert "+0.0085, is beyond the noise" in text and "between +0.0020 and +0.0150" in text
    rows = rows_of(text)
    assert rows["parameters"] == ["8,000", "1,000", "8.0 times fewer"]
    assert rows["µs per row"] == ["2.00", "1.80", "about the same"]
    assert rows["test AUC (more is better)"] == ["0.7500", "0.7585", "+0.0085"]
    assert rows["test logloss (less is better)"] == ["0.4520", "0.4503", "-0.0017"]
    assert "12,345 training rows (0.0432 % clicks), 678 validation rows and 910 test rows" in text
    assert "ffm_0 (counts 2 times), lr_0." in text


def test_a_model_that_ranks_no_better_than_chance_is_said_to_do_so(metrics):
    config = Config()
    assert "chance" not in render_front(config, metrics) + verdict(metrics)
    metrics["chance"] = {"auc": 0.004, "low": -0.0123, "high": 0.0203}
    said = "The chosen model is not known to rank better than chance"
    assert render_front(config, metrics).split("\n")[2].startswith(f"**{said}")
    assert said in verdict(metrics)
    assert "lies between 0.4877 and 0.5203 with" in render_front(config, metrics)
    metrics["chosen"] = metrics["base"]
    assert f"**{said}" in render_front(config, metrics)


def test_probabilities_that_are_no_better_than_the_click_rate_are_named(metrics):
    text = render_front(Config(), metrics)
    assert "for every row has a test logloss of 0.4600." in text
    metrics["base"] |= {"logloss": 1.47}
    text = render_front(Config(), metrics)
    assert "has a test logloss of 0.4600; the logloss of base is not below it." in text


def test_the_report_says_how_to_use_the_model(metrics):
    text = render_front(Config(), metrics)
    for script in ("predict.py --run RUN --input", "serve.py --run RUN", "export.py --run RUN"):
        assert f"`python experiments/{script}" in text


@pytest.mark.parametrize(("low", "high", "word"), [(-0.1, 0.1, "within"), (-0.2, -0.1, "beyond")])
def test_noise_is_within_or_beyond_the_interval(metrics, low, high, word):
    metrics["gain"] |= {"low": low, "high": high}
    assert f"is {word} the noise" in render_front(Config(), metrics)


@pytest.mark.parametrize(
    ("time", "words"), [(1.7, "about the same"), (1.5, "1.3 times less"), (3.0, "1.5 times more")]
)
def test_times_that_can_not_be_told_apart_are_the_same(metrics, time, words):
    metrics["chosen"]["microseconds"] = time
    assert rows_of(render_front(Config(), metrics))["µs per row"][-1] == words


def test_the_report_says_why_the_chosen_model_and_no_smaller_one(metrics):
    (line,) = [
        t for t in render_front(Config(), metrics).splitlines() if "on validation rows is" in t
    ]
    assert line.startswith(
        "The best of the 7 candidates on validation rows is dnn, spectral, 20 %, with an AUC"
    )
    assert "behind it by 0.0005 (`--tolerance`) plus 2 standard errors" in line
    assert "dnn, spectral, 10 % is behind by 0.00150, where 0.00150 are allowed" in line
    smaller = line.partition("The nearest of 4 that are smaller: ")[2].split("; ")
    assert [part.partition(" is behind by ")[0] for part in smaller] == [
        "dnn, spectral, 5 %",
        "dcnv2, uniform, 5 %",
        "lr_1e-05 on clicks",
    ]
    assert smaller[0].endswith("by 0.00180, where 0.00150 are allowed")


def test_the_logloss_chooses_where_validation_rows_have_one_class(metrics):
    for one in metrics["candidates"]:
        one["valid_auc"], one["valid_only_label"] = math.nan, 0
    text = render_front(Config(), metrics)
    line = next(t for t in text.splitlines() if "on validation rows is" in t)
    assert "is dnn, spectral, 20 %, with a logloss of 0.3500" in line
    assert "dnn, spectral, 10 % is behind by 0.00030" in line


def test_all_models_stand_by_size_below_what_was_not_cut(metrics):
    text = render_front(Config(), metrics)
    table = text.partition("## All models")[2].partition("A name has")[0]
    rows = list(rows_of(table).items())[1:]
    assert [name for name, _ in rows] == [
        *("base", "dnn, D = 16, not cut", "mean of the teachers"),
        *("dnn, spectral, 20 %", "dnn, spectral, 10 % (chosen)", "dcnv2, uniform, 5 %"),
        *("dnn, spectral, 5 %", "lr_1e-05 on clicks", "dcnv2, uniform, 2 %"),
    ]
    smaller = [cells[1] for _, cells in rows]
    assert smaller == ["1.0", "1.0", "0.08", "4.0", "8.0", "11.4", "13.3", "16.0", "26.7"]
    front = [name for name, cells in rows if cells[-1] == "yes"]
    assert front == [rows[3][0], rows[4][0], "lr_1e-05 on clicks"]


def test_a_base_that_is_kept_is_said(metrics):
    metrics["chosen"] = metrics["base"]
    text = render_front(Config(), metrics)
    assert (
        "**No smaller model is good enough, so the base model is kept**: 8,000 parameters" in text
    )
    assert "A larger --tolerance takes a smaller one" in text
    for one in metrics["candidates"][1:]:
        one["parameters"] = 9000
    text = render_front(Config(), metrics)
    assert "the base model is kept" in text and "A larger --tolerance" not in text


def test_without_teachers_all_learn_from_clicks(metrics):
    del metrics["teacher"]
    text = render_front(Config(), metrics | {"teachers": []})
    assert "All models learn from clicks." in text and "mean of the teachers" not in text


def test_one_class_of_test_rows_has_no_auc_and_no_certainty(metrics):
    for one in [*metrics["candidates"], *metrics["students"], metrics["teacher"]]:
        one["auc"], one["only_label"] = math.nan, 0
    metrics["gain"] = dict.fromkeys(("auc", "low", "high"), math.nan)
    text = render_front(Config(), metrics)
    assert "The test rows are too few, or of one class" in text
    undefined = "not defined: all rows have label 0"
    assert rows_of(text)["test AUC (more is better)"] == [undefined, undefined]
    (above, _), (below, _) = np.reshape(draw_front(metrics).axes, (2, 2))
    assert "not defined" in above.texts[0].get_text() and not above.lines
    assert below.lines


def test_the_figure_has_filled_points_for_the_front(metrics):
    for column, (cost, lines) in enumerate((("parameters", 3), ("microseconds", 0))):
        panel = draw_front(metrics).axes[column]
        joined = [line for line in panel.lines if line.get_linestyle() == "-"]
        assert len(joined) == lines
        hollow = {
            line.get_xdata()[0]
            for line in panel.lines
            if line.get_markerfacecolor() == "white" and len(line.get_xdata()) == 1
        }
        front = {one["name"] for one in metrics["front"]}
        others = [one for one in metrics["candidates"][1:] if one["name"] not in front]
        assert hollow == {one[cost] for one in others}


def test_a_failed_model_does_not_stretch_the_axes(metrics):
    """A gap of 0.01 above the base model leaves room for one of 0.03 below it."""
    failed, near = metrics["candidates"][-1], metrics["candidates"][1]
    failed |= {"auc": 0.5, "logloss": 2.0}
    near |= {"auc": metrics["base"]["auc"] - 0.029, "logloss": metrics["base"]["logloss"] + 0.029}
    panels = np.reshape(draw_front(metrics).axes, (2, 2))
    for row, marker, sign, key in ((panels[0], "v", -1, "auc"), (panels[1], "^", 1, "logloss")):
        edge = metrics["base"][key] + sign * 0.03
        for panel in row:
            points = [
                tuple(line.get_ydata()) for line in panel.lines if line.get_marker() != "None"
            ]
            ends = [line for line in panel.lines if line.get_marker() == marker]
            assert [one.get_ydata() for one in ends] == [pytest.approx([edge])]
            assert (near[key],) in points and not any(failed[key] in point for point in points)


def test_the_legend_says_what_filled_points_are(metrics):
    (legend,) = draw_front(metrics).legends
    found = {t.get_text(): h.get_markerfacecolor()
             for t, h in zip(legend.get_texts(), legend.legend_handles, strict=True)}  # fmt: skip
    assert (found["on the front"], found["not on the front"]) == ("gray", "white")


def test_seeds_of_a_trial_that_differ_are_said(metrics):
    def member(name, trial, auc):
        return {"name": name, "trial": trial, "valid_auc": auc, "valid_logloss": 0.4}

    metrics["pool"] = [
        member("dnn_1e-05", "dnn_1e-05", 0.8075),
        member("dnn_0.0001", "dnn_0.0001", 0.8),
        member("dnn_1e-05_1", "dnn_1e-05", 0.7457),
    ]
    words = "Seeds of the same trial differ in validation AUC: dnn_1e-05 from 0.7457 to 0.8075.\n"
    assert words in render_front(Config(), metrics)
    metrics["pool"] = metrics["pool"][:2]
    assert "Seeds of the same trial" not in render_front(Config(), metrics)


def test_the_terminal_has_all_candidates(metrics):
    grid = front_table(metrics)
    assert [row[0] for row in grid.rows][3] == "dnn, spectral, 10 % (chosen)"
    assert len(grid.rows) == len(metrics["candidates"])


def test_an_auc_that_is_not_defined_is_shown(metrics, tmp_path):
    for one in metrics["candidates"]:
        one["auc"], one["only_label"] = math.nan, 0
    assert present_front(Run(Config(), None, tmp_path), metrics) == ()
    assert "AUC" in (tmp_path / "report.md").read_text()


def test_the_terminal_has_the_answer(metrics):
    said = verdict(metrics)
    assert said.startswith(
        "Chosen: dnn, spectral, 10 %, with 1,000 parameters, 8.0 times fewer than the base model. "
    )
    assert "is beyond the noise" in said
    metrics["base"] = metrics["base"] | {"parameters": 500}
    assert "2.0 times more than the base model" in verdict(metrics)
    metrics["chosen"] = metrics["base"]
    assert verdict(metrics) == "Chosen: the base model, since no smaller one is good enough."


def test_where_no_standard_error_is_known_none_is_said(metrics):
    for one in metrics["candidates"]:
        one["valid_doubt"] = 0.0
    assert "behind it by 0.0005 (`--tolerance`). dnn" in choice(metrics)


def test_a_tolerance_alone_says_nothing_of_standard_errors(metrics):
    metrics["choices"]["standard_errors"] = 0.0
    assert "behind it by 0.0005 (`--tolerance`). dnn" in choice(metrics)
