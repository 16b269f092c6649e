"""The record of a comparison: what it keeps, refuses and leaves out, and the flags of its rows."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from ihas_jax.config import ClusterConfig, Config, GateConfig, SearchConfig
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.flags import config_to_json, replaced
from ihas_jax.pipeline.idle import check_flags
from ihas_jax.pipeline.walk import Walk
from ihas_jax.progress import command_line

NAN = float("nan")


def test_a_refused_method_is_left_out_alone(script, record, small, monkeypatch):
    compare, begins, kept = script("compare"), {}, []
    record = record(seeds=2)

    def score(variant, data, folder, seed, sources):
        begins[variant.name] = list(sources)
        return {"auc": seed}

    def check(config, data):
        if config.method == "pep":
            raise InputError("This click model can't carry it.")

    monkeypatch.setattr(compare, "score_variant", score)
    monkeypatch.setattr(compare, "check_choices", check)
    monkeypatch.setattr(type(record), "save", lambda own: kept.append(list(own.logs["x"])))
    monkeypatch.setattr(type(record.arguments), "open_logs", lambda own: {"x": small})
    methods = {"base": "none", "refused": "pep", "next": "ihas"}
    rows = [compare.Variant(n, n, n, Config(method=m)) for n, m in methods.items()]
    (log,) = compare.score_logs(record, lambda name, data: rows, leave_out=True)
    assert log == ("x", small, rows)
    assert record.logs == {"x": {name: [{"auc": 0}, {"auc": 1}] for name in ("base", "next")}}
    assert kept == [["base"], ["base", "next"]]
    assert begins["next"] == ["base"]


@pytest.mark.parametrize(
    ("failing", "start", "leave_out"),
    [("next", 0, True), ("base", 0, True), ("refused", 0, False), ("refused", 1, True)],
)
def test_what_goes_wrong_in_a_run_is_no_refusal(
    script, record, small, monkeypatch, failing, start, leave_out
):
    """The last case is that of the first row, without which there is no table."""
    compare = script("compare")

    def score(variant, data, folder, seed, sources):
        if variant.name == failing:
            raise InputError("The disk is full.")
        return {"auc": seed}

    monkeypatch.setattr(compare, "score_variant", score)
    monkeypatch.setattr(compare, "check_choices", lambda config, data: None)
    record = record()
    monkeypatch.setattr(type(record), "save", lambda own: None)
    monkeypatch.setattr(type(record.arguments), "open_logs", lambda own: {"x": small})
    rows = [compare.Variant(n, n, n, Config()) for n in ("base", "refused", "next")][start:]
    with pytest.raises(InputError, match="disk is full"):
        list(compare.score_logs(record, lambda name, data: rows, leave_out=leave_out))


def test_results_stand_beside_the_runs_by_default(record, tmp_path):
    """A comparison of one's own log then leaves the records of the repository alone."""
    arguments = record().arguments
    assert arguments.destination == arguments.results
    unnamed = dataclasses.replace(arguments, results=None, output=tmp_path / "mine")
    assert unnamed.destination == tmp_path / "mine" / "results"


def test_scores_of_another_comparison_are_neither_used_nor_lost(record, tmp_path):
    content = {
        "seeds": 2,
        "config": config_to_json(Config()),
        "own": {"pep": ["a"]},
        "logs": {"x": {}},
    }
    path = tmp_path / "table.json"
    path.write_text(json.dumps(content))
    assert record({"own": {"pep": ["a"]}}).logs == record().logs == {"x": {}}
    for wrong, words in (
        ({"identity": {"own": {"pep": ["b"]}}}, "differs in own"),
        ({"config": Config(seed=1)}, "seed: 0 -> 1"),
        ({"seeds": 3}, "differs in seeds"),
    ):
        with pytest.raises(InputError, match=rf"table.json holds .* {words}.* another --results"):
            record(**wrong)
    assert json.loads(path.read_text()) == content
    assert record(results=tmp_path / "none").logs == {}


def test_a_record_that_grows_takes_more_seeds_and_keeps_what_it_has(
    script, record, small, monkeypatch
):
    compare, ran = script("compare"), []

    def score(variant, data, folder, seed, sources):
        ran.append((variant.name, seed))
        return {"auc": seed / 10}

    monkeypatch.setattr(compare, "score_variant", score)
    rows = [compare.Variant(name, name, name, Config()) for name in ("base", "next")]
    for seeds, own, new in (
        (1, rows[:1], [("base", 0)]),
        (3, rows, [("base", 1), ("base", 2), ("next", 0), ("next", 1), ("next", 2)]),
        (2, rows, []),
    ):
        grown = record(grows=True, seeds=seeds)
        monkeypatch.setattr(type(grown.arguments), "open_logs", lambda own: {"x": small})
        ran.clear()
        list(compare.score_logs(grown, lambda name, data, own=own: own))
        assert ran == new
    for name in ("base", "next"):
        assert record(grows=True).logs["x"][name] == [{"auc": seed / 10} for seed in range(3)]
    with pytest.raises(InputError, match="seed: 0 -> 1"):
        record(grows=True, config=Config(seed=1))


