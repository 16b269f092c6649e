"""The scripts that put selection methods and ablations side by side."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from ihas_jax.cli import earlier_logs
from ihas_jax.config import Config, to_json
from ihas_jax.errors import InputError

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
METHODS = ("none", "pep")


@pytest.fixture(scope="module")
def table2(command):
    """Table 2 of some methods on a tiny log, and a call of the same command."""
    script = dataclasses.replace(command, script="paper/table2_overall.py")
    results, output = command.folder / "table2", command.folder / "tables"
    flags = ("--methods", *METHODS[1:], "--seeds", 2, "--trials", 2, "--results", results)

    def run():
        return script(*flags, "--train.max-epochs", 1, output=output)

    done = run()
    assert done.returncode == 0, done.stderr
    return results, output, run


@pytest.fixture(scope="module")
def table4(command, table2):
    """Table 4 in the same folder of runs, where what Table 2 has run is not run again."""
    script = dataclasses.replace(command, script="paper/table4_ablation.py")
    results = command.folder / "table4"
    flags = ("--variants", "ihas_1", "ihas_2", "--seeds", 2, "--results", results)
    done = script(*flags, "--train.max-epochs", 1, output=table2[1])
    assert done.returncode == 0, done.stderr
    return results, done


def test_every_method_has_scores_of_every_seed(table2):
    results, output, _ = table2
    content = json.loads(results.with_suffix(".json").read_text())
    (methods,) = content["logs"].values()
    assert set(methods) == set(METHODS)
    for name, scores in methods.items():
        for seed in range(2):
            metrics = json.loads((output / "store" / f"{name}_{seed}" / "metrics.json").read_text())
            row = metrics["base" if name == "none" else name]
            assert scores[seed]["auc"] == row["auc"]
            assert scores[seed]["parameters"] == row["parameters"]
    assert set(content["inference"]["store"]) == set(METHODS)


def test_the_table_compares_with_base_and_best_beside_the_papers_numbers(table2):
    results, _, _ = table2
    text = results.with_suffix(".md").read_text()
    for word in ("| base |", "| PEP |", "## store", "2 trials"):
        assert word in text
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def paper(monkeypatch):
    """The modules of experiments/paper, by name."""
    monkeypatch.syspath_prepend(EXPERIMENTS / "paper")
    return importlib.import_module


def test_a_refused_method_is_left_out_alone(paper, monkeypatch, tmp_path):
    variants = paper("variants")
    begins = {}

    def score(variant, data, folder, seed, sources):
        (folder / f"{variant.run}_{seed}").mkdir()  # a refused run leaves its folder behind
        begins[variant.name] = list(sources)
        if variant.name == "refused":
            raise InputError("This click model can't carry it.")
        return {"auc": 0.7}

    monkeypatch.setattr(variants, "score_variant", score)
    monkeypatch.setattr(
        variants, "time_inference", lambda rows, *_: {row.name: 1.0 for row in rows}
    )
    names = ("base", "refused", "next")
    rows = [variants.Variant(name, name, name, Config(), name, {}) for name in names]
    done = {}
    times = variants.score_all(rows, None, tmp_path, range(2), done, lambda: None)
    assert list(done) == list(times) == ["base", "next"]
    assert begins["next"] == ["base"]


def test_the_table_says_which_methods_are_left_out(paper, tmp_path):
    variants, names = paper("variants"), ("base", "refused")
    rows = [variants.Variant(name, name, name.title(), Config(), name, {}) for name in names]
    sizes = {"parameters": 9, "router_parameters": 0, "bytes": 36, "training_seconds": 1.0}
    runs = [{"auc": auc, "logloss": 0.4, **sizes} for auc in (0.7, 0.8)]
    shared = variants.Shared(Config(), 2, {})
    paper("rendering").write(
        tmp_path / "table", "Table", rows, {"x": {"base": runs}}, {"x": {"base": 1.0}}, shared, ""
    )
    assert "explains: Refused.\n" in (tmp_path / "table.md").read_text()


def test_scores_of_other_defaults_are_no_scores_to_go_on_from(tmp_path):
    content = {"seeds": 2, "config": to_json(Config()), "own": {"pep": ["a"]}, "logs": {"x": {}}}
    (tmp_path / "table.json").write_text(json.dumps(content))
    results = tmp_path / "table"
    assert earlier_logs(results, Config(), 2, {"own": {"pep": ["a"]}}) == {"x": {}}
    assert earlier_logs(results, Config(), 2, {"own": {"pep": ["b"]}}) == {}
    assert earlier_logs(results, Config(seed=1), 2, {}) == {}
    assert earlier_logs(results, Config(), 3, {}) == {}
    assert earlier_logs(tmp_path / "none", Config(), 2, {}) == {}


def test_a_method_far_below_the_best_leaves_the_others_room(paper):
    draw = paper("rendering").draw

    def scores(*auc):
        return [{"auc": value, "parameters": 1000, "router_parameters": 0} for value in auc]

    figure = draw({"store": {"base": scores(0.80, 0.81), "PEP": scores(0.60, 0.61)}})
    (panel,) = figure.axes
    assert panel.get_ylim()[0] == pytest.approx(0.805 - 0.03)
    assert [text.get_text() for text in panel.texts] == ["0.605"]


def test_every_method_has_had_its_trials(table2):
    _, output, _ = table2
    folders = {path.name for path in (output / "store" / "trials").iterdir()}
    assert folders == {f"{method}_{trial}" for method in METHODS for trial in range(2)}


def test_the_same_command_trains_nothing_again(table2):
    results, _, run = table2
    before = json.loads(results.with_suffix(".json").read_text())["logs"]
    done = run()
    assert done.returncode == 0, done.stderr
    assert " epoch " not in done.stdout
    assert json.loads(results.with_suffix(".json").read_text())["logs"] == before


def test_the_ablations_have_their_scores(table4):
    results, done = table4
    content = json.loads(results.with_suffix(".json").read_text())
    scores = content["logs"]["store"]
    assert list(scores) == ["base", "ihas_1", "ihas_2"]
    parameters = {name: runs[0]["parameters"] for name, runs in scores.items()}
    assert parameters["ihas_2"] < parameters["base"] < parameters["ihas_1"]
    assert set(content["inference"]["store"]) == set(scores)
    assert "| iHAS-1 |" in done.stdout


def test_ablations_begin_with_the_runs_of_methods(table2, table4):
    stages = [
        json.loads(line)["stage"]
        for line in (table2[1] / "store" / "ihas_2_0" / "log.jsonl").read_text().splitlines()
        if json.loads(line)["event"] == "stage"
    ]
    assert set(stages) == {"cluster", "retrain", "evaluate"}
