"""The comparison of groups over one table with one model that is trained as long."""

from __future__ import annotations

import dataclasses
import json

import pytest

TINY = (
    *("--model.dim", 4, "--model.hidden", 8, 4, "--optimizer.learning-rate", 0.02),
    *("--train.batch-size", 200, "--train.max-epochs", 1, "--train.finish", 0.2),
    *("--retrain.teachers", "lr", "--retrain.groups", 2, "--budgets", 0.5),
)


@pytest.fixture(scope="module")
def grouping(command):
    """The command on a tiny log, and its results."""
    script = dataclasses.replace(command, script="groups.py", tiny=TINY)
    return script, command.folder / "grouping"


@pytest.fixture(scope="module")
def done(grouping):
    script, results = grouping
    flags = "--fields", "own_0_0", "--seeds", 2, "--results", results
    done = script.inside(*flags, output=script.folder / "grouped")
    assert done.returncode == 0, done.stderr
    return done


def test_each_seed_has_one_model_and_groups(grouping, done):
    script, results = grouping
    scores = json.loads(results.with_suffix(".json").read_text())["logs"]["store, own_0_0"]["0.5"]
    for seed in range(2):
        folder = script.folder / "grouped" / f"store_{seed}_0.5"
        metrics = json.loads((folder / "metrics.json").read_text())
        models = json.loads((folder / "bundle" / "bundle.json").read_text())["models"]
        for kind, name in (("base", "base"), ("one", "one"), ("groups", "spectral")):
            assert scores[kind][seed]["auc"] == metrics[name]["auc"]
        assert scores["groups"][seed]["networks"] == len(models)
    assert "| store, own_0_0 | 50 % |" in done.stdout


def test_a_row_has_differences_from_one_model(script):
    def runs(*aucs, bytes_=100, networks=1):
        same = {"logloss": 0.5, "bytes": bytes_, "networks": networks}
        return [{"auc": auc} | same for auc in aucs]

    kinds = {
        "one": runs(0.70, 0.72),
        "groups": [*runs(0.71, bytes_=120, networks=3), *runs(0.74, bytes_=110, networks=2)],
        "base": runs(0.69, 0.70),
    }
    row = script("groups").row_of("log, user", "0.125", kinds)
    assert row[:3] == ["log, user", "12.5 %", "0.7100 ± 0.0141"]
    assert (row[3], row[5]) == ("+0.0150 ± 0.0071", "+0.0000 ± 0.0000")
    assert row[4] == "0.205"
    assert row[7:] == ["1.15 ± 0.07", "2.5 ± 0.7", "-0.0150 ± 0.0071"]


def test_a_flag_with_another_name_here_is_suggested(grouping):
    script, _ = grouping
    done = script.inside("--budget", 0.1, output=script.folder / "none")
    assert done.returncode and "--budgets" in done.stderr and "run.py for one" not in done.stderr


def test_a_field_is_named_for_each_log(grouping):
    script, _ = grouping
    done = script.inside("--seeds", 2, output=script.folder / "none")
    assert done.returncode and "Name the field to group by for each log" in done.stderr