def test_a_walk_counts_runs_and_skips_what_is_refused(script, record, small, monkeypatch, capsys):
    compare, record = script("compare"), record(seeds=2)

    def check(config, data):
        if config.method == "pep":
            raise InputError("This click model can't carry it.")

    monkeypatch.setattr(compare, "score_variant", lambda *_: {"auc": 0.5})
    monkeypatch.setattr(compare, "check_choices", check)
    monkeypatch.setattr(type(record.arguments), "open_logs", lambda own: {"x": small})
    methods = {"base": "none", "refused": "pep", "next": "ihas"}
    rows = [compare.Variant(n, n, n, Config(method=m)) for n, m in methods.items()]
    walk = Walk("Studies", 6, lambda kind, facts: None)
    with command_line():
        list(compare.score_logs(record, lambda name, data: rows, leave_out=True, walk=walk))
    said = [line for line in capsys.readouterr().out.splitlines() if "[Studies]" in line]
    assert said[0] == "[Studies] step 1 of 6: x, base, seed 0"
    assert said[-1] == "[Studies] step 4 of 4: x, next, seed 1"


def test_scores_of_another_log_of_the_same_name_are_no_scores_of_this_one(record, small):
    first = record()
    first.scores_of("x", small)["base"] = [{"auc": 0.5}]
    first.save()
    assert record().scores_of("x", small) == {"base": [{"auc": 0.5}]}
    other = dataclasses.replace(small, valid=Split(small.valid.ids[1:], small.valid.labels[1:]))
    with pytest.raises(InputError, match=r"scores of another log x .* another --results"):
        record().scores_of("x", other)


def test_scores_read_back_are_those_that_were_written(record, tmp_path):
    first = record({"trials": 2})
    first.logs["x"] = [NAN, 0.5]
    first.save()
    assert "NaN" not in (tmp_path / "table.json").read_text()
    value, other = record({"trials": 2}).logs["x"]
    assert math.isnan(value) and other == 0.5


def test_methods_of_a_table_share_the_flags_that_mean_something_to_them(record):
    """--search.rotate is for --method alone, a budget and a start for all that can have them."""
    config = Config().having(ClusterConfig(clusters=3, min_rows=50))
    for flag, value in (("search.rotate", True), ("retrain.start", "searched"), ("budget", 0.5)):
        config = replaced(config, flag, value)
    arguments = record(config=config).arguments
    assert arguments.config_of("ihas") == config
    for method in ("none", "pep", "adafs_soft", "spectral"):
        check_flags(found := arguments.config_of(method))
        plain = method in ("none", "adafs_soft")
        assert found.retrain.start == (None if plain else "searched"), method
        assert found.budget == (None if method == "none" else 0.5)
        own = ClusterConfig() if method == "spectral" else ClusterConfig(clusters=3, min_rows=50)
        assert found.of(ClusterConfig) == own
    clustered = arguments.config_of("spectral", 0.25, {"spectral.clusters": 2})
    check_flags(clustered)
    assert clustered.budget == 0.25 and clustered.of(ClusterConfig) == ClusterConfig(min_rows=50)


def test_the_ablation_without_instances_has_no_flags_of_what_its_gates_see(script):
    config = replaced(Config(), "gates.inputs", "unit")
    table = script("table4_ablation")
    rows = {row.name: row.config for row in table.rows_of(table.Arguments(config=config))}
    for row in rows.values():
        check_flags(row)
    assert rows["ihas_4"].of(GateConfig) == GateConfig(instance_wise=False)
    assert rows["ihas_3"].of(GateConfig) == GateConfig(inputs="unit", polarization=False)


def test_the_transfer_table_has_adafs_without_a_start_of_retraining(script, record, monkeypatch):
    table, seen = script("table3_transfer"), []
    found = {"base": {}, "adafs_soft": {}, "ihas": {}}

    def run(config, *_):
        seen.append(config)
        return found

    monkeypatch.setattr(table, "run_by_search", run)
    monkeypatch.setattr(table, "run_alone", run)
    record = record(config=replaced(Config(), "retrain.start", "tables"), seeds=1)
    table.score_model(record.arguments, None, "log", "fm", SearchConfig(2, 10))
    assert [(c.method, c.retrain.start) for c in seen] == [("ihas", "tables"), ("adafs_soft", None)]
    for config in seen:
        check_flags(config)
