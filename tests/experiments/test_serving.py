"""The comparison of speeds in production: its files, and that its sides answer alike."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ihas_jax.errors import InputError


def test_a_tiny_measurement(run_script, tmp_path):
    done = run_script(
        tmp_path, "serving.py", "--shapes", "avazu", "--batches", "1", "5", "--turns", "1",
        "--shrink", "5000", "--results", "made/results",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "made/results.json").read_text())["rows_per_second"]["avazu"]
    assert {*found} == {"DNN", "routed"} and {*found["DNN"]} == {"1", "5"}
    for models in found.values():
        for sides in models.values():
            assert {"onnxruntime", "bundle"} <= {*sides}
            assert all(speed > 0 for speed in sides.values())
    text = (tmp_path / "made/results.md").read_text()
    assert "| avazu | routed | 5 |" in text and "onnxruntime 1." in text


def test_sides_that_answer_otherwise_are_noticed(script):
    serving = script("serving")
    sides = {"one": lambda ids: np.zeros(len(ids)), "other": lambda ids: np.full(len(ids), 0.1)}
    with pytest.raises(InputError, match="one, other answer differently"):
        serving.measure(sides, (3, 4), 5, 1)


def test_wrong_numbers_are_named(run_script, tmp_path):
    done = run_script(tmp_path, "serving.py", "--batches", "0")
    assert done.returncode == 2 and "numbers of 1 or more" in done.stderr
