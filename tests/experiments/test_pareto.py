"""The script that sets accuracy against size, for all methods from clicks and from teachers."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from functools import partial

import numpy as np
import pytest

from ihas_jax.errors import InputError
from ihas_jax.pipeline.idle import check_flags
from ihas_jax.selectors import METHODS

NAN = float("nan")
SIZED = ("spectral_0.25", "spectral_0.5")
ROWS = ("base", "student")
ROWS += (*(f"adafs_soft{end}" for end in ("-clicks", "")),)
ROWS += (*(f"{row}-clicks" for row in SIZED), *SIZED)


@pytest.fixture(scope="module")
def pareto(command):
    """A call of the command on a tiny log, in a folder of runs and with a path of results."""
    table = dataclasses.replace(command, script="paper/pareto.py")
    flags = ("--seeds", 2, "--retrain.teachers", "lr", "--train.max-epochs", 1)
    usual = ("--methods", "spectral", "adafs_soft", "--budgets", 0.5, 0.25)

    def call(name, chosen=usual, run=table.inside):
        results, output = command.folder / name, command.folder / f"{name}_runs"
        done = run(*flags, *chosen, "--results", results, output=output)
        return results, done, output / "store"

    return table, call


@pytest.fixture(scope="module")
def complete(pareto):
    results, done, folder = pareto[1]("pareto")
    assert done.returncode == 0, done.stderr
    return results, folder


def content_of(results):
    return json.loads(results.with_suffix(".json").read_text())


def scores_of(results):
    """The scores by row, without the times."""
    (found,) = content_of(results)["logs"].values()
    return {
        row: [{k: v for k, v in run.items() if k != "training_seconds"} for run in runs]
        for row, runs in found.items()
    }


def test_every_row_has_the_scores_of_its_runs(complete):
    results, folder = complete
    found = scores_of(results)
    assert tuple(found) == ROWS
    for row, runs in found.items():
        for seed, scores in enumerate(runs):
            run = "none" if row in ("base", "student") else row
            key = row.removesuffix("-clicks").split("_0")[0]
            metrics = json.loads((folder / f"{run}_{seed}" / "metrics.json").read_text())
            assert scores["auc"] == metrics[key]["auc"]
            assert scores["parameters"] == metrics[key]["parameters"]
            assert ("teacher" in metrics) is not row.endswith("-clicks")
            if key == "spectral":
                budget = float(row.removesuffix("-clicks").rpartition("_")[2])
                assert 0.9 * budget < scores["table_share"] <= budget
    (points,) = content_of(results)["points"].values()
    assert [point["name"] for point in points] == list(found)
    for point in points:
        aucs = [run["auc"] for run in found[point["name"]]]
        assert point["auc"] == pytest.approx(np.mean(aucs))
        assert point["auc_deviation"] == pytest.approx(np.std(aucs, ddof=1))
    assert points[-1]["budget"] == 0.5 and points[-1]["taught"]


def stages_of(folder):
    """How often each stage was finished in the folder of a run."""
    lines = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    return Counter(line["stage"] for line in lines if line.get("state") == "done")


def test_teachers_and_searches_are_trained_once_for_a_seed(complete):
    _, folder = complete
    for seed in range(2):
        ran = {path.name: stages_of(path) for path in folder.glob(f"*_{seed}")}
        assert len(ran) == len(ROWS) - 1
        for stage in ("base", "teach"):
            assert [run for run, stages in ran.items() if stages[stage]] == [f"none_{seed}"]
        searched = {run for run, stages in ran.items() if stages["search"]}
        firsts = ("adafs_soft", "adafs_soft-clicks", "spectral_0.25", "spectral_0.25-clicks")
        assert searched == {f"{run}_{seed}" for run in firsts}


def test_the_table_has_a_row_for_each_method_and_source(complete):
    results, _ = complete
    text = results.with_suffix(".md").read_text()
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line[:2] == "| "]
    table, front = lines[:7], lines[7:]
    assert table[0] == ["method", "learns from", "25 %", "50 %", "no budget"]
    assert [line[:2] for line in table[1:]] == [
        [title, source]
        for title in ("full size", "AdaFS-soft", "Spectral")
        for source in ("clicks", "teachers")
    ]
    (points,) = content_of(results)["points"].values()
    assert len(front) == 1 + sum(point["front"] for point in points)
    assert text.count("**0.") == sum(point["front"] for point in points)
    assert "Teachers are lr." in text and "(pareto_store.png)" in text
    png = results.with_name("pareto_store.png")
    assert png.read_bytes().startswith(b"\x89PNG")


def test_the_same_command_trains_nothing_again(pareto, complete):
    before = content_of(complete[0])
    _, done, _ = pareto[1]("pareto")
    assert done.returncode == 0, done.stderr
    assert " epoch " not in done.stdout and content_of(complete[0]) == before


def test_a_killed_command_resumes(pareto, complete):
    table, call = pareto
    place = "store/spectral_0.25-clicks_1"
    chosen = ("--methods", "spectral", "--budgets", 0.25)

    def there(written):
        return dataclasses.replace(written, path=written.path / place).begins("search")

    results, _, folder = call("killed", chosen, partial(table.ended, there))
    assert tuple(scores_of(results)) == ("base", "student")
    _, done, _ = call("killed", chosen)
    assert done.returncode == 0, done.stderr
    found, whole = scores_of(results), scores_of(complete[0])
    rows = ("base", "student", "spectral_0.25-clicks", "spectral_0.25")
    assert tuple(found) == rows and found == {row: whole[row] for row in rows}
    ran = {run: stages_of(folder / run) for run in ("none_0", "spectral_0.25-clicks_0")}
    assert ran["none_0"]["teach"] == ran["spectral_0.25-clicks_0"]["retrain"] == 1


@pytest.fixture
def read(script, monkeypatch):
    """Reads a command line: its arguments and what it compares."""

    def read(*flags):
        module = script("pareto")
        monkeypatch.setattr(sys, "argv", ["pareto.py", *map(str, flags)])
        arguments = module.read_arguments()
        return arguments, module.compared(arguments)

    return read


def test_by_default_all_methods_have_all_budgets_and_both_sources(read):
    arguments, points = read()
    assert arguments.seeds == 5 and arguments.budgets[0] == 0.03125
    whole = {name for name, method in METHODS.items() if method.serves_searched}
    assert whole == {"adafs_soft", "adafs_hard", "autoemb"}
    assert list(dict.fromkeys(p.method for p in points)) == ["none", *METHODS]
    assert len(points) == 2 + 2 * 3 + 2 * 6 * (len(METHODS) - 3)
    variants = [point.variant(arguments) for point in points]
    assert len({v.name for v in variants}) == len({v.title for v in variants}) == len(points)
    for point, variant in zip(points, variants, strict=True):
        check_flags(variant.config)
        assert variant.config.budget == point.budget
        taught = variant.config.retrain.teachers == ("dnn:2", "gdcn")
        assert taught == (point.taught or point.method == "none")


def test_without_teachers_every_model_learns_from_clicks(read):
    _, points = read("--retrain.teachers", "--methods", "ihas", "pep", "--budgets", 0.5, 0.25)
    assert [p.name for p in points] == ["base"] + [
        f"{method}_{budget}-clicks" for method in ("pep", "ihas") for budget in (0.25, 0.5)
    ]


def test_a_preset_with_a_budget_may_be_compared(read):
    arguments, points = read("--preset", "compact", "--methods", "spectral", "--budgets", 0.25)
    assert [p.variant(arguments).config.budget for p in points] == [None, None, 0.25, 0.25]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--budgets",), "at least one share"),
        (("--budgets", 0.5, 0.5), "none of them twice"),
        (("--budgets", 1.5), "--budgets 1.5 must be a share"),
        (("--pep.kept", 0.1), "leave --pep.kept out"),
        (("--methods", "spectrum"), "--methods spectrum names no method. Did you mean spectral"),
        (("--methods", "none"), "--methods none names no method. The methods are pep,"),
        (("--retrain.teachers", "search"), "leave search out"),
        (("--retrain.teachers", "nobody"), "names no teacher"),
    ],
)
def test_wrong_choices_are_refused_before_anything_runs(read, flags, words):
    with pytest.raises(InputError, match=words):
        read(*flags)


def test_a_command_without_logs_is_refused(command):
    table = dataclasses.replace(command, script="paper/pareto.py")
    done = table.inside("--seeds", 2)
    assert done.returncode == 2 and "at least one log by --data" in done.stderr


def scores(*aucs, parameters=1000, router=0):
    sizes = {"parameters": parameters, "router_parameters": router, "bytes": 4 * parameters}
    return [{"auc": auc, "logloss": 1 - auc, "training_seconds": 1.0, **sizes} for auc in aucs]


@pytest.fixture
def log(script):
    """Points and scores of a log whose front is known."""
    points = script("front").points_of(("pep", "adafs_soft", "ihas"), (0.25, 0.5), True)
    found = {
        "base": scores(0.80, 0.82),
        "student": scores(0.812, 0.828),
        "pep_0.25-clicks": scores(0.70, 0.73, parameters=250),
        "pep_0.5-clicks": scores(0.812, 0.828, parameters=500),  # as good as the student
        "pep_0.25": scores(0.79, 0.80, parameters=250),
        "pep_0.5": scores(0.82, 0.81, parameters=500),
        "adafs_soft-clicks": scores(0.828, 0.812, parameters=1000),
        "adafs_soft": scores(0.84, 0.84, parameters=1200),
        "ihas_0.25-clicks": scores(0.80, 0.79, parameters=200, router=50),
        "ihas_0.25": scores(0.81, 0.81, parameters=249, router=10),
    }
    return points, found


def test_the_front_has_the_points_that_none_beats(script, log):
    front = [point.name for point in script("front").front_of(*log)]
    assert front == ["pep_0.25", "ihas_0.25-clicks", "ihas_0.25", "pep_0.5-clicks", "adafs_soft"]


def test_points_without_an_auc_are_not_on_the_front(script, log):
    points, found = log
    found |= {"pep_0.25": scores(NAN, 0.9, parameters=1)}
    front = [point.name for point in script("front").front_of(points, found)]
    assert front == ["ihas_0.25-clicks", "ihas_0.25", "pep_0.5-clicks", "adafs_soft"]
    assert script("front").front_of(points, {"base": scores(NAN, NAN)}) == []


def test_cells_are_those_of_a_hand(script, log):
    points, found = log
    table = script("front_table")
    lines = [line.strip("| ").split(" | ") for line in table._table(points, found)]
    cells = {tuple(line[:2]): line[2:] for line in lines[2:]}
    assert cells["full size", "teachers"][2] == "0.8200 ± 0.0113"
    assert cells["PEP", "teachers"][:2] == ["**0.7950 ± 0.0071**", "0.8150 ± 0.0071"]
    assert cells["AdaFS-soft", "teachers"][2] == "**0.8400 ± 0.0000**"
    assert cells["iHAS", "teachers"][:2] == ["**0.8100 ± 0.0000**", "left out"]
    point = next(point for point in points if point.name == "ihas_0.25")
    row = table._front_row(point, found)
    assert row[:5] == ["iHAS", "teachers", "25 %", "259", "3.86"]
    assert row[5] == "0.8100 ± 0.0000" and row[7:9] == ["+0.0000 ± 0.0141", "1.000"]
    facts = {point["name"]: point for point in table.facts_of(points, found)}
    assert list(facts) == list(found)
    assert facts["ihas_0.25"]["parameters"] == 259 and facts["ihas_0.25"]["front"]
    assert facts["student"]["auc_difference"] == pytest.approx(0.01)
    assert not facts["student"]["front"] and facts["student"]["budget"] is None


def test_the_figure_has_a_line_for_each_method_and_source(script, log):
    points, found = log
    found["pep_0.25-clicks"] = scores(0.5, 0.5, parameters=250)
    figure = script("front_figure").draw_front("a log", points, found)
    (panel,) = figure.axes
    assert panel.get_title() == "a log" and panel.get_xscale() == "log"
    sized = [line for line in panel.lines if line.get_linestyle() != "None"]
    drawn = {tuple(np.round(line.get_ydata(), 6)): line for line in sized}
    taught, clicks = drawn[0.795, 0.815], drawn[0.5, 0.82]
    assert (taught.get_linestyle(), clicks.get_linestyle()) == ("-", "--")
    assert taught.get_color() == clicks.get_color() != drawn[0.81,].get_color()
    np.testing.assert_allclose(clicks.get_xdata(), [250, 500])
    bottom, top = panel.get_ylim()
    assert 0.5 < bottom < 0.81 and 0.84 < top < 0.85
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("PEP", "AdaFS-soft", "iHAS", "learns from clicks", "learns from teachers"),
        *("full size, clicks", "full size, teachers", "on the front"),
    ]


def test_all_methods_look_different(script):
    looks = [script("front_figure")._look(method) for method in METHODS]
    assert len(set(looks)) == len(METHODS)
    assert len({color for color, _ in looks}) == len(METHODS)


def test_a_log_of_one_class_says_so(script, record, log, tmp_path):
    points, _ = log
    one = [run | {"only_label": 1} for run in scores(NAN, NAN)]
    record = record()
    record.logs["x"] = {"base": one, "pep_0.25": one}
    figure = script("front_figure").draw_front("x", points, record.logs["x"])
    assert "all rows have label 1" in figure.axes[0].texts[0].get_text()
    assert script("front_table").write(record, points, ["x"], "A note.") == ()
    text = (tmp_path / "table.md").read_text()
    assert "all rows have label 1" in text and "The front" not in text
    assert (tmp_path / "table_x.png").exists()
