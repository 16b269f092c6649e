"""The script that compares methods at equal sizes."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections import Counter

import numpy as np
import pytest

from ihas_jax.config import ClusterConfig
from ihas_jax.config.shares import SpectralConfig
from ihas_jax.errors import InputError

BUDGETS = ("0.25", "0.5")
SPECTRAL = ("spectral", "spectral_axes", "spectral_two")
IHAS = ("ihas", "ihas_one", "ihas_turned", "ihas_turned_one", "ihas_own", "ihas_own_one")
KINDS = ("uniform", *SPECTRAL)
WHOLE = ("base", "teacher", "student")
ROWS = (*WHOLE, *(f"{kind}_{budget}" for budget in BUDGETS for kind in KINDS))
NAN = float("nan")


@pytest.fixture(scope="module")
def selection(command):
    """The comparison of some methods on a tiny log, and a call of the same command."""
    table = dataclasses.replace(command, script="selection.py")
    results, output = command.folder / "selection", command.folder / "selection_runs"
    flags = ("--methods", "spectral", "--budgets", *BUDGETS, "--seeds", 2)
    flags += ("--retrain.teachers", "lr", "fm", "--train.max-epochs", 1, "--results", results)

    def run():
        return table.inside(*flags, output=output)

    done = run()
    assert done.returncode == 0, done.stderr
    return results, output / "store", run


def content_of(results):
    return json.loads(results.with_suffix(".json").read_text())


def test_every_row_has_scores_of_every_seed(selection):
    results, folder, _ = selection
    (found,) = content_of(results)["logs"].values()
    assert tuple(found) == ROWS
    for row, runs in found.items():
        for seed, scores in enumerate(runs):
            run, key = ("none", row) if row in WHOLE else (row, row.split("_")[0])
            metrics = json.loads((folder / f"{run}_{seed}" / "metrics.json").read_text())[key]
            assert scores["auc"] == metrics["auc"] and scores["bytes"] == metrics["bytes"]
            if row not in WHOLE:
                budget = float(row.rpartition("_")[2])
                assert 0.9 * budget < scores["table_share"] <= budget
                assert scores["table_share"] == metrics["table_share"]
    seconds = json.loads((folder / "none_0" / "metrics.json").read_text())["seconds"]
    assert found["base"][0]["training_seconds"] == seconds["base"]
    assert found["teacher"][0]["training_seconds"] == seconds["teach"]
    assert found["student"][0]["training_seconds"] == seconds["teach"] + seconds["retrain"]


def stages_of(folder):
    """How often each stage was finished in the folder of a run."""
    lines = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    return Counter(line["stage"] for line in lines if line.get("state") == "done")


def test_teachers_and_searches_are_trained_once_for_a_seed(selection):
    _, folder, _ = selection
    runs = ["none", *(row for row in ROWS if row not in WHOLE)]
    for seed in range(2):
        ran = {run: stages_of(folder / f"{run}_{seed}") for run in runs}
        for stage in ("base", "teach"):
            assert [run for run in runs if ran[run][stage]] == ["none"]
        searched = [run for run in runs if ran[run]["search"]]
        assert searched == [f"{m}_0.25" for m in ("uniform", "spectral")]
        assert all(ran[run]["retrain"] == 1 for run in runs)


def test_the_table_has_a_row_for_each_model_and_a_verdict_for_each_budget(selection):
    results, _, _ = selection
    text = results.with_suffix(".md").read_text()
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    goal, clusters, lines = lines[:4], lines[4:7], lines[7:]
    assert [line[1] for line in (*goal[1:3], *clusters[1:])] == ["25 %", "50 %"] * 2
    assert len(goal[0]) == 3 + len(SPECTRAL) and goal[3][0] == "| everywhere"
    assert clusters[0][2:] == ["Spectral, two clusters |"]
    assert len(lines) == 1 + len(ROWS)
    assert all(len(line) == len(lines[0]) for line in lines)
    compared = Counter((line[1], line[8]) for line in lines[4:])
    assert compared == {
        ("25 %", "full size, taught"): 1,
        ("50 %", "full size, taught"): 1,
        ("25 %", "Uniform size"): len(KINDS) - 1,
        ("50 %", "Uniform size"): len(KINDS) - 1,
    }
    assert "teachers lr fm." in text
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    (verdicts,) = content_of(results)["verdicts"].values()
    judged = {*SPECTRAL}
    assert {budget: set(found) for budget, found in verdicts.items()} == dict.fromkeys(
        BUDGETS, judged
    )
    (gains,) = content_of(results)["clusters"].values()
    (found,) = content_of(results)["logs"].values()
    for budget in BUDGETS:
        several, one = (found[f"{kind}_{budget}"] for kind in ("spectral_two", "spectral"))
        gap = np.mean([a["auc"] - b["auc"] for a, b in zip(several, one, strict=True)])
        assert gains[budget]["spectral_two"]["gain"] == pytest.approx(gap)


def test_the_same_command_trains_what_is_missing_alone(selection):
    results, folder, run = selection
    before = content_of(results)
    done = run()
    assert done.returncode == 0, done.stderr
    assert " epoch " not in done.stdout and content_of(results) == before
    shorter = json.loads(json.dumps(before))
    (found,) = shorter["logs"].values()
    for row in ("spectral_0.5", "spectral_two_0.5"):
        del found[row]
    shutil.rmtree(folder / "spectral_0.5_1")
    results.with_suffix(".json").write_text(json.dumps(shorter))
    done = run()
    assert done.returncode == 0, done.stderr
    assert "[search] starts" not in done.stdout and "[teach] starts" not in done.stdout
    assert done.stdout.count("[retrain] starts") == 1
    (again,), (first,) = (content["logs"].values() for content in (content_of(results), before))
    assert {row: [run["auc"] for run in runs] for row, runs in again.items()} == {
        row: [run["auc"] for run in runs] for row, runs in first.items()
    }


@pytest.fixture
def sizes(script, monkeypatch):
    """Reads a command line: what it compares."""

    def read(*flags):
        module = script("selection")
        monkeypatch.setattr(sys, "argv", ["selection.py", *map(str, flags)])
        arguments = module.read_arguments()
        return arguments, module.sizes_of(arguments)

    return read


def test_there_are_teachers_unless_the_flag_is_empty(sizes):
    arguments, found = sizes()
    assert arguments.config.retrain.teachers == ("dnn:2", "gdcn")
    assert (found.full, [*found.whole]) == ("student", ["base", "teacher", "student"])
    arguments, found = sizes("--retrain.teachers")
    assert arguments.config.retrain.teachers == ()
    assert (found.full, [*found.whole]) == ("base", ["base"])
    assert sizes("--retrain.teachers", "lr")[0].config.retrain.teachers == ("lr",)


@pytest.mark.parametrize("name", ["selection", "pareto"])
def test_budgets_take_the_place_of_one_budget(script, monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", ["compare.py", "--preset", "compact"])
    assert script(name).read_arguments().config.budget is None
    monkeypatch.setattr(sys, "argv", ["compare.py", "--budget", "0.5"])
    with pytest.raises(SystemExit):
        script(name).read_arguments()
    assert "--budgets" in capsys.readouterr().err


def test_rows_are_methods_and_their_variants_at_each_budget(sizes):
    arguments, found = sizes("--methods", "spectral", "--budgets", 0.25, 0.125)
    assert [kind.name for kind in found.kinds] == ["uniform", *SPECTRAL]
    assert [kind.name for kind in sizes("--methods", "ihas")[1].kinds] == ["uniform", *IHAS]
    rows = found.variants(arguments)[3:]
    assert [row.name for row in rows] == [
        f"{kind}_{budget}" for budget in ("0.125", "0.25") for kind in ("uniform", *SPECTRAL)
    ]
    assert [row.config.budget for row in rows] == [0.125] * 4 + [0.25] * 4
    assert {row.config.retrain.teachers for row in rows} == {("dnn:2", "gdcn")}
    cuts = [row.config.of(SpectralConfig).cut for row in rows]
    assert cuts == ["numbers", "numbers", "axes", "numbers"] * 2


def test_flags_of_the_command_line_apply_where_they_mean_something(sizes):
    flags = ("--cluster.cut", "axes", "--cluster.min-rows", 77, "--methods", "spectral", "ihas")
    for method in ("ihas", "spectral"):
        arguments, found = sizes("--method", method, *flags)
        cuts = {row.name: row.config.of(ClusterConfig).cut for row in found.variants(arguments)}
        rows = {row.name: row.config.of(ClusterConfig) for row in found.variants(arguments)}
        assert {cuts[f"{kind}_0.25"] for kind in IHAS} == {"axes"}
        assert rows["spectral_two_0.25"].min_rows == 77
        assert rows["spectral_two_0.25"].cut == "numbers"  # which --spectral.cut says


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--retrain.start", "tables"), "leave --retrain.start out"),
        (("--budgets",), "at least one share"),
        (("--budgets", 0.5, 0.5), "none of them twice"),
        (("--budgets", 1.5), "--budgets 1.5 must be a share"),
        (("--budgets", 0), "--budgets 0.0 must be a share"),
        (("--spectral.kept", 0.1), "leave --spectral.kept out"),
        (("--spectral.clusters", 2), "--spectral.clusters 2 is a row of its own, Spectral, two"),
        (("--cluster.clusters", 1), "--cluster.clusters 1 is a row of its own, iHAS, one cluster"),
        (("--cluster.axes", "own"), "leave --cluster.axes out"),
        (("--search.rotate",), "leave --search.rotate out"),
        (("--methods", "spectrum"), "--methods spectrum names no method. Did you mean spectral"),
        (("--methods", "none"), "--methods none names no method. The methods are pep,"),
        (("--retrain.teachers", "search"), "leave search out"),
        (("--retrain.teachers", "nobody"), "names no teacher"),
    ],
)
def test_wrong_choices_are_refused_before_anything_runs(sizes, flags, words):
    with pytest.raises(InputError, match=words):
        sizes(*flags)


def test_the_defaults_of_a_script_are_those_of_every_preset(script, sizes):
    for preset in ("small", "paper", "reference"):
        config = sizes("--preset", preset)[0].config
        assert config.retrain.teachers == script("reference").TEACHERS == ("dnn:2", "gdcn")
        assert config.train.patience == (3 if preset == "small" else 2)


def scores(*aucs, share=0.5, router=0):
    return [
        {
            "auc": auc,
            "logloss": 1 - auc,
            "parameters": 1000,
            "router_parameters": router,
            "bytes": 4000,
            "table_share": share,
        }
        for auc in aucs
    ]


def test_cells_say_what_is_compared_with_what(script):
    rows, table = script("sizes.rows"), script("sizes.table")
    sizes = rows.Sizes(rows.kinds_of(["ihas"]), (0.5,), taught=True)
    found = {
        "base": scores(0.70, 0.72),
        "teacher": scores(0.75, 0.78),
        "student": scores(0.74, 0.75),
        "uniform_0.5": scores(0.73, 0.75),
        "ihas_0.5": scores(0.76, 0.77, share=0.49, router=500),
    }
    whole = {row[0]: row for row in table._whole_rows(sizes, found)}
    assert whole["full size, clicks"][8:] == ["", "", "", "", ""]
    assert whole["full size, taught"][8:10] == ["full size, clicks", "+0.0350 ± 0.0071"]
    assert whole["teachers, mean"][2] == "" and whole["full size, taught"][2] == "100 %"
    uniform, ihas = table._rows(sizes, found)
    assert uniform[8:10] == ["full size, taught", "-0.0050 ± 0.0071"]
    assert ihas[:6] == ["iHAS", "50 %", "49.00 %", "1,500", "500", "0.004"]
    assert ihas[8:10] == ["Uniform size", "+0.0250 ± 0.0071"]
    assert ihas[11] == "-0.0250 ± 0.0071"  # a lower logloss
    assert table._refused(sizes, found) == [
        "iHAS, one cluster, 50 %",
        "iHAS on principal axes, 50 %",
        "iHAS on principal axes, one cluster, 50 %",
        "iHAS, own axes of each cluster, 50 %",
        "iHAS, own axes of one cluster, 50 %",
    ]


def test_the_figure_has_a_line_for_each_method_and_the_full_size(script):
    rows = script("sizes.rows")
    sizes = rows.Sizes(rows.kinds_of(["spectral", "random"]), (0.25, 0.5), taught=True)
    found = {name: scores(0.81, 0.80) for name in sizes.whole}
    for number, kind in enumerate(sizes.kinds):
        for budget in sizes.budgets:
            mean = 0.80 - number / 1000 - (0.2 if kind.name == "random" else 0)
            found[rows.row_of(kind, budget)] = scores(mean - 0.001, mean + 0.001, share=budget)
    figure = script("sizes.drawing").draw_budgets(sizes, {"a": found, "b": found})
    assert len(figure.axes) == 2
    panel = figure.axes[0]
    assert panel.get_xscale() == "log"
    assert 0.79 < panel.get_ylim()[0] < 0.798  # far means leave the others room
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == ["full size, taught", "full size, clicks"] + [k.title for k in sizes.kinds]
    (spectral,) = (c for c in panel.containers if c.get_label() == "Spectral")
    np.testing.assert_allclose(spectral.lines[0].get_ydata(orig=False), 0.799)
    np.testing.assert_allclose(spectral.lines[0].get_xdata(orig=False), [0.25, 0.5], rtol=0.06)
    styles = [(c.lines[0].get_color(), c.lines[0].get_linestyle()) for c in panel.containers]
    assert len(set(styles)) == len(sizes.kinds)


@pytest.mark.parametrize("below", [0.02, 0.2])
def test_what_others_are_compared_with_is_never_cut_off(script, below):
    rows = script("sizes.rows")
    sizes = rows.Sizes(rows.kinds_of(["random"]), (0.25, 0.5), taught=False)
    found = {"base": scores(0.80, 0.80)}
    for budget in sizes.budgets:
        found[f"uniform_{budget}"] = scores(0.80 - below, 0.80 - below, share=budget)
        found[f"random_{budget}"] = scores(0.5, 0.5, share=budget)
    (panel,) = script("sizes.drawing").draw_budgets(sizes, {"a": found}).axes
    assert 0.5 < panel.get_ylim()[0] < 0.80 - below
    assert panel.get_ylim()[1] > 0.80


def test_a_panel_of_one_class_says_so(script):
    rows = script("sizes.rows")
    sizes = rows.Sizes(rows.kinds_of([]), (0.5,), taught=False)
    one = [run | {"only_label": 1} for run in scores(NAN, NAN)]
    figure = script("sizes.drawing").draw_budgets(sizes, {"a": {"base": one, "uniform_0.5": one}})
    assert "all rows have label 1" in figure.axes[0].texts[0].get_text()
