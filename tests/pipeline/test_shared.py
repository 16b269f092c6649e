"""Clusters that go on from one model, on planted logs where specialising must and must not pay."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import (
    ClusterConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.config.shares import SpectralConfig
from ihas_jax.errors import InputError
from ihas_jax.models.predict import predictor
from ihas_jax.pipeline.fit import fit
from ihas_jax.selectors.plan import Expert
from ihas_jax.selectors.selection import Selection, all_coordinates
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages import shared
from ihas_jax.stages.base import fresh_state
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import split_validation
from ihas_jax.stages.shared import deciding_rows, train_network
from ihas_jax.training.metrics import score
from ihas_jax.training.task import Trained

VALUES = 12
CONFIG = Config(
    method="spectral",
    budget=0.75,
    # without a hidden layer the effects of fields add up
    model=ModelConfig(dim=4, hidden=()),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, max_epochs=6, checkpoint_seconds=0),
    options=(SpectralConfig(clusters=2), ClusterConfig(min_rows=100, batch_rows=2048)),
)
SHARED = dataclasses.replace(CONFIG, retrain=dataclasses.replace(CONFIG.retrain, start="shared"))


@pytest.fixture(scope="module")
def planted(planted_log):
    """`planted(opposite)`: groups of rows in which values have opposite effects, or the same."""

    def plant(opposite):
        def logit_of(values):
            group, effect = 2 * values[:, 0] - 1, np.where(values[:, 1] % 2, 2.0, -2.0)
            return 1.5 * group + effect * (group if opposite else 1)

        return planted_log({"g": 2, "x": VALUES}, logit_of)

    return plant


@pytest.fixture(scope="module")
def opposite(planted, tmp_path_factory):
    log = planted(opposite=True)
    return log, fit(SHARED, log, tmp_path_factory.mktemp("opposite") / "run")


@pytest.fixture(scope="module")
def alike(planted, tmp_path_factory):
    log = planted(opposite=False)
    return log, fit(SHARED, log, tmp_path_factory.mktemp("alike") / "run")


def test_specialising_wins_where_groups_differ(opposite):
    log, result = opposite
    assert result.metrics["spectral"]["auc"] > result.metrics["base"]["auc"] + 0.05
    assert [cluster["fallback"] for cluster in result.metrics["clusters"]] == [None, None]
    bundle = load_bundle(result.workdir)
    groups = bundle.assign(log.test.ids)
    assert (np.abs(np.corrcoef(groups, log.test.ids[:, 0])) > 0.999).all()


def test_clusters_have_one_table_in_memory_and_on_disk(opposite):
    log, result = opposite
    bundle = load_bundle(result.workdir)
    # no row needs the network of all rows
    first, second = (served.variables.params["tables"] for served in bundle.models)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True))
    network = 2 * 4 + 1  # the weights of all kept coordinates and the bias, at most
    assert all(served.parameters <= network for served in bundle.models[1:])
    table = bundle.models[0].parameters - bundle.models[1].parameters
    assert table <= 0.75 * (VALUES + 4) * 4
    facts = json.loads((result.workdir / "bundle" / "bundle.json").read_text())
    assert [about["table_of_first"] for about in facts["models"]] == [False, True]
    found = score(log.test.labels, bundle.predict_ids(log.test.ids))
    assert found.auc == pytest.approx(result.metrics["spectral"]["auc"], abs=1e-6)


def test_a_cluster_keeps_its_network_only_where_its_logloss_is_smaller(alike):
    _, result = alike
    bundle = load_bundle(result.workdir)
    reasons = [cluster["fallback"] for cluster in result.metrics["clusters"]]
    assert len(bundle.models) == len({*reasons, None} - {None}) + reasons.count(None)
    events = _events(result, "shared")
    assert [event["own"] < event["all"] for event in events] == [why is None for why in reasons]
    # rows alike leave nothing to specialise in
    assert len(bundle.models) == 1 and None not in reasons


def test_a_cluster_is_never_worse_than_the_model_of_all_rows_on_validation(opposite, alike):
    for log, result in (opposite, alike):
        bundle = load_bundle(result.workdir)
        ids, labels = log.valid
        ours = score(labels, bundle.predict_ids(ids))
        groups = bundle.assign(ids)
        all_rows = {event["expert"]: event["all"] for event in _events(result, "shared")}
        shares = [(groups == c).mean() for c in range(2)]
        theirs = sum(share * all_rows[f"cluster_{c}"] for c, share in enumerate(shares))
        assert ours.logloss <= theirs + 1e-6


def test_rows_that_moved_gates_decide_nothing(log, tmp_path):
    search = SearchConfig(stopping_share=0.25)
    run = Run(dataclasses.replace(SHARED, method="ihas", search=search, options=()), log, tmp_path)
    moved, stopping = split_validation(run)
    rows = deciding_rows(run)
    assert len(rows) == len(stopping.labels) and not np.isin(rows, moved).any()
    np.testing.assert_array_equal(log.valid.ids[rows], stopping.ids)
    some = np.array([*moved[:3], *rows[:2]])
    np.testing.assert_array_equal(deciding_rows(run, some), rows[:2])
    plain = Run(SHARED, log, tmp_path)
    np.testing.assert_array_equal(deciding_rows(plain, some), some)


def test_a_cluster_has_its_own_running_means(opposite, tmp_path):
    """Batch norm's statistics belong to the network, and the table to all."""
    log, _ = opposite
    model = ModelConfig(dim=4, hidden=(4,), batch_norm=True)
    run = Run(dataclasses.replace(SHARED, model=model), log, tmp_path)
    run.workdir.mkdir(exist_ok=True)
    whole = Expert(Selection(all_coordinates(run.model.embedding)))
    start = fresh_state(run, "start", run.expert_model(whole))
    first = Trained(start.variables, start, [], 0.0)
    rows, valid_rows = (
        np.flatnonzero(split.ids[:, 0] == 1).astype(np.int32) for split in (log.train, log.valid)
    )
    own = train_network(run, Expert(whole.selection, "cluster_0", rows, valid_rows), whole, first)
    assert own is not first
    for part, same in (("tables", True), ("network", False)):
        pairs = zip(
            *(jax.tree.leaves(one.variables.params[part]) for one in (own, first)), strict=True
        )
        assert all((a is b) is same for a, b in pairs)
    (event,) = _events(SimpleNamespace(workdir=tmp_path), "shared")
    ids, labels = (part[valid_rows] for part in log.valid)
    probs = predictor(run.expert_model(whole))(own.variables, ids, title="test").probs
    assert score(labels, probs).logloss == pytest.approx(event["own"], abs=1e-6)
    means = [jax.tree.leaves(one.variables.stats) for one in (own, first)]
    assert all((a != b).any() for a, b in zip(*means, strict=True))


