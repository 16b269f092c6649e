"""The comparison of stages on several devices with one device."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest


def test_a_stage_on_two_devices_agrees_with_one(command):
    results = command.folder / "agreement"
    done = dataclasses.replace(command, script="agreement.py")(
        *("--devices", 2, "--processes", "--runs", "uniform", "--rows", 640),
        *("--results", results),
    )
    assert done.returncode == 0, done.stderr
    stages = json.loads(results.with_suffix(".json").read_text())["differences"]["uniform"]
    assert list(stages) == ["2 devices"]
    found = stages["2 devices"]
    assert list(found) == ["base", "search", "choose", "retrain", "evaluate"]
    assert max(found.values()) < 1e-5
    assert found["base"] > 0  # two devices add up in another order
    assert "| uniform |" in results.with_suffix(".md").read_text()


def test_a_run_that_is_not_known_is_named(command):
    done = dataclasses.replace(command, script="agreement.py")("--runs", "ihas", "best")
    assert done.returncode == 2
    assert "There is no run 'best'. --runs knows ihas; " in done.stderr


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"loss": 0.5, "kept": [1, {"auc": 0.75}], "time": 9.0, "seconds": {"base": 1}}, 0.0),
        ({"loss": 0.5, "kept": [1, {"auc": 0.5}], "time": 2.0, "seconds": 3}, 0.25),
        ({"loss": 0.5, "kept": [2, {"auc": 0.75}]}, math.inf),
        ({"loss": 0.5, "kept": [1, {"auc": 0.75}, 3]}, math.inf),
        ({"kept": [1, {"auc": 0.75}]}, math.inf),
        ({"loss": None, "kept": [1, {"auc": 0.75}]}, math.inf),
    ],
)
def test_logs_differ_by_their_largest_difference(script, other, expected):
    one = {"loss": 0.5, "kept": [1, {"auc": 0.75}], "time": 1.0, "seconds": 2.0}
    assert script("agreement").difference([one], [other]) == expected
