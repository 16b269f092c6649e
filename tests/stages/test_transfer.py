"""Compact models of one kind by the gates and clusters of another."""

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
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING, init_model
from ihas_jax.models.parts import LINEAR
from ihas_jax.nn.compact import carry_kept, slice_table
from ihas_jax.serving.bundle import load_bundle
from ihas_jax.stages.pipeline import fit, transfer
from ihas_jax.stages.pretrain import fresh_state
from ihas_jax.stages.retrain import _warm_start
from ihas_jax.stages.run import Run

pytestmark = pytest.mark.usefixtures("compiled", "quick")

DNN = Config(
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=2),
    search=SearchConfig(pretrain_epochs=2, gate_every=2),
    cluster=ClusterConfig(min_rows=100),
)


def with_model(config=DNN, **choices):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **choices))


@pytest.fixture(scope="module")
def log():
    return synthetic(SyntheticConfig(rows=2000, own=2, noise=2, values=30))


@pytest.fixture(scope="module")
def searched(log, tmp_path_factory):
    """A run of a DNN that has come to its clusters, but no further."""
    folder = tmp_path_factory.mktemp("transfer") / "run"
    for stage in ("search", "cluster"):
        fit(DNN, log, folder, stage)
    return folder


@pytest.fixture(scope="module")
def deepfm(searched, log):
    return transfer(with_model(name="deepfm"), log, searched)


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "transfer" not in path.parts
    }


def test_a_transfer_leaves_a_run_of_its_own_and_the_searched_one_alone(searched, log):
    before = files(searched)
    result = transfer(with_model(name="fm"), log, searched)
    assert files(searched) == before
    assert result.workdir == searched / "transfer" / "fm"
    metrics = json.loads((result.workdir / "metrics.json").read_text())
    assert metrics["models"] == {"base": "fm", "search": "dnn", "ihas": "fm"}
    assert "| iHAS, fm |" in (result.workdir / "report.md").read_text()
    assert "| search (iHAS-1), dnn |" in (result.workdir / "report.md").read_text()
    assert tuple(metrics["seconds"]) == ("search", "cluster", "base", "retrain", "evaluate")


def test_compact_models_keep_what_the_gates_of_the_searched_model_open(searched, log, deepfm):
    native = fit(DNN, log, searched)
    ours, theirs = load_bundle(deepfm.workdir), load_bundle(native.workdir)
    assert ours.kept == theirs.kept
    assert ours.routes == theirs.routes
    np.testing.assert_array_equal(ours.assign(log.test.ids), theirs.assign(log.test.ids))
    assert deepfm.metrics["search"] == native.metrics["search"]
    assert deepfm.metrics["base"] != native.metrics["base"]
    for cluster, kept, (params, _) in zip(
        deepfm.metrics["clusters"], ours.kept, ours.weights, strict=True
    ):
        assert [len(field) for field in kept] == list(cluster["widths"].values())
        sizes = log.schema.sizes
        numbers = sum(size * (len(field) + 1) for size, field in zip(sizes, kept, strict=True))
        assert sum(leaf.size for leaf in jax.tree.leaves(params["tables"])) == numbers


def test_the_bundle_of_a_transfer_predicts_what_its_metrics_say(log, deepfm):
    probs = load_bundle(deepfm.workdir).predict_ids(log.test.ids)
    labels = log.test.labels
    logloss = -np.mean(np.where(labels == 1, np.log(probs), np.log1p(-probs)))
    assert logloss == pytest.approx(deepfm.metrics["ihas"]["logloss"], rel=1e-5)


def test_the_same_command_again_changes_nothing(searched, log, deepfm):
    before = {path: path.stat().st_mtime_ns for path in deepfm.workdir.rglob("*")}
    assert transfer(with_model(name="deepfm"), log, searched).metrics == deepfm.metrics
    assert {path: path.stat().st_mtime_ns for path in deepfm.workdir.rglob("*")} == before


def test_stage_by_stage_retraining_comes_first(searched, log, deepfm, tmp_path):
    shutil.copytree(searched, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "transfer")
    config = with_model(name="deepfm")
    result = transfer(config, log, tmp_path / "run", "retrain")
    assert sorted(path.name for path in (result.workdir / "retrain").iterdir()) == [
        "cluster_0", "cluster_1"
    ]  # fmt: skip
    with pytest.raises(InputError, match="--stage evaluate needs the stage 'base'"):
        transfer(config, log, tmp_path / "run", "evaluate")
    transfer(config, log, tmp_path / "run", "base")
    metrics = transfer(config, log, tmp_path / "run", "evaluate").metrics
    for model in ("base", "search", "ihas"):
        assert metrics[model] == deepfm.metrics[model]


