"""The comparison of gates of small rank with the whole matrix."""

from __future__ import annotations

import dataclasses
import json

import pytest

TINY = (
    *("--model.dim", 4, "--model.hidden", 8, 4, "--optimizer.learning-rate", 0.02),
    *("--train.batch-size", 200, "--train.max-epochs", 1, "--cluster.min-rows", 100),
)


@pytest.fixture(scope="module")
def ranks(command):
    return dataclasses.replace(command, script="ranks.py", tiny=TINY)


def test_each_rank_is_a_run_beside_that_of_the_whole_matrix(ranks):
    results = ranks.folder / "ranks"
    flags = ("--ranks", 2, "--seeds", 2, "--results", results)
    done = ranks.inside(*flags, output=ranks.folder / "ranked")
    assert done.returncode == 0, done.stderr
    scores = json.loads(results.with_suffix(".json").read_text())["logs"]["store"]
    assert list(scores) == ["whole, ihas", "whole, search", "rank 2, ihas", "rank 2, search"]
    for title, rank in (("whole", None), ("rank 2", 2)):
        for seed in range(2):
            folder = ranks.folder / "ranked" / "store" / f"{title.replace(' ', '_')}_{seed}"
            metrics = json.loads((folder / "metrics.json").read_text())
            config = json.loads((folder / "config.json").read_text())["config"]
            assert config["gates"]["rank"] == rank
            for key in ("ihas", "search"):
                assert scores[f"{title}, {key}"][seed]["auc"] == metrics[key]["auc"]
    titles = ("whole", "rank 2")
    whole, small = (scores[f"{title}, ihas"][0]["router_parameters"] for title in titles)
    coordinates = 4 * 9
    assert whole - small == coordinates**2 - 2 * 2 * coordinates
    gain = scores["rank 2, ihas"][0]["auc"] - scores["whole, ihas"][0]["auc"]
    gain += scores["rank 2, ihas"][1]["auc"] - scores["whole, ihas"][1]["auc"]
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("| store | rank 2 |"))
    assert f"{gain / 2:+.4f}" in row and f"| {small:,} |" in row


def test_other_methods_have_no_such_gates(ranks):
    for flags in (("--method", "pep"), ("--ranks",)):
        done = ranks.inside(*flags, "--seeds", 2, output=ranks.folder / "none")
        assert done.returncode and "Gates of iHAS are compared" in done.stderr
