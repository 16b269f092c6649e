"""The script that runs several seeds."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ihas_jax.config import Config, RetrainConfig
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.files import write_json

NAN = float("nan")
ONE = {"auc": NAN, "logloss": 0.4, "only_label": 1, "parameters": 9, "router_parameters": 0}


def metrics(seed):
    """The content of metrics.json, with numbers by which the seed is known."""
    row = {"auc": 0.6 + seed / 100, "logloss": 0.4, "parameters": 1000 * seed}
    clusters = [{"share": 1.0, "kept": 0.5, "fallback": None}]
    rows = {"base": row, "search": row, "ihas": row | {"auc": 0.7, "router_parameters": seed}}
    return rows | {"clusters": clusters, "seconds": {"base": 2.0, "search": 10.0 * seed}}


@pytest.fixture
def fifth(command, script, monkeypatch, tmp_path):
    """`seeds.py --seed 5 --seeds 2` on a tiny log, whose runs are not trained."""
    runs = []

    def run(config, data, folder):
        runs.append((config.seed, folder, len(data.train.labels)))
        return metrics(config.seed)

    monkeypatch.setattr(script("compare"), "run_alone", run)
    results, output = tmp_path / "seeds", tmp_path / "runs"
    seeds = dataclasses.replace(command, script="seeds.py")
    done = seeds.inside("--seed", 5, "--seeds", 2, "--results", results, output=output)
    assert done.returncode == 0, done.stderr
    assert runs == [(seed, output / f"seed_{seed}", 1600) for seed in (5, 6)]
    return results, done


def test_rows_are_labelled_by_their_seeds(fifth):
    results, done = fifth
    text = results.with_suffix(".md").read_text()
    assert "# store: 2 seeds" in text
    assert "| 5 | 5 | 52 | 100%, 50% |\n| 6 | 6 | 62 | 100%, 50% |" in text
    assert text in done.stdout


def test_numbers_are_means_over_the_seeds_beside_those_of_each(fifth):
    content = json.loads(fifth[0].with_suffix(".json").read_text())
    assert content["runs"] == [metrics(5), metrics(6)]
    row = content["summary"]["ihas"]
    assert row["parameters"] == 5500
    assert (row["auc"], row["auc_difference"]) == pytest.approx((0.7, 0.045))
    assert row["auc_difference_deviation"] == pytest.approx(0.01 / 2**0.5)
    assert "auc_difference" not in content["summary"]["base"]


def test_what_seeds_found_of_a_planted_truth_is_labelled_too(script, monkeypatch, tmp_path):
    seeds, drawn, trained = script("seeds"), [], []

    def draw(config):
        drawn.append(config.seed)
        return synthetic(SyntheticConfig(rows=50))

    def run(config, data, folder):
        trained.append((config.seed, folder.name))
        return {"base": {}}

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
    seeds, untaught = script("seeds"), script("reference").reference_of(Config())
    runs = {seed: dict.fromkeys(seeds.titles_of(untaught), ONE) for seed in range(2)}
    write_json(tmp_path / "seeds.json", seeds.summarize(runs, untaught))
    text = (tmp_path / "seeds.json").read_text()
    written = json.loads(text)
    assert "NaN" not in text
    assert written["ihas"]["auc"] is None and written["ihas"]["auc_p"] is None
    assert written["ihas"]["logloss"] == 0.4
    table = "\n".join(seeds.model_table(runs, untaught))
    assert "| iHAS | not defined: all rows have label 1 | 0.4000 ± 0.0000 | 9 | not" in table
    assert "nan" not in table


def test_one_seed_and_other_methods_are_refused(command):
    seeds = dataclasses.replace(command, script="seeds.py").inside
    assert "--seeds must be at least 2" in seeds("--seeds", 1).stderr
    assert "use paper/table2_overall.py" in seeds("--method", "pep").stderr
    done = seeds("--together")
    assert done.returncode == 2 and "--together needs --data" in done.stderr


@pytest.fixture(scope="module")
def taught(command):
    """`seeds.py` with teachers on a tiny log."""
    results, output = command.folder / "taught_seeds", command.folder / "taught_seeds_runs"
    flags = ("--retrain.teachers", "lr", "--seeds", 2, "--train.max-epochs", 1)
    done = dataclasses.replace(command, script="seeds.py").inside(
        *flags, "--results", results, output=output
    )
    assert done.returncode == 0, done.stderr
    return results, output


def read(path):
    return json.loads(path.read_text())


def test_taught_models_are_compared_with_a_taught_full_size_model(taught):
    results, output = taught
    content, rows = read(results.with_suffix(".json")), {}
    assert content["compared_with"] == "student"
    for key, run in {"student": "none", "base": "seed", "ihas": "seed"}.items():
        rows[key] = [read(output / f"{run}_{seed}" / "metrics.json")[key] for seed in range(2)]
        assert [run[key] for run in content["runs"]] == rows[key]
    pairs = zip(rows["ihas"], rows["student"], strict=True)
    gains = [ihas["auc"] - student["auc"] for ihas, student in pairs]
    summary = content["summary"]
    assert list(summary) == ["student", "base", "search", "ihas"]
    assert summary["ihas"]["auc_difference"] == pytest.approx(sum(gains) / 2)
    assert rows["student"] != rows["base"] and "auc_difference" not in summary["student"]


def test_base_and_teachers_of_the_full_size_model_are_those_of_ihas(taught):
    for seed in range(2):
        lines = (taught[1] / f"none_{seed}" / "log.jsonl").read_text().splitlines()
        stages = [json.loads(line)["stage"] for line in lines if '"state": "done"' in line]
        assert stages == ["retrain", "evaluate"]


def test_the_table_names_the_taught_model_and_the_one_that_learnt_from_clicks(taught):
    text = taught[0].with_suffix(".md").read_text()
    for words in (
        "| AUC vs base, taught | p | logloss vs base, taught | p |",
        "| base, taught | ",
        "| base, clicks | ",
        "differences from the taught base model",
        "Every model learns from the teachers lr. So",
        "The row 'base, clicks' is",
    ):
        assert words in text
    gain = read(taught[0].with_suffix(".json"))["summary"]["ihas"]["auc_difference"]
    (row,) = [line for line in text.splitlines() if line.startswith("| iHAS |")]
    assert row.split(" | ")[4].startswith(f"{gain:+.4f} ±")


def test_seeds_together_have_a_taught_full_size_model_too(script, monkeypatch, tmp_path):
    """Each seed has that of its own run."""
    seeds, calls = script("seeds"), []

    def score(config, run, data, folder, sources):
        calls.append((config.seed, run["n"], folder.name, [path.name for path in sources]))
        return {"auc": config.seed}

    config = Config(seed=3, retrain=RetrainConfig(teachers=("lr",)))
    monkeypatch.setattr(seeds, "open_store", lambda path: "a store")
    monkeypatch.setattr(seeds, "run_together", lambda config, data, folders: [{"n": 1}, {"n": 2}])
    monkeypatch.setattr(seeds, "score_full_size", score)
    arguments = seeds.Arguments(
        config=config, seeds=2, data=tmp_path, output=tmp_path, together=True
    )
    runs = seeds.run_seeds(arguments)
    assert calls == [(3, 1, "none_3", ["seed_3"]), (4, 2, "none_4", ["seed_4"])]
    assert runs == {n + 2: {"n": n, "student": {"auc": n + 2}} for n in (1, 2)}


def test_a_searched_teacher_leaves_a_base_of_clicks_and_the_table_says_so(script):
    seeds = script("seeds")
    config = Config(retrain=RetrainConfig(teachers=("search",)))
    runs = {seed: metrics(seed) | {"clusters": []} for seed in range(2)}
    text = "\n".join(seeds._lines(seeds.Arguments(config=config, seeds=2), runs))
    assert "| AUC vs base, clicks | p |" in text and "| base, clicks | 0.6050" in text
    assert "has learnt from clicks, since" in text and "base, taught" not in text
