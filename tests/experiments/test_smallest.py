"""The comparison of what compression leaves over seeds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from ihas_jax.config import Config
from ihas_jax.config.compress import CompressConfig

TINY = (
    *("--model.dim", 4, "--model.hidden", 8, 4, "--optimizer.learning-rate", 0.02),
    *("--train.batch-size", 100, "--train.max-epochs", 1, "--train.finish", 0.2),
    *("--teachers", "deepfm", "--students", "--l2", 1e-5, "--budget", 0.5, "--teacher-seeds", 1),
    *("--tolerance", 1.0),
)


@pytest.fixture(scope="module")
def smallest(command):
    """The command on a tiny log, its results, and what it said."""
    script = dataclasses.replace(command, script="smallest.py", tiny=TINY)
    results = command.folder / "smallest"

    def run():
        return script.inside("--seeds", 2, "--results", results, output=command.folder / "small")

    done = run()
    assert done.returncode == 0, done.stderr
    return results, done, run


def test_each_seed_has_its_base_its_choice_and_the_student_on_clicks(smallest, command):
    results, done, _ = smallest
    scores = json.loads(results.with_suffix(".json").read_text())["logs"]["store"]
    assert {kind: len(runs) for kind, runs in scores.items()} == dict.fromkeys(
        ("base", "chosen", "taught", "clicks"), 2
    )
    for seed in range(2):
        folders = [command.folder / "small" / f"store_{seed}{end}" for end in ("", "_clicks")]
        taught, clicks = (json.loads((f / "metrics.json").read_text()) for f in folders)
        # any size is good enough within a tolerance of 1
        chosen = min(taught["candidates"], key=lambda facts: facts["parameters"])
        assert scores["chosen"][seed]["name"] == chosen["name"] == taught["chosen"]["name"]
        assert scores["base"][seed]["auc"] == taught["base"]["auc"]
        assert clicks["teachers"] == [] and taught["teachers"]
        own = next(c for c in clicks["candidates"] if c["name"] == chosen["name"])
        assert scores["clicks"][seed]["auc"] == own["auc"] != chosen["auc"]
        # the base models are those of the first folder, which are not trained again
        pools = [
            {path.parent.name: path.read_text() for path in folder.glob("pool/*/log.jsonl")}
            for folder in folders
        ]
        assert len(pools[1]) == len(pools[0]) - 1 > 1 and "deepfm_1e-05" not in pools[1]
        assert pools[1].items() <= pools[0].items()
        checked = json.loads((folders[1] / "checksums.json").read_text())
        assert {"config.json", "metrics.json"} <= checked.keys()
    assert "| store |" in done.stdout and "Chosen models, by seed:" in done.stdout
    assert results.with_suffix(".png").stat().st_size > 10_000


def test_a_chosen_model_that_has_learnt_from_clicks_is_its_own_student(script, monkeypatch):
    smallest = script("smallest")
    facts = {"auc": 0.7, "logloss": 0.5, "valid_auc": 0.7, "valid_logloss": 0.5}
    facts |= {"parameters": 9, "bytes": 36, "microseconds": 1.0}
    base = {"name": "base", "taught": False, **facts}
    chosen = {"name": "lr_0.0001 on clicks", "taught": False, **facts, "parameters": 3}
    metrics = {"base": base, "chosen": chosen, "candidates": [base, chosen], "students": [base]}
    calls = []

    def compress(config, choices, data, folder, workers):
        calls.append(folder.name)
        return SimpleNamespace(metrics=metrics)

    monkeypatch.setattr(smallest, "compress", compress)
    arguments = SimpleNamespace(
        config=Config(), choices=CompressConfig(), output=Path("runs"), workers=1
    )
    found = smallest.score(arguments, None, "log_0", 0)
    assert found["clicks"] == {k: v for k, v in chosen.items() if k != "taught"}
    assert calls == ["log_0"]


def test_finished_seeds_are_not_run_again(smallest):
    results, _, run = smallest
    before = json.loads(results.with_suffix(".json").read_text())["logs"]
    done = run()
    assert done.returncode == 0, done.stderr
    assert "[Compress]" not in done.stdout
    assert json.loads(results.with_suffix(".json").read_text())["logs"] == before


def test_a_row_has_ratios_and_paired_gains(script):
    def runs(*aucs, size, time):
        keys = {"logloss": 0.5, "microseconds": time}
        sizes = [size * (1 + i) for i in range(len(aucs))]
        return [
            {"auc": auc, "parameters": own, "bytes": 4 * own + 200, **keys}
            for auc, own in zip(aucs, sizes, strict=True)
        ]

    scores = {
        "base": runs(0.70, 0.71, size=800, time=1.0),
        "chosen": [*runs(0.72, size=100, time=0.5), {**runs(0.74, size=400, time=0.5)[0]}],
        "taught": runs(0.71, 0.73, size=800, time=1.0),
        "clicks": runs(0.69, 0.71, size=100, time=0.5),
    }
    row = script("smallest").row_of("log", scores)
    log, base, smaller, of_bytes, gain, p, loss, _, clicks, taught, time = row
    assert (log, smaller, time) == ("log", "6.0 ± 2.8 (4.0)", "0.50 ± 0.00")
    assert of_bytes == "4.7 ± 1.4"  # 3,400 over 600, and 6,600 over 1,800
    assert base == "0.7050 ± 0.0071"
    assert (gain, clicks, taught) == ("+0.0250 ± 0.0071", "-0.0050 ± 0.0071", "+0.0150 ± 0.0071")
    assert p == "0.126" and loss == "+0.0000 ± 0.0000"
