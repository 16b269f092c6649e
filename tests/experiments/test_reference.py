"""The full-size model that methods are compared with, and what tables say about it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from ihas_jax.config import Config
from ihas_jax.errors import InputError
from ihas_jax.flags import replaced
from ihas_jax.pipeline.idle import check_flags

PLAIN = replaced(Config(method="ihas"), "budget", 0.25)
TAUGHT = replaced(PLAIN, "retrain.teachers", ("dnn:2", "base"))
BY_SEARCH = replaced(PLAIN, "retrain.teachers", ("dnn", "search"))


@pytest.fixture
def reference(script):
    return script("reference")


def test_a_model_with_teachers_is_compared_with_a_full_size_model_that_has_them(reference):
    untaught = reference.reference_of(PLAIN)
    assert (untaught.key, untaught.title, untaught.note) == ("base", "base", "")
    taught = reference.reference_of(TAUGHT)
    assert (taught.key, taught.title) == ("student", "base, taught")
    assert taught.note.startswith("Every model learns from the teachers dnn:2 base. So does the")
    assert (untaught.identity, taught.identity) == ({}, {"compared_with": "student"})


def test_a_base_that_has_learnt_from_clicks_is_said_to(reference):
    found = reference.reference_of(BY_SEARCH)
    assert (found.key, found.title) == ("base", "base, clicks")
    assert "teachers dnn search" in found.note and "has learnt from clicks" in found.note


def test_the_run_of_the_full_size_model_differs_in_method_and_budget_alone(reference):
    plain = reference.full_size(TAUGHT)
    assert (plain.method, plain.budget) == ("none", None)
    assert replaced(replaced(plain, "method", "ihas"), "budget", 0.25) == TAUGHT
    with pytest.raises(InputError, match=r"leave search out of --retrain\.teachers"):
        reference.full_size(BY_SEARCH)


def test_a_config_without_teachers_has_no_flag_of_theirs(reference):
    config = TAUGHT
    for flag, value in (("weight", 0.5), ("mean", "log_odds"), ("folds", 3)):
        config = replaced(config, f"retrain.teacher_{flag}", value)
    config = replaced(config, "retrain.start", "tables")
    check_flags(found := reference.without_teachers(config))
    assert replaced(found, "retrain.teachers", TAUGHT.retrain.teachers) == replaced(
        TAUGHT, "retrain.start", "tables"
    )


@pytest.mark.parametrize(
    ("config", "ran", "score"), [(PLAIN, 0, 0.7), (BY_SEARCH, 0, 0.7), (TAUGHT, 1, 0.8)]
)
def test_one_more_run_is_made_only_where_it_can_be_taught(
    script, monkeypatch, tmp_path, config, ran, score
):
    compare, calls = script("compare"), []

    def run(*arguments):
        calls.append(arguments)
        return {"base": {"auc": 0.6}, "student": {"auc": 0.8}}

    monkeypatch.setattr(compare, "run_alone", run)
    metrics, sources = {"base": {"auc": 0.7}}, [tmp_path / "seed_0"]
    found = compare.score_full_size(config, metrics, None, tmp_path / "none_0", sources)
    assert found == {"auc": score}
    wanted = (script("reference").full_size(TAUGHT), None, tmp_path / "none_0", sources)
    assert calls == [wanted] * ran


@pytest.mark.parametrize("name", ["table2_overall", "table4_ablation"])
@pytest.mark.parametrize(
    ("config", "key", "title"), [(PLAIN, "base", "base"), (TAUGHT, "student", "base, taught")]
)
def test_the_first_row_of_a_table_is_the_reference(script, tmp_path, name, config, key, title):
    table = script(name)
    if name == "table2_overall":
        arguments = table.Arguments(config=config)
        data = SimpleNamespace(schema=SimpleNamespace(names=()))
        first, other = (table.variant_of(arguments, m, data, tmp_path) for m in ("none", "ihas"))
        assert first.name == "none"
    else:
        first, *_, other = table.rows_of(table.Arguments(config=config))
        assert first.name == "base"
    assert (first.run, first.key, first.title) == ("none", key, title)
    assert first.config == script("reference").full_size(config)
    assert (other.run, other.key, other.title) == ("ihas", "ihas", "iHAS")
    assert other.config == config


def row(*aucs):
    sizes = {"parameters": 9, "router_parameters": 0, "bytes": 36, "training_seconds": 1.0}
    return [{"auc": auc, "logloss": 0.4, **sizes} for auc in aucs]


@pytest.mark.parametrize(
    ("config", "heading"), [(PLAIN, "| AUC vs base | p |"), (TAUGHT, "| AUC vs base, taught | p |")]
)
def test_tables_name_their_reference_and_their_teachers(script, tmp_path, config, heading):
    comparison, rendering, variant = (
        script("comparison"),
        script("rendering"),
        script("compare").Variant,
    )
    arguments = comparison.LogComparison(config=config, seeds=2, results=tmp_path / "table")
    record = comparison.Record(arguments)
    record.logs["x"] = {"none": row(0.7, 0.72), "ihas": row(0.6, 0.65)}
    rows = [variant(name, name, name, config, name) for name in ("none", "ihas")]
    times = {"x": {"none": 1.0, "ihas": 1.0}}
    text = "\n".join(rendering.lines_of(record, "Table", rows, times, "A note."))
    assert heading in text and text.count("A note.") == 1
    assert ("Every model learns from the teachers dnn:2 base. So" in text) == (config is TAUGHT)


@pytest.mark.parametrize("name", ["table2_overall", "table3_transfer", "table4_ablation"])
def test_a_searched_teacher_is_refused_before_any_training(command, name):
    done = dataclasses.replace(command, script=f"paper/{name}.py").inside(
        *("--retrain.teachers", "search", "--seeds", 2, "--results", command.folder / "none"),
        output=command.folder / "refused",
    )
    assert done.returncode == 2 and "leave search out of --retrain.teachers" in done.stderr
    assert not (command.folder / "refused").exists()


def test_the_comparison_of_optimisers_has_no_teachers(command):
    done = dataclasses.replace(command, script="table_updates.py").inside(
        *("--retrain.teachers", "lr", "--seeds", 2), output=command.folder / "refused"
    )
    assert done.returncode == 2 and "leave --retrain.teachers out" in done.stderr


@pytest.mark.parametrize(
    ("teachers", "before"), [((), []), (("lr",), ["teach"]), (("lr", "base"), ["base", "teach"])]
)
def test_a_search_for_other_models_has_its_teachers_first(
    script, monkeypatch, tmp_path, teachers, before
):
    compare, stages = script("compare"), []

    def fit(config, data, workdir, stage="all", searched_by=None):
        stages.append((workdir.name, config.model.name, stage, searched_by))
        return SimpleNamespace(metrics={"fm": 1})

    monkeypatch.setattr(compare, "fit", fit)
    config = replaced(Config(), "retrain.teachers", teachers)
    searched = tmp_path / "seed_0"
    found = compare.run_by_search(config, "fm", None, tmp_path / "fm_0", searched)
    wanted = [("seed_0", "dnn", stage, None) for stage in (*before, "search", "choose")]
    assert stages == [*wanted, ("fm_0", "fm", "all", searched)] and found == {"fm": 1}
