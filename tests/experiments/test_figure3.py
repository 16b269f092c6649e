"""Figure 3 over seeds: how probabilities of gates are measured, and the script on a tiny log."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

TINY = (
    *("--model.dim", 4, "--model.hidden", 8, 4, "--optimizer.learning-rate", 0.02),
    *("--train.batch-size", 200, "--train.max-epochs", 1, "--search.pretrain-epochs", 1),
)


def test_facts_are_means_over_the_rows(script):
    """Row 1: mean 0.5, distances 0.4; open 0.9, closed 0.1. Row 2: all open, so there is no gap."""
    gates = script("gate_figure").Gates
    probs = np.array([[0.9, 0.1, 0.9, 0.1], [0.6, 0.8, 0.6, 0.8]])
    facts = script("figure3_gates").gate_facts(gates(probs, np.array([0.5, 0.55])))
    assert facts == pytest.approx({"distance": 0.25, "gap": 0.4, "open": 0.75})
    closed = script("figure3_gates").gate_facts(gates(probs, np.ones(2)))
    assert (closed["gap"], closed["open"]) == (0.0, 0.0)


def test_both_searches_are_measured_and_nothing_else_is_trained(command):
    figure3 = dataclasses.replace(command, script="paper/figure3_gates.py", tiny=TINY)
    results, runs = command.folder / "figure3", command.folder / "figure3_runs"

    def run(seeds):
        return figure3.inside("--seeds", seeds, "--results", results, output=runs)

    done = run(2)
    assert done.returncode == 0, done.stderr
    text = results.with_suffix(".json").read_text()
    scores = json.loads(text)["logs"]["store"]
    assert {name: len(own) for name, own in scores.items()} == {"ihas": 2, "ihas_3": 2}
    for name, polarized in (("ihas", True), ("ihas_3", False)):
        for seed in range(2):
            folder = runs / "store" / f"{name}_{seed}"
            config = json.loads((folder / "config.json").read_text())["config"]
            assert (config["gates"]["polarization"], config["seed"]) == (polarized, seed)
            assert not (folder / "base").exists() and not (folder / "metrics.json").exists()
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("| store | without "))
    assert f"{np.mean([one['gap'] for one in scores['ihas_3']]):.4f}" in row
    again = run(2)
    assert " epoch " not in again.stdout and results.with_suffix(".json").read_text() == text


def test_another_method_has_no_such_gates(command):
    figure3 = dataclasses.replace(command, script="paper/figure3_gates.py")
    for flags in (("--method", "pep"), ("--gates.no-polarization",)):
        done = figure3.inside(*flags, output=command.folder / "none")
        assert done.returncode and "Gates of iHAS are measured" in done.stderr
