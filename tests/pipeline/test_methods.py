"""Every selection method from its search to its bundle."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from ihas_jax.config import (
    Config,
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.config.methods import AutoDimConfig, OptEmbedConfig, OptFSConfig, PepConfig
from ihas_jax.config.shares import SpectralConfig
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.errors import InputError
from ihas_jax.files import write_json
from ihas_jax.flags import replaced
from ihas_jax.models.cut import cut_network
from ihas_jax.nn.compact import slice_table
from ihas_jax.pipeline.fit import fit
from ihas_jax.pipeline.reuse import reuse_stages
from ihas_jax.selectors.autoemb import popularity_of
from ihas_jax.selectors.plan import ENTRIES, Expert, Plan
from ihas_jax.selectors.selection import Selection
from ihas_jax.selectors.usage import count_values
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages import choose, retrain
from ihas_jax.stages.base import fresh_state
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import pretrain_state, search, search_task, split_validation

PLAIN = Config(
    method="none",
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=2),
    search=SearchConfig(pretrain_epochs=1, gate_every=2),
    options=(
        AutoDimConfig(dims=(1, 2, 4)),
        PepConfig(epochs=2, start=-8.0),
        OptFSConfig(epochs=2, rewind=1),
        OptEmbedConfig(generations=2, mutants=2, children=2, parents=2),
    ),
)
UNTRAINED = ("uniform", "mixed", "random")
SELECTED = ("autofield", "autodim", "pep", "optembed", "optfs", "sseds", "dimreg", "magnitude")
SELECTED += ("spectral", *UNTRAINED)
SEARCHED = ("adafs_soft", "adafs_hard", "autoemb")


@pytest.fixture(scope="module")
def runs(log, tmp_path_factory):
    """A finished run of each method, made when it is first asked for."""
    folder, done = tmp_path_factory.mktemp("methods"), {}

    def run(method):
        if method not in done:
            config = dataclasses.replace(PLAIN, method=method)
            if method in UNTRAINED:
                config = replaced(config, "search.pretrain_epochs", 0)
            if method != "none":
                reuse_stages(config, log, folder / method, run("none").workdir)
            done[method] = fit(config, log, folder / method)
        return done[method]

    return run


@pytest.mark.parametrize("method", ["none", *SEARCHED, *SELECTED])
def test_the_bundle_predicts_what_the_metrics_say(runs, load_served, method):
    result = runs(method)
    load_served(result, "base" if method == "none" else method)
    report = (result.workdir / "report.md").read_text()
    assert result.metrics["method"] == method and "## Training" in report
    answers = [line.partition("?")[0] for line in report.splitlines()[:3]]
    assert answers == ["- **Better", "- **Smaller", "- **Faster"]
    assert "## What to try next" in report


@pytest.mark.parametrize("method", [*SEARCHED, *SELECTED])
def test_the_gain_and_the_time_are_those_of_base_and_outcome(runs, method):
    metrics = runs(method).metrics
    difference = metrics[method]["auc"] - metrics["base"]["auc"]
    assert metrics["gain"]["auc"] == pytest.approx(difference)
    assert metrics["gain"]["low"] <= difference <= metrics["gain"]["high"]
    assert list(metrics["microseconds"]) == ["base", method, "ratio", "turns"]
    assert metrics["microseconds"]["base"]["low"] > 0


@pytest.mark.parametrize("method", SELECTED)
def test_parameters_and_bytes_are_those_of_what_is_left(runs, log, method):
    metrics = runs(method).metrics
    (served,) = load_bundle(runs(method).workdir).models
    model, params, kept = served.model, served.variables.params, served.model.embedding.kept
    table = params["tables"]["embedding"]
    left = sum(int(np.count_nonzero(part)) for part in table.values())
    rest = sum(leaf.size for leaf in jax.tree.leaves(params)) - model.embedding.parameters
    assert metrics[method]["parameters"] == left + rest
    whole = 4 * metrics[method]["parameters"]
    masked = method in ("pep", "optembed", "optfs", "magnitude", "spectral")
    assert (metrics[method]["bytes"] > whole) == masked
    assert metrics[method]["parameters"] < metrics["base"]["parameters"]
    assert metrics["selection"]["kept"] == pytest.approx(
        left / (PLAIN.model.dim * sum(log.schema.sizes))
    )
    assert metrics[method]["table_share"] == metrics["selection"]["kept"]
    widths = [PLAIN.model.dim] * 9 if kept is None else [len(field) for field in kept]
    held = model.embedding.stored_values
    assert (held is not None) == (method in ("optembed", "optfs"))
    rows = log.schema.sizes if held is None else held
    shared = 0 if held is None else sum(set(widths))  # a row of each array, for the other values
    assert model.embedding.parameters == np.dot(rows, widths) + shared


@pytest.mark.parametrize("method", SEARCHED)
def test_a_searched_model_is_final(runs, method):
    metrics = runs(method).metrics
    assert "search" not in metrics and "selection" not in metrics
    stages = ["base", "search", "choose", "retrain", "evaluate"]
    assert list(metrics["seconds"]) == [*stages, "compiling"]
    assert metrics[method]["parameters"] > metrics["base"]["parameters"]


@pytest.mark.parametrize(("dim", "pretraining"), [(8, 0), (4, 1)])
def test_autoemb_knows_how_frequent_values_are_and_counts_that_as_parameters(
    log, tmp_path, dim, pretraining
):
    config = dataclasses.replace(PLAIN, method="autoemb")
    for flag, value in (("model.dim", dim), ("search.pretrain_epochs", pretraining)):
        config = replaced(config, flag, value)
    metrics = fit(config, log, tmp_path).metrics
    (served,) = load_bundle(tmp_path).models
    counts = count_values(log.schema.sizes, log.train.ids)
    known = served.variables.stats["selector"]["popularity"]
    np.testing.assert_array_equal(known[:, 0], popularity_of(counts, log.schema.sizes))
    weights = sum(leaf.size for leaf in jax.tree.leaves(served.variables.params))
    assert metrics["autoemb"]["parameters"] == weights + sum(log.schema.sizes)
    assert metrics["autoemb"]["bytes"] == 4 * metrics["autoemb"]["parameters"]


@pytest.mark.parametrize("method", UNTRAINED)
def test_nothing_is_trained_before_a_choice_that_needs_no_training(runs, method):
    result = runs(method)
    assert "search" not in result.metrics and "search" not in result.metrics["models"]
    assert 0.2 <= result.metrics["selection"]["kept"] <= 0.25  # of a small table
    lines = map(json.loads, (result.workdir / "log.jsonl").read_text().splitlines())
    stages = {line["stage"] for line in lines if line["event"] == "epoch"}
    assert stages == {"retrain"}  # the base model is that of another run
    report = (result.workdir / "report.md").read_text()
    assert report.count("| search |") == 1  # its time, of nothing
    curves = json.loads((result.workdir / "curves.json").read_text())
    assert set(curves["histories"]) == {"base", "retrain"}


def test_magnitude_reports_what_it_trained_before_it_chose(runs):
    metrics = runs("magnitude").metrics
    assert metrics["search"]["parameters"] == metrics["base"]["parameters"]
    assert metrics["selection"]["kept"] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("method", ["none", "adafs_soft", "spectral", "uniform"])
def test_entries_of_the_metrics_are_known(runs, method):
    """Those of clusters and of teachers are in test_rotation.py and test_teaching.py."""
    assert set(runs(method).metrics) <= {*ENTRIES, method, "worth"}


def test_uniform_has_the_parameters_of_the_formula(log, tmp_path):
    """Tables of two numbers per value, and an MLP of 2 N inputs and layers of 8 and 4."""
    config = dataclasses.replace(PLAIN, method="uniform", budget=0.5, search=SearchConfig(0))
    result = fit(config, log, tmp_path / "run")
    fields, values = len(log.schema.sizes), sum(log.schema.sizes)
    mlp = (2 * fields + 1) * 8 + (8 + 1) * 4 + (4 + 1)
    assert result.metrics["uniform"]["parameters"] == 2 * values + mlp
    assert result.metrics["uniform"]["bytes"] == 4 * (2 * values + mlp)
    assert result.metrics["selection"]["kept"] == 0.5


def test_a_budget_of_a_run_without_a_method_is_refused(log, tmp_path):
    config = dataclasses.replace(PLAIN, budget=0.5)
    with pytest.raises(InputError, match=r"--method none keeps the whole table.*--model.dim"):
        fit(config, log, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_budget_that_a_method_cannot_keep_to_is_refused_before_the_run(log, tmp_path):
    for method, budget in (("adafs_hard", 0.5), ("random", 0.001)):
        config = dataclasses.replace(PLAIN, method=method, budget=budget)
        with pytest.raises(InputError, match="--budget"):
            fit(config, log, tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["pep", "optfs", "adafs_soft", "autoemb"])
def test_a_finished_search_is_read_back(runs, log, method, tmp_path):
    """All but the checkpoints of the search is removed; the rest comes out the same."""
    result = runs(method)
    shutil.copytree(result.workdir, tmp_path / "run")
    for name in ("retrain", "choose", "bundle", "metrics.json"):
        path = tmp_path / "run" / name
        (shutil.rmtree if path.is_dir() else lambda p: p.unlink(missing_ok=True))(path)
    seconds = json.loads((tmp_path / "run" / "stages.json").read_text())
    left = {name: seconds[name] for name in ("base", "search")}
    write_json(tmp_path / "run" / "stages.json", left)
    again = fit(dataclasses.replace(PLAIN, method=method), log, tmp_path / "run")
    for name in ("base", "search", method):
        if name in result.metrics:
            assert again.metrics[name] == result.metrics[name]


def test_a_reused_base_model_is_not_trained_again(runs):
    lines = (runs("pep").workdir / "log.jsonl").read_text().splitlines()
    stages = {json.loads(line).get("stage") for line in lines}
    assert "base" not in stages and "search" in stages
    assert runs("pep").metrics["base"] == runs("none").metrics["base"]


@pytest.mark.parametrize(
    ("method", "flag", "value", "stages"),
    [
        ("pep", "seed", 1, set()),
        ("pep", "pep.thresholds", "field", {"base"}),
        ("pep", "retrain.start", "tables", {"base", "search"}),
        ("pep", "budget", 0.25, {"base"}),  # at which the search stops
        ("pep", "budget", 0.5, {"base", "search"}),  # as PepConfig.kept
        ("optfs", "budget", 0.25, {"base", "search"}),
        ("spectral", "spectral.cut", "axes", {"base", "search"}),
        ("spectral", "spectral.clusters", 2, {"base", "search"}),
        ("spectral", "spectral.steps", (0.5,), {"base"}),
        ("spectral", "spectral.by", "weights", {"base", "search"}),
        ("spectral", "spectral.kept", 0.5, {"base", "search"}),
        ("magnitude", "magnitude.structured", True, {"base", "search"}),
        ("magnitude", "magnitude.kept", 0.5, {"base", "search"}),
        ("optfs", "optfs.weight", 0.5, {"base"}),
    ],
)
def test_stages_are_reused_that_nothing_touches(runs, log, tmp_path, method, flag, value, stages):
    config = replaced(dataclasses.replace(PLAIN, method=method), flag, value)
    reuse_stages(config, log, tmp_path / "run", runs(method).workdir)
    assert {name for name in ("base", "search") if (tmp_path / "run" / name).exists()} == stages


@pytest.mark.parametrize(
    ("flag", "value", "same"),
    [("spectral.cut", "axes", {"base"}), ("budget", 0.25, {"base", "search"})],
)
def test_a_search_in_steps_depends_on_how_it_is_cut(log, tmp_path, flag, value, same):
    config = dataclasses.replace(PLAIN, method="spectral", budget=0.3)
    config = config.having(SpectralConfig(steps=(0.5,)))
    fit(config, log, tmp_path / "run")
    reuse_stages(replaced(config, flag, value), log, tmp_path / "new", tmp_path / "run")
    assert {name for name in ("base", "search") if (tmp_path / "new" / name).exists()} == same


def test_nothing_is_reused_from_a_run_on_other_data(runs, tmp_path):
    other = synthetic(SyntheticConfig(rows=2000, own=2, noise=2, values=30, seed=1))
    reuse_stages(PLAIN, other, tmp_path / "run", runs("none").workdir)
    assert not (tmp_path / "run" / "base").exists()


@pytest.mark.parametrize("method", ["optfs", "pep", "optembed", "sseds"])
def test_retraining_starts_from_what_the_recipe_says(runs, log, method, monkeypatch):
    run = Run(dataclasses.replace(PLAIN, method=method), log, runs(method).workdir)
    full, (found,) = run.model, search([run])
    plan, _ = choose.choose(run, found)
    (expert,) = plan.experts
    selection, model = expert.selection, run.expert_model(expert)
    fresh = fresh_state(run, "retrain", model)
    monkeypatch.setattr(retrain, "train_runs", lambda runs, tasks, states: states)
    _, (begun,) = retrain.retrain(run, plan, found)
    source = {"optfs": found.rewound, "sseds": None}.get(method, pretrain_state(run))
    tables, network = fresh.params["tables"], fresh.params["network"]
    if source is not None:
        params = source.variables.params
        table = params["tables"]["embedding"]
        table = slice_table(full.embedding, table, model.embedding, selection.values)
        tables = {"embedding": table}
        if method != "pep":
            network = cut_network(full, model, params["network"], network)
    jax.tree.map(
        np.testing.assert_array_equal, begun.params, {"tables": tables, "network": network}
    )
    moments = [leaf for leaf in jax.tree.leaves(begun.optimizers["tables"]) if leaf.ndim]
    assert moments and not any(np.any(leaf) for leaf in moments)
    added = selection.constants(model.embedding)
    assert bool(added) == (method != "sseds")
    jax.tree.map(np.testing.assert_array_equal, begun.constants, added)


def test_every_expert_is_trained_and_stopped_by_its_own_rows(log, tmp_path, monkeypatch):
    run = Run(dataclasses.replace(PLAIN, method="ihas"), log, tmp_path)
    kept = ((0, 1),) * len(log.schema.fields)
    rows, valid_rows = np.array([3, 5, 8], np.int32), np.array([1, 4], np.int32)
    plan = Plan(
        (Expert(Selection(kept), "cluster_0", rows, valid_rows), Expert(Selection(kept), "all")),
        routes=(0, 1),
        reasons=(None, "it is small"),
    )
    seen, begun = [], []

    def model_task(run, name, model, *, rows, valid, start_counts):
        seen.append((name, rows, valid))

    def train_runs(runs, tasks, states):
        begun.extend(states)
        return [None]

    monkeypatch.setattr(retrain, "model_task", model_task)
    monkeypatch.setattr(retrain, "train_runs", train_runs)
    retrain.retrain(run, plan, None)
    (first, own_rows, own_valid), (second, all_rows, all_valid) = seen
    assert (first, second) == ("retrain/cluster_0", "retrain/all")
    np.testing.assert_array_equal(own_rows, rows)
    np.testing.assert_array_equal(own_valid.ids, log.valid.ids[valid_rows])
    np.testing.assert_array_equal(own_valid.labels, log.valid.labels[valid_rows])
    assert all_rows is None and len(all_valid.labels) == len(log.valid.labels)
    for name, state, expert in zip((first, second), begun, plan.experts, strict=True):
        expected = fresh_state(run, name, run.expert_model(expert)).params
        jax.tree.map(np.testing.assert_array_equal, state.params, expected)


def test_stages_that_a_method_lacks_are_named(log, tmp_path):
    with pytest.raises(InputError, match="none has no --stage retrain; it has base, evaluate"):
        fit(PLAIN, log, tmp_path / "run", "retrain")
    with pytest.raises(InputError, match="no --stage teach without --retrain"):
        fit(PLAIN, log, tmp_path / "run", "teach")
    assert not (tmp_path / "run").exists()  # a folder of this config would refuse the remedy


def test_pep_may_stop_by_the_test_split(log, runs, tmp_path):
    config = dataclasses.replace(PLAIN, method="pep")
    config = config.having(dataclasses.replace(config.of(PepConfig), stopping="test"))
    found = fit(config, log, tmp_path / "other").metrics
    assert found["pep"]["auc"] != runs("pep").metrics["pep"]["auc"]


@pytest.mark.parametrize(
    ("method", "model"),
    [
        *(("autodim", "ffm"), ("autoemb", "ffm"), ("optembed", "ffm")),
        *(("autodim", "lr"), ("autoemb", "lr"), ("optembed", "lr"), ("pep", "lr")),
    ],
)
def test_models_that_cannot_carry_a_method_are_refused(log, tmp_path, method, model):
    config = dataclasses.replace(PLAIN, method=method, model=ModelConfig(name=model, dim=4))
    config = replaced(config, "search.pretrain_epochs", 0)
    with pytest.raises(InputError, match=model):
        fit(config, log, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_that_decide_when_to_stop_can_be_kept_from_the_gates(log, tmp_path):
    config = replaced(PLAIN, "search.stopping_share", 0.25)
    run = Run(dataclasses.replace(config, method="dimreg"), log, tmp_path)
    gate_rows, stopping = split_validation(run)
    number = len(log.valid.labels)
    assert len(stopping.labels) == round(number / 4)
    rest = np.setdiff1d(np.arange(number), gate_rows)
    np.testing.assert_array_equal(stopping.ids, log.valid.ids[rest])
    np.testing.assert_array_equal(stopping.labels, log.valid.labels[rest])
    rounds = search_task(run).rounds
    drawn = np.concatenate([rounds[i].gate_rows.ravel() for i in range(len(rounds))])
    assert set(drawn) <= {0, *gate_rows} and len(set(drawn)) > 1
