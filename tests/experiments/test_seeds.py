"""The script that runs several seeds."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from ihas_jax.config import Config
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.stages.run import write_json

NAN = float("nan")
ONE = {"auc": NAN, "logloss": 0.4, "only_label": 1, "parameters": 9, "router_parameters": 0}


@pytest.fixture(scope="module")
def fifth(command, quick):
    """Seeds 5 and 6 on a tiny log, one after the other."""
    results, output = command.folder / "seeds", command.folder / "seeds_runs"
    seeds = dataclasses.replace(command, script="seeds.py")
    done = seeds.inside("--seed", 5, "--seeds", 2, "--results", results, output=output)
    assert done.returncode == 0, done.stderr
    return results, output, done


def test_rows_are_labelled_by_their_seeds(fifth):
    results, output, done = fifth
    assert {path.name for path in output.iterdir()} == {"seed_5", "seed_6"}
    text = results.with_suffix(".md").read_text()
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == ["5", "6"]
    assert text in done.stdout


def test_numbers_are_those_of_each_seeds_run(fifth):
    results, output, _ = fifth
    content = json.loads(results.with_suffix(".json").read_text())
    for seed, run in zip((5, 6), content["runs"], strict=True):
        assert run == json.loads((output / f"seed_{seed}" / "metrics.json").read_text())
    for model, row in content["summary"].items():
        first, second = (run[model]["auc"] for run in content["runs"])
        assert row["auc"] == pytest.approx((first + second) / 2)
        if model != "base":
            gains = [run[model]["auc"] - run["base"]["auc"] for run in content["runs"]]
            assert row["auc_difference"] == pytest.approx(sum(gains) / 2)


def test_what_seeds_found_of_a_planted_truth_is_labelled_too(script, monkeypatch, tmp_path):
    seeds, drawn, trained = script("seeds"), [], []

    def draw(config):
        drawn.append(config.seed)
        return synthetic(SyntheticConfig(rows=50))

    def run(config, data, folder):
        trained.append((config.seed, folder.name))
        return {}

    found = {"agreement": 0.5, "open_share": {"matters": 0.75, "noise": 0.25}}
    monkeypatch.setattr(seeds, "run_alone", run)
    monkeypatch.setattr(seeds, "recovered", lambda data, folder: found)
    monkeypatch.setattr(seeds, "synthetic", draw)
    runs = seeds.run_seeds(seeds.Arguments(config=Config(seed=5), seeds=2, output=tmp_path))
    assert drawn == [5, 6]
    assert trained == [(5, "seed_5"), (6, "seed_6")]
    assert seeds.truth_table({5: {}}) == []
    assert seeds.truth_table(runs) == [
        "",
        "| seed | adjusted Rand index | open: matters | open: noise |",
        "|---:|---:|---:|---:|",
        "| 5 | 0.500 | 75% | 25% |",
        "| 6 | 0.500 | 75% | 25% |",
    ]


def test_seeds_of_one_class_are_null_in_json(script, tmp_path):
    seeds = script("seeds")
    runs = {seed: dict.fromkeys(seeds.MODELS, ONE) for seed in range(2)}
    write_json(tmp_path / "seeds.json", seeds.summarize(runs))
    text = (tmp_path / "seeds.json").read_text()
    written = json.loads(text)
    assert "NaN" not in text
    assert written["ihas"]["auc"] is None and written["ihas"]["auc_p"] is None
    assert written["ihas"]["logloss"] == 0.4
    table = "\n".join(seeds.model_table(runs))
    assert "| iHAS | not defined: all rows have label 1 | 0.4000 ± 0.0000 | 9 | not" in table
    assert "nan" not in table


def test_one_seed_and_other_methods_are_refused(command):
    seeds = dataclasses.replace(command, script="seeds.py").inside
    assert "--seeds must be at least 2" in seeds("--seeds", 1).stderr
    assert "use paper/table2_overall.py" in seeds("--method", "pep").stderr
    done = seeds("--together")
    assert done.returncode == 2 and "--together needs --data" in done.stderr