@pytest.mark.parametrize("name", ["hofm", "lr"])
def test_models_with_other_tables_keep_the_same_coordinates(searched, log, deepfm, name):
    config = with_model(name=name)
    bundle = load_bundle(transfer(config, log, searched).workdir)
    source, target = (build_model(c.model, log.schema.sizes).embedding for c in (DNN, config))
    expected = tuple(carry_kept(kept, source, target) for kept in load_bundle(deepfm.workdir).kept)
    assert bundle.kept == expected
    assert [model.embedding.kept for model in bundle.models] == list(expected)


def test_a_warm_start_takes_the_tables_that_fit(searched, log, tmp_path):
    run = Run(with_model(name="deepfm"), log, tmp_path)
    model = build_model(DNN.model, log.schema.sizes)
    params, _ = init_model(jax.random.key(7), model)
    compact = run.model(kept=((0, 2), (), (1,), *((0, 1, 2, 3),) * 6))
    fresh = fresh_state(run, "retrain", compact)
    warm = _warm_start(run, model, params)(compact, fresh).params["tables"]
    expected = slice_table(model.embedding, params["tables"][EMBEDDING], compact.embedding)
    jax.tree.map(np.testing.assert_array_equal, warm[EMBEDDING], expected)
    jax.tree.map(np.testing.assert_array_equal, warm[LINEAR], fresh.params["tables"][LINEAR])


def test_a_run_without_clusters_can_not_serve_another_model(log, tmp_path):
    fit(DNN, log, tmp_path / "run", "base")
    with pytest.raises(InputError, match=r"has not come to its clusters yet.*--model dnn"):
        transfer(with_model(name="fm"), log, tmp_path / "run")


@pytest.mark.parametrize("name", ["fm", "lr", "hofm", "ffm"])
@pytest.mark.parametrize("dim", [1, 8, 12])
def test_a_model_of_another_dimension_is_refused(searched, log, name, dim):
    with pytest.raises(InputError, match=r"dnn was searched with --model\.dim 4.*Choose 4"):
        transfer(with_model(name=name, dim=dim), log, searched)


def test_any_other_difference_is_refused(searched, log):
    config = dataclasses.replace(with_model(name="fm"), seed=1)
    with pytest.raises(InputError, match=r"holds a run of another config: model\.name: dnn -> fm"):
        transfer(config, log, searched)


@pytest.mark.parametrize("stage", ["search", "cluster"])
def test_search_and_clusters_are_those_of_the_run(searched, log, stage):
    with pytest.raises(InputError, match=f"there is no --stage {stage}.*choose another --output"):
        transfer(with_model(name="fm"), log, searched, stage)


def test_a_plain_fit_does_not_transfer(searched, log):
    with pytest.raises(InputError, match=r"holds a run of another config: model\.name: dnn -> fm"):
        fit(with_model(name="fm"), log, searched)


def test_the_folder_of_a_transfer_is_no_run_of_its_own(searched, log, deepfm):
    words = f"deepfm by the gates of another run.* {searched}, as --output"
    for start in (fit, transfer):
        with pytest.raises(InputError, match=words):
            start(with_model(name="deepfm"), log, deepfm.workdir)
    assert not (deepfm.workdir / "search").exists()


def test_a_second_transfer_with_other_choices_is_told_what_to_do(searched, log, deepfm):
    with pytest.raises(InputError, match=r"model\.hidden: .* or remove that folder"):
        transfer(with_model(name="deepfm", hidden=(3,)), log, searched)


@pytest.mark.parametrize("name", ["deepfm", "ffm"])
def test_a_model_is_searched_clustered_and_retrained_by_its_own_gates(log, tmp_path, name):
    config = with_model(name=name)
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, max_epochs=1),
        search=dataclasses.replace(config.search, pretrain_epochs=1),
    )
    result = fit(config, log, tmp_path / "run")
    assert result.metrics["models"] == dict.fromkeys(("base", "search", "ihas"), name)
    bundle = load_bundle(result.workdir)
    spec = build_model(config.model, log.schema.sizes).embedding
    assert bundle.masks(log.test.ids).shape == (200, spec.coordinates)
    probs, labels = bundle.predict_ids(log.test.ids), log.test.labels
    logloss = -np.mean(np.where(labels == 1, np.log(probs), np.log1p(-probs)))
    assert logloss == pytest.approx(result.metrics["ihas"]["logloss"], rel=1e-5)
    for cluster, model in zip(result.metrics["clusters"], bundle.models, strict=True):
        assert list(cluster["widths"].values()) == list(model.embedding.widths)
        assert cluster["kept"] == pytest.approx(sum(model.embedding.widths) / spec.coordinates)


def test_a_searched_model_with_several_vectors_serves_no_other(log, tmp_path):
    for stage in ("search", "cluster"):
        fit(with_model(name="hofm"), log, tmp_path / "run", stage)
    with pytest.raises(InputError, match=r"has 2 vectors for each field.*such as dnn"):
        transfer(with_model(name="fm"), log, tmp_path / "run")
