"""Runs on principal axes: the search that begins there, what is cut there, and what is served."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from ihas_jax.config import (
    ClusterConfig,
    Config,
    GateConfig,
    ModelConfig,
    OptimizerConfig,
    RetrainConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.config.methods import OptFSConfig, PepConfig, SsedsConfig
from ihas_jax.config.shares import SpectralConfig
from ihas_jax.errors import InputError
from ihas_jax.flags import replaced
from ihas_jax.models.predict import predictor
from ihas_jax.nn.axes import Axes
from ihas_jax.pipeline.fit import fit
from ihas_jax.selectors.plan import ENTRIES
from ihas_jax.selectors.turning import turn
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages import rotate
from ihas_jax.stages.choose import choose
from ihas_jax.stages.rotate import check_rotation, turned_state
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import pretrain_state, search

PLAIN = Config(
    method="ihas",
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=2),
    search=SearchConfig(pretrain_epochs=2, gate_every=2, rotate=True),
    retrain=RetrainConfig(start="searched"),
    options=(ClusterConfig(min_rows=100), GateConfig(inputs="unit")),
)


@pytest.fixture(scope="module")
def rotated(log, tmp_path_factory):
    config = dataclasses.replace(PLAIN, budget=0.5)
    return config, fit(config, log, tmp_path_factory.mktemp("rotation") / "run")


def test_what_is_scored_is_what_is_served(rotated, log, load_served):
    config, result = rotated
    bundle = load_served(result, "ihas")
    assert set(bundle.assign(log.test.ids)) == {0, 1}
    table = config.model.dim * sum(log.schema.sizes)
    kept = sum(
        np.count_nonzero(part)
        for served in bundle.models
        for part in served.variables.params["tables"]["embedding"].values()
    )
    assert 0.45 * table < kept <= 0.5 * table  # a few numbers of values without rows are zeros
    shares = [cluster["kept"] for cluster in result.metrics["clusters"]]
    assert max(shares) < 0.6  # numbers, not the columns that have some
    assert result.metrics["ihas"]["table_share"] == pytest.approx(0.5, abs=0.01)
    assert set(result.metrics) <= {*ENTRIES, "ihas", "kmeans"}


def test_a_router_keeps_the_statistics_of_its_gates(rotated, log):
    config, result = rotated
    run = Run(config, log, result.workdir)
    (found,) = search([run])
    router = load_bundle(result.workdir).router
    stats = found.searched.variables.stats["selector"]
    assert jax.tree.leaves(stats)
    jax.tree.map(np.testing.assert_array_equal, router.variables.stats["selector"], stats)
    assert not np.allclose(stats["inputs"]["var"], 1.0)


def test_the_log_says_how_much_the_axes_hold(rotated):
    lines = (rotated[1].workdir / "log.jsonl").read_text().splitlines()
    (event,) = [json.loads(line) for line in lines if '"event": "axes"' in line]
    share = np.array(event["share"])
    assert share.shape == (4,) and (np.diff(share) >= 0).all()
    assert share[-1] == pytest.approx(1.0)


def test_axes_are_found_once(rotated, log, monkeypatch):
    config, result = rotated
    monkeypatch.setattr(rotate, "find_axes", None)
    run = Run(config, log, result.workdir)
    found = rotate.turned_state(run, pretrain_state(run))
    path = result.workdir / "search" / "axes.json"
    axes = Axes(**{name: np.array(part) for name, part in json.loads(path.read_text()).items()})
    expected = turn(run.model, pretrain_state(run).variables, axes)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    whole = path.read_text()
    path.write_text(whole.replace("0", "1", 1))
    with pytest.raises(InputError, match=r"axes.json can't be read"):
        rotate.turned_state(run, pretrain_state(run))
    path.write_text(whole)


def test_the_turned_state_computes_what_it_did_before(log, tmp_path):
    run = Run(PLAIN, log, tmp_path)
    state = pretrain_state(run)
    # far from its tiny first embeddings, so that axes differ in what they hold
    params = jax.tree.map(lambda leaf: 30 * leaf, state.params)
    optimizers = jax.tree.map(lambda leaf: leaf + 1, state.optimizers)
    state = dataclasses.replace(state, params=params, optimizers=optimizers)
    turned = turned_state(run, state)
    (old,), (new,) = (s.params["tables"]["embedding"].values() for s in (state, turned))
    assert not np.allclose(old, new)
    predict, ids = predictor(run.model), log.test.ids
    before, after = (predict(s.variables, ids, title="").probs for s in (state, turned))
    assert np.ptp(before) > 0.1
    np.testing.assert_allclose(after, before, atol=1e-5)
    assert not any(leaf.any() for leaf in jax.tree.leaves(turned.optimizers))
    assert int(turned.step) == int(state.step)


def spectral(**options):
    config = dataclasses.replace(PLAIN, method="spectral", search=SearchConfig(0))
    config = dataclasses.replace(config, retrain=RetrainConfig(), options=())
    return config.having(SpectralConfig(**options))


@pytest.mark.parametrize("cut", ["numbers", "axes"])
def test_cutting_nothing_starts_from_the_searched_model(log, tmp_path, cut):
    config = replaced(spectral(cut=cut), "budget", 1.0)
    result = fit(config, log, tmp_path / "run")
    curves = json.loads((result.workdir / "curves.json").read_text())["histories"]
    start = curves["retrain"][0]
    best = max(epoch["auc"] for epoch in curves["search"])
    assert start["epoch"] == -1
    assert start["auc"] == pytest.approx(best, abs=1e-4)
    assert "| search |" in (result.workdir / "report.md").read_text()


def test_a_model_is_cut_in_steps(log, load_served, tmp_path):
    config = spectral(steps=(0.5, 0.3), kept=0.2)
    result = fit(config, log, tmp_path / "run")
    run = Run(config, log, result.workdir)
    (found,) = search([run])
    assert [step.share for step in found.steps] == [0.5, 0.3]
    for share, selection, trained in found.steps:
        (table,) = trained.variables.params["tables"]["embedding"].values()
        left = selection.parameters(run.model.embedding)
        assert np.count_nonzero(table) == left <= share * table.size < left + 1
        assert trained.variables.constants == {}
    searched, base = (result.metrics[name]["parameters"] for name in ("search", "base"))
    assert searched == base - table.size + left
    curves = json.loads((result.workdir / "curves.json").read_text())["histories"]
    cuts = ["search, cut to 50 %", "search, cut to 30 %"]
    assert list(curves) == ["base", "search", *cuts, "retrain"]
    for name, step in zip(cuts, found.steps, strict=True):
        assert curves[name] == step.trained.history and curves[name][0]["epoch"] == -1
    load_served(result, "spectral")
    # stopped after the first step, the second is trained as before
    shutil.rmtree(result.workdir / "search" / "cut_1")
    (again,) = search([run])
    jax.tree.map(np.testing.assert_array_equal, again.variables, found.variables)


def test_clusters_without_gates_are_served_and_reported(log, load_served, tmp_path):
    config = spectral(clusters=2, kept=0.5).having(ClusterConfig(min_rows=100))
    result = fit(config, log, tmp_path / "run")
    assert result.missing == ()
    bundle = load_served(result, "spectral")
    assert len(bundle.models) == 2 and set(bundle.assign(log.test.ids)) == {0, 1}
    report = (result.workdir / "report.md").read_text()
    assert "## Clusters" in report and "## Gates" not in report
    assert not (result.workdir / "figures" / "probabilities.png").exists()


def test_a_cut_that_training_can_not_mend_is_kept(log, tmp_path):
    config = replaced(spectral(kept=0.5), "optimizer.learning-rate", 1e-9)
    result = fit(config, log, tmp_path / "run")
    curves = json.loads((result.workdir / "curves.json").read_text())["histories"]
    assert [epoch["epoch"] for epoch in curves["retrain"]] == [-1, 0, 1]
    aucs = [epoch["auc"] for epoch in curves["retrain"]]
    assert aucs[0] == max(aucs) and "| the start |" in (result.workdir / "report.md").read_text()
    assert 0.5 < result.metrics["worth"] <= 1.0


def test_a_plan_with_axes_is_read_back_bit_for_bit(log, tmp_path):
    config = spectral(kept=0.5)
    fit(config, log, tmp_path / "run", "search")
    run = Run(config, log, tmp_path / "run")
    (found,) = search([run])
    (first,), (again,) = (choose(run, found)[0].experts for _ in range(2))
    assert first is not again
    for one, two in zip(first.axes, again.axes, strict=True):
        assert one.dtype == two.dtype == np.float32
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(first.selection.mask, again.selection.mask)
    assert first.selection.kept == again.selection.kept


@pytest.mark.parametrize(
    ("method", "model", "start", "epochs", "words"),
    [
        ("ihas", "dnn", None, 0, "--search.pretrain-epochs is 0"),
        ("adafs_soft", "dnn", None, 1, "--method adafs_soft has layers between tables and network"),
        (
            "pep",
            "dnn",
            None,
            1,
            "retrains from initial embeddings that were made before the rotation",
        ),
        ("optembed", "dnn", None, 1, "retrains from initial"),
        ("ihas", "gdcn", None, 1, "embeddings of this click model can't be turned"),
    ],
)
def test_a_search_that_can_not_begin_on_axes_is_refused(
    log, tmp_path, method, model, start, epochs, words
):
    config = dataclasses.replace(
        PLAIN,
        method=method,
        model=dataclasses.replace(PLAIN.model, name=model),
        search=SearchConfig(epochs, rotate=True),
        retrain=RetrainConfig(start=start),
    )
    with pytest.raises(InputError, match=words):
        check_rotation(Run(config, log, tmp_path))


@pytest.mark.parametrize(("model", "free"), [("dnn", True), ("gdcn", False)])
def test_own_axes_of_clusters_need_a_model_that_can_be_turned(log, tmp_path, model, free):
    config = replaced(dataclasses.replace(PLAIN, budget=0.5), "search.rotate", False)
    config = replaced(config, "model.name", model)
    check_rotation(Run(config, log, tmp_path))
    run = Run(replaced(config, "cluster.axes", "own"), log, tmp_path)
    if free:
        check_rotation(run)
    else:
        with pytest.raises(InputError, match="embeddings of this click model can't be turned"):
            check_rotation(run)


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({}, "searched"),
        ({"retrain.start": "fresh"}, "fresh"),
        ({"search.rotate": False}, "fresh"),
        ({"search.rotate": False, "cluster.axes": "own"}, "fresh"),
        ({"search.rotate": False, "cluster.axes": "own", "budget": 0.5}, "searched"),
        ({"method": "optfs"}, "rewound"),
        ({"method": "sseds"}, "searched"),
        ({"method": "none"}, "fresh"),
    ],
)
def test_what_is_chosen_on_axes_starts_from_the_searched_model(log, tmp_path, changes, start):
    config = dataclasses.replace(PLAIN, retrain=RetrainConfig())
    for flag, value in changes.items():
        config = replaced(config, flag, value)
    run = Run(config, log, tmp_path)
    assert run.start == start


@pytest.mark.parametrize(
    ("method", "start"), [("pep", "searched"), ("sseds", None), ("dimreg", None), ("optfs", None)]
)
def test_other_searches_may_begin_on_axes(log, load_served, tmp_path, method, start):
    config = dataclasses.replace(PLAIN, method=method, retrain=RetrainConfig(start=start))
    check_rotation(Run(replaced(config, "search.rotate", False), log, tmp_path))
    kept = (SsedsConfig(kept=1.0), PepConfig(kept=0.9), OptFSConfig(epochs=2))
    result = fit(config.having(*kept), log, tmp_path / "run")
    load_served(result, method)
    assert (result.workdir / "search" / "axes.json").exists()
    curves = json.loads((result.workdir / "curves.json").read_text())["histories"]
    begun = curves["retrain"][0]
    if method == "sseds":  # all coordinates are kept, so the start is the searched model
        assert begun["epoch"] == -1
        best = max(epoch["auc"] for epoch in curves["search"])
        assert begun["auc"] == pytest.approx(best, abs=1e-5)