def test_a_cluster_goes_on_with_smaller_steps(opposite, tmp_path, monkeypatch):
    """The model of all rows has ended at a pace of its own."""
    log, _ = opposite
    run = Run(SHARED, log, tmp_path)
    whole = Expert(Selection(all_coordinates(run.model.embedding)))
    start = dataclasses.replace(
        fresh_state(run, "start", run.expert_model(whole)), pace=jnp.float32(0.5)
    )
    begun = []

    def train_runs(runs, tasks, states):
        begun.append((float(states[0].pace), tasks[0].finish))
        return [Trained(states[0].variables, states[0], [], 0.0)]

    monkeypatch.setattr(shared, "train_runs", train_runs)
    first = Trained(start.variables, start, [], 0.0)
    rows = np.arange(10, dtype=np.int32)
    train_network(run, Expert(whole.selection, "cluster_0", rows, rows), whole, first)
    assert begun == [(pytest.approx(0.2), (0.04,))]


def _events(result, kind):
    lines = (result.workdir / "log.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == kind]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "uniform", "options": ()}, "needs clusters that go on from one model"),
        ({"options": ()}, "needs clusters that go on from one model"),
        ({"method": "ihas", "options": ()}, "Choose --search.stopping-share 0.5"),
    ],
)
def test_what_can_not_be_shared_is_refused(planted, changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        fit(dataclasses.replace(SHARED, **changes), planted(opposite=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_killed_specialisation_ends_with_the_same_numbers(opposite, tmp_path, stopped_often):
    """Stopped after every epoch of a cluster's network, and at every verdict."""
    log, result = opposite
    again, stops = stopped_often(lambda: fit(SHARED, log, tmp_path / "run"), "cluster")
    assert stops > 8
    for entry in ("base", "spectral", "clusters"):
        assert again.metrics[entry] == result.metrics[entry]
    bundles = [load_bundle(folder) for folder in (result.workdir, again.workdir)]
    for ours, theirs in zip(*(bundle.models for bundle in bundles), strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours.variables, theirs.variables)


def test_ihas_goes_on_from_one_model_of_its_gates(log, tmp_path):
    search = SearchConfig(pretrain_epochs=1, gate_every=2, stopping_share=0.5)
    config = dataclasses.replace(
        SHARED,
        method="ihas",
        budget=None,
        model=ModelConfig(dim=4, hidden=(8, 4)),
        search=search,
        options=(ClusterConfig(min_rows=100, batch_rows=2048),),
    )
    result = fit(config, log, tmp_path / "run")
    bundle = load_bundle(result.workdir)
    kept = {served.model.embedding.kept for served in bundle.models}
    assert len(kept) == 1
    share = bundle.models[0].model.embedding.parameters / (4 * sum(log.schema.sizes))
    assert result.metrics["ihas"]["table_share"] == pytest.approx(share)
    found = score(log.test.labels, bundle.predict_ids(log.test.ids))
    assert found.auc == pytest.approx(result.metrics["ihas"]["auc"], abs=1e-6)
