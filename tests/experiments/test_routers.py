"""The comparison of the compiled router with the exact one."""

from __future__ import annotations

import dataclasses
import json

import pytest

TINY = (
    *("--model.dim", 4, "--model.hidden", 8, 4, "--optimizer.learning-rate", 0.02),
    *("--train.batch-size", 200, "--train.max-epochs", 1, "--cluster.min-agreement", 0.3),
)


@pytest.fixture(scope="module")
def routers(command):
    """The command on a tiny log, and its results."""
    return dataclasses.replace(command, script="routers.py", tiny=TINY), command.folder / "routers"


@pytest.fixture(scope="module")
def done(routers):
    script, results = routers
    flags = "--clusters", 2, "--seeds", 2, "--results", results
    done = script.inside(*flags, output=script.folder / "routed")
    assert done.returncode == 0, done.stderr
    return done


def test_each_seed_has_both_routers_of_one_search(routers, done):
    script, results = routers
    content = json.loads(results.with_suffix(".json").read_text())
    for seed in range(2):
        for kind in ("exact", "compiled"):
            folder = script.folder / "routed" / "store" / f"{kind}_2_{seed}"
            metrics = json.loads((folder / "metrics.json").read_text())
            facts = content["logs"]["store"]["2"][kind][seed]
            assert facts["auc"] == metrics["ihas"]["auc"]
            assert (facts["router"] is None) == (kind == "exact")
        scores = [
            json.loads((script.folder / f"routed/store/{kind}_2_{seed}/metrics.json").read_text())
            for kind in ("exact", "compiled")
        ]
        assert scores[0]["search"] == scores[1]["search"]
    times = content["inference"]["store"]
    assert set(times) == {"base", "exact_2", "compiled_2"} and min(times.values()) > 0
    assert "| store | 2 |" in done.stdout


def test_a_row_has_differences_from_the_exact_router(script):
    def runs(*aucs, **more):
        return [{"auc": auc, "logloss": 0.5} | more for auc in aucs]

    router = {
        "kept": True,
        "agreement": 0.95,
        "test_agreement": 0.96,
        "exact": {"parameters": 9000, "microseconds": 2.0},
        "compiled": {"parameters": 100, "microseconds": 0.25},
    }
    kinds = {
        "exact": runs(0.70, 0.72, router=None),
        "compiled": runs(0.71, 0.74, router=router),
    }
    times = {"base": 2.0, "exact_2": 5.0, "compiled_2": 1.0}
    row = script("routers").row_of("log", "2", kinds, times)
    assert row[:5] == ["log", "2", "0.7100 ± 0.0141", "+0.0150 ± 0.0071", "0.205"]
    assert row[7:] == ["0.9600 ± 0.0000", "9,000 → 100", "2.00 → 0.25", "2.50", "0.50"]
    router["kept"] = False
    row = script("routers").row_of("log", "2", kinds, times)
    assert row[7:] == ["0.9500 ± 0.0000, too little", "", "", "", ""]


def test_other_methods_have_no_such_router(routers):
    script, _ = routers
    for flags in (("--method", "pep"), ("--clusters", 1)):
        done = script.inside(*flags, "--seeds", 2, output=script.folder / "none")
        assert done.returncode and "Routers of iHAS are compared" in done.stderr
