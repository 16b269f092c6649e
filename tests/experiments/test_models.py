"""The scripts that put the click models side by side."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

MODELS = ("fm", "dnn")


@pytest.fixture(scope="module")
def table3(command):
    """Table 3 of two models on a tiny log, and what the same command says again."""
    table = dataclasses.replace(command, script="paper/table3_transfer.py").inside
    results, output = command.folder / "table3", command.folder / "table3_runs"
    flags = ("--models", *MODELS, "--seeds", 2, "--train.max-epochs", 1, "--results", results)
    done = table(*flags, output=output)
    assert done.returncode == 0, done.stderr
    return done, results, output, lambda: table(*flags, output=output)


def test_every_model_has_scores_of_every_seed_as_it_is_and_with_ihas(table3):
    _, results, output, _ = table3
    (models,) = json.loads(results.with_suffix(".json").read_text())["logs"].values()
    assert tuple(models) == MODELS
    for name, scores in models.items():
        assert set(scores) == {"original", "adafs_soft", "ihas"}
        for seed in range(2):
            folder = output / "store" / (f"ihas_{seed}" if name == "dnn" else f"{name}_{seed}")
            metrics = json.loads((folder / "metrics.json").read_text())
            assert scores["original"][seed] == metrics["base"]
            assert scores["ihas"][seed] == metrics["ihas"]
            folder = output / "store" / f"adafs_soft_{name}_{seed}"
            metrics = json.loads((folder / "metrics.json").read_text())
            assert scores["adafs_soft"][seed] == metrics["adafs_soft"]
            assert scores["original"][seed] == metrics["base"]


def test_the_table_stands_beside_the_papers_numbers(table3):
    done, results, _, _ = table3
    text = results.with_suffix(".md").read_text()
    assert "0.7766 0.7799 0.7826" in text
    for word in ("| fm | AUC |", "| dnn | AUC |", "## store", "hardware: ", "command: `python"):
        assert word in text
    assert "| fm | AUC |" in done.stdout
    assert results.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_trains_nothing_again(table3):
    _, results, _, again = table3
    before = results.with_suffix(".json").read_bytes()
    done = again()
    assert done.returncode == 0, done.stderr
    assert " epoch " not in done.stdout
    assert results.with_suffix(".json").read_bytes() == before


def test_models_are_trained_and_measured_beside_the_dnn(command):
    results = command.folder / "models"
    done = dataclasses.replace(command, script="models.py").inside(
        *("--models", *MODELS, "--data", command.folder / "store", "--seeds", 2),
        *("--output", command.folder / "models_runs", "--results", results),
        *("--preset", "small", "--train.max-epochs", 1),
        *("--batch-size", 16, "--steps", 2, "--turns", 1, "--shrink", 20_000),
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(results.with_suffix(".json").read_text())
    rows = content["models"]
    assert [row["name"] for row in rows] == list(MODELS)
    assert rows[0]["equation"] == "logit = b + sum_n w[x_n] + sum_(i<j) <e_i, e_j>"
    for row in rows:
        assert row["parameters"] > 0
        assert row["ratio"] > 0
        runs = content["logs"]["store"][row["name"]]
        assert [0.2 < run["auc"] < 1 for run in runs] == [True, True]
    assert " step | store |" in results.with_suffix(".md").read_text()


@pytest.mark.parametrize("name", ["models.py", "table_updates.py", "paper/table3_transfer.py"])
def test_two_logs_of_one_name_are_refused(command, name):
    stores = [command.folder / "store", command.folder / "elsewhere" / "store"]
    if not stores[1].exists():
        shutil.copytree(*stores)
    done = dataclasses.replace(command, script=name).inside(
        "--data", *stores, "--seeds", 2, "--results", command.folder / "none"
    )
    assert done.returncode == 2
    assert "--data names two folders of the same name: store, store." in done.stderr


def test_taught_models_are_compared_with_the_taught_model_as_it_is(command):
    table = dataclasses.replace(command, script="paper/table3_transfer.py").inside
    results, output = command.folder / "taught_table3", command.folder / "taught_table3_runs"
    flags = ("--models", "fm", "--seeds", 2, "--train.max-epochs", 1, "--retrain.teachers", "lr")
    done = table(*flags, "--results", results, output=output)
    assert done.returncode == 0, done.stderr
    content = json.loads(results.with_suffix(".json").read_text())
    assert content["compared_with"] == "student"
    (models,) = content["logs"].values()
    for seed in range(2):
        folder = output / "store" / f"none_fm_{seed}"
        found = json.loads((folder / "metrics.json").read_text())
        other = json.loads((output / "store" / f"fm_{seed}" / "metrics.json").read_text())
        assert models["fm"]["original"][seed] == found["student"] != other["base"]
        assert (found["base"], found["teacher"]) == (other["base"], other["teacher"])
        events = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
        done = [event["stage"] for event in events if event.get("state") == "done"]
        assert done == ["retrain", "evaluate"]
    assert "Every model learns from the teachers lr. So" in results.with_suffix(".md").read_text()
