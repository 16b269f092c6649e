"""Numbers of a finished run on the disk, and parts that can fail alone."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from ihas_jax.files import read_json
from ihas_jax.pipeline.parts import make_parts, require_parts
from ihas_jax.pipeline.publish import publish, read_published

METRICS = {
    "method": "ihas",
    "base": {"auc": 0.5},
    "ihas": {"auc": float("nan"), "only_label": 1},
    "clusters": [{"test": {"auc": float("nan")}, "widths": {"f0": 1}}, {"test": None}],
}


@pytest.fixture
def run(tmp_path):
    return SimpleNamespace(workdir=tmp_path, event=lambda kind, facts: None)


def test_a_part_that_fails_is_named_and_the_others_are_made():
    made = []

    def fail():
        raise ValueError("no font\nand more")

    parts = {"a": lambda: made.append("a"), "b": fail, "c": lambda: made.append("c")}
    missing = make_parts(parts)
    assert (missing, made) == (("b",), ["a", "c"])
    with pytest.raises(SystemExit, match=r"the numbers are in metrics\.json, but .* in b\. Run"):
        require_parts(missing, "metrics.json")
    require_parts((), "metrics.json")


def test_new_numbers_remove_the_report_and_figures_of_old_ones(run):
    names = ["report.md", "figures/widths.png", "figures/probabilities.png", "notes.txt"]
    (run.workdir / "figures").mkdir()
    for name in names:
        (run.workdir / name).write_text("old")
    shown = {"probs": np.full((2, 6), 0.5), "thresholds": np.full(2, 0.4)}
    publish(run, METRICS, {"base": [{"epoch": 0, "auc": float("nan")}]}, shown)
    assert [(run.workdir / name).exists() for name in names] == [False, False, False, True]
    curves = read_json(run.workdir / "curves.json")
    assert curves["histories"] == {"base": [{"epoch": 0, "auc": None}]}
    assert sum(curves["gates"]["all"]) == 12


def test_a_run_is_finished_where_numbers_and_bundle_are_there(run):
    publish(run, METRICS, {})
    assert read_published(run) is None
    (run.workdir / "bundle").mkdir()
    (run.workdir / "bundle" / "bundle.json").write_text("{}")
    metrics = read_published(run)
    assert metrics["base"]["auc"] == 0.5
    undefined = (metrics["ihas"], metrics["clusters"][0]["test"])
    assert all(math.isnan(scores["auc"]) for scores in undefined)  # null in the file
