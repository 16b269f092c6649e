"""Figure 4: times of whole test splits, their ratios to the base model's, and the goal."""

from __future__ import annotations

import dataclasses
import json

import pytest
from matplotlib.colors import to_hex

from ihas_jax.config import Config
from ihas_jax.reporting.comparison import paired_gain

TINY = (
    *("--model.dim", 4, "--model.hidden", 8, 4, "--optimizer.learning-rate", 0.02),
    *("--train.batch-size", 200, "--train.max-epochs", 1, "--cluster.min-agreement", 0.3),
)


@pytest.fixture(scope="module")
def figure4(command):
    """The figure of a method and iHAS on a tiny log, and a call of the same command."""
    script = dataclasses.replace(command, script="paper/figure4_inference.py", tiny=TINY)
    results = command.folder / "figure4"

    def run():
        flags = "--methods", "uniform", "--seeds", 2, "--results", results
        return script.inside(*flags, output=command.folder / "inference")

    done = run()
    assert done.returncode == 0, done.stderr
    return results, done, run


@pytest.fixture
def models(script):
    """The base model, a method far below it, and iHAS with both routers, over two seeds."""
    timed = script("inference").Timed

    def model(title, aucs, milliseconds):
        return timed(title, [{"auc": auc} for auc in aucs], milliseconds)

    return {
        "none": model("base", (0.70, 0.72), (2.0, 4.0)),
        "dimreg": model("DimReg", (0.60, 0.61), (1.0, 1.0)),
        "ihas": model("iHAS, exact router", (0.71, 0.73), (20.0, 20.0)),
        "ihas_compiled": model("iHAS, compiled router", (0.7098, 0.7296), (2.4, 2.4)),
    }


def test_every_model_has_its_auc_and_time_by_seed(command, figure4):
    results, _, _ = figure4
    content = json.loads(results.with_suffix(".json").read_text())
    measured = content["inference"]["store"]
    names = ["none", "uniform", "ihas", "ihas_compiled"]
    assert list(content["logs"]["store"]) == list(measured["microseconds"]) == names
    assert measured["test_rows"] == 200 and measured["compiled"] == [True, True]
    for name in names:
        assert len(measured["microseconds"][name]) == 2
        assert min(measured["microseconds"][name]) > 0
        for seed, scores in enumerate(content["logs"]["store"][name]):
            run = command.folder / "inference" / "store" / f"{name}_{seed}" / "metrics.json"
            key = {"none": "base", "ihas_compiled": "ihas"}.get(name, name)
            assert scores["auc"] == json.loads(run.read_text())[key]["auc"]


def test_both_routers_have_one_search(command, figure4):
    runs = [
        command.folder / "inference" / "store" / f"{name}_1" / "metrics.json"
        for name in ("ihas", "ihas_compiled")
    ]
    exact, compiled = (json.loads(run.read_text()) for run in runs)
    assert exact["search"] == compiled["search"]
    assert "router" not in exact and compiled["router"]["kept"]


def test_the_results_are_a_table_with_the_goal_and_a_figure(figure4):
    results, done, _ = figure4
    text = results.with_suffix(".md").read_text()
    for words in ("## Goal", "| store | 2 |", "| iHAS, compiled router |", "200 test rows"):
        assert words in text and words in done.stdout
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_measures_again_and_trains_nothing(figure4):
    results, _, run = figure4
    before = json.loads(results.with_suffix(".json").read_text())
    done = run()
    assert done.returncode == 0, done.stderr
    assert " epoch " not in done.stdout
    after = json.loads(results.with_suffix(".json").read_text())
    assert after["logs"] == before["logs"] and after["inference"] != before["inference"]


def test_a_row_has_ratios_to_the_base_model_of_the_same_seed(script, models):
    base, _, exact, compiled = script("inference").rows_of(models, 1000)
    assert base == ["base", "0.7100 ± 0.0141", "", "", "3.00 ± 1.41", "3.00", ""]
    assert exact[2:] == ["+0.0100 ± 0.0000", "<0.001", "20.00 ± 0.00", "20.00", "7.50 ± 3.54"]
    assert compiled[4:] == ["2.40 ± 0.00", "2.40", "0.90 ± 0.42"]  # of 1.2 and 0.6


def test_the_goal_is_judged_by_means_over_seeds(script, models):
    goal_row = script("inference").goal_row
    p = paired_gain([0.7098, 0.7296], [0.71, 0.73]).p_text
    reached = ["log", "2", "0.90 ± 0.42", "reached", "-0.0003 ± 0.0001", p, "reached"]
    assert goal_row("log", 2, models) == reached
    ihas = models["ihas_compiled"]
    slow = dataclasses.replace(ihas, milliseconds=[2.4, 3.4])  # ratios of 1.2 and 0.85
    assert goal_row("log", 2, models | {"ihas_compiled": slow})[3] == "missed"
    worse = dataclasses.replace(ihas, runs=[{"auc": 0.7092}, {"auc": 0.7296}])
    assert goal_row("log", 2, models | {"ihas_compiled": worse})[6] == "missed"


def test_bars_are_mean_times_on_a_log_scale_beside_aucs(script, models):
    times, aucs = script("inference_figure").draw_inference({"a log": models}).axes
    assert times.get_xscale() == "log" and times.get_title() == "a log"
    assert [bar.get_width() for bar in times.patches] == [3.0, 1.0, 20.0, 2.4]
    assert len({to_hex(bar.get_facecolor()) for bar in times.patches}) == 4
    assert [text.get_text() for text in times.texts] == ["", "0.38 x", "7.50 x", "0.90 x"]
    assert [text.get_text() for text in times.get_yticklabels()][1] == "DimReg"
    assert [text.get_text() for text in aucs.texts] == ["0.605"]  # an arrow
    dots = {
        line.get_ydata()[0]: line.get_xdata()[0] for line in aucs.lines if "o" in line.get_marker()
    }
    assert dots == pytest.approx({0: 0.71, 2: 0.72, 3: 0.7197})


def test_a_log_of_one_class_has_times_alone(script, models):
    nan = float("nan")
    undefined = {
        key: dataclasses.replace(model, runs=[{"auc": nan, "only_label": 1}] * 2)
        for key, model in models.items()
    }
    _, aucs = script("inference_figure").draw_inference({"a log": undefined}).axes
    assert "all rows have label 1" in aucs.texts[0].get_text()


def test_a_router_that_is_not_kept_is_named(script, models):
    table, figure4 = script("inference_table"), script("figure4_inference")
    variants = figure4.variants_of(figure4.Arguments(config=Config(), methods=("uniform",)))
    measured = {"a log": {"compiled": [True, False]}}
    lines = table.goal_lines(variants, {"a log": models}, measured)
    assert any("in 1 of 2 seeds" in line for line in lines)
    without = {key: models[key] for key in ("none", "dimreg")}
    lines = table.goal_lines(variants, {"a log": without}, {"a log": {"compiled": []}})
    assert not any("a log" in line for line in lines)


def test_a_wrong_method_and_no_seed_are_named(command):
    script = dataclasses.replace(command, script="paper/figure4_inference.py", tiny=TINY)
    done = script.inside("--methods", "pop", output=command.folder / "wrong")
    assert done.returncode and "pop" in done.stderr
    done = script.inside("--seeds", 0, output=command.folder / "wrong")
    assert done.returncode and "at least 1 of --seeds" in done.stderr
