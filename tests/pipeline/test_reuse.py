"""Runs that begin with finished stages of another run: compact models by another's search."""

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
from ihas_jax.files import write_json
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING
from ihas_jax.models.forward import init_model
from ihas_jax.models.parts import LINEAR
from ihas_jax.nn.compact import carry_kept, slice_table
from ihas_jax.pipeline.fit import fit
from ihas_jax.pipeline.workdir import open_run
from ihas_jax.selectors.plan import Expert
from ihas_jax.selectors.selection import Selection
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages.base import fresh_state
from ihas_jax.stages.retrain import _from_tables
from ihas_jax.stages.run import Run

DNN = Config(
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=2),
    search=SearchConfig(pretrain_epochs=2, gate_every=2),
    options=(ClusterConfig(min_rows=100),),
)
SHAPE = SyntheticConfig(rows=2000, own=2, noise=2, values=30)


def with_model(config=DNN, **choices):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **choices))


@pytest.fixture(scope="module")
def log(fit_once):
    return fit_once(DNN, SHAPE).log


@pytest.fixture(scope="module")
def native(fit_once):
    """A finished run of a DNN."""
    return fit_once(DNN, SHAPE).result


@pytest.fixture(scope="module")
def searched(log, native, tmp_path_factory):
    """A run of a DNN that has come to its plan, but no further."""
    seconds = json.loads((native.workdir / "stages.json").read_text())
    with open_run(DNN, log, tmp_path_factory.mktemp("reuse") / "run") as run:
        for stage in ("search", "choose"):
            shutil.copytree(native.workdir / stage, run.workdir / stage)
        write_json(run.workdir / "stages.json", {s: seconds[s] for s in ("search", "choose")})
        return run.workdir


@pytest.fixture(scope="module")
def deepfm(searched, log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deepfm") / "run"
    return fit(with_model(name="deepfm"), log, folder, searched_by=searched)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_by_another_search_leaves_that_run_alone(searched, log, tmp_path):
    before = files(searched)
    result = fit(with_model(name="fm"), log, tmp_path / "fm", searched_by=searched)
    assert files(searched) == before
    metrics = json.loads((result.workdir / "metrics.json").read_text())
    assert metrics["models"] == {"base": "fm", "search": "dnn", "ihas": "fm"}
    assert "| iHAS, fm |" in (result.workdir / "report.md").read_text()
    assert "| search (iHAS-1), dnn |" in (result.workdir / "report.md").read_text()
    theirs = json.loads((searched / "stages.json").read_text())
    theirs.pop("compiling", None)
    assert {name: metrics["seconds"][name] for name in theirs} == theirs


def test_compact_models_keep_what_the_gates_of_the_searched_model_open(native, log, deepfm):
    ours, theirs = load_bundle(deepfm.workdir), load_bundle(native.workdir)
    assert ours.kept == theirs.kept
    assert ours.routes == theirs.routes
    np.testing.assert_array_equal(ours.assign(log.test.ids), theirs.assign(log.test.ids))
    assert deepfm.metrics["search"] == native.metrics["search"]
    assert deepfm.metrics["base"] != native.metrics["base"]
    for cluster, served in zip(deepfm.metrics["clusters"], ours.models, strict=True):
        kept = served.model.embedding.kept
        assert [len(field) for field in kept] == list(cluster["widths"].values())
        sizes = log.schema.sizes
        numbers = sum(size * (len(field) + 1) for size, field in zip(sizes, kept, strict=True))
        tables = served.variables.params["tables"]
        assert sum(leaf.size for leaf in jax.tree.leaves(tables)) == numbers


def test_its_bundle_predicts_what_its_metrics_say(log, deepfm):
    probs = load_bundle(deepfm.workdir).predict_ids(log.test.ids)
    labels = log.test.labels
    logloss = -np.mean(np.where(labels == 1, np.log(probs), np.log1p(-probs)))
    assert logloss == pytest.approx(deepfm.metrics["ihas"]["logloss"], rel=1e-5)


@pytest.mark.parametrize("again", [True, False])
def test_a_finished_run_changes_nothing_with_or_without_the_folder(searched, log, deepfm, again):
    before = {path: path.stat().st_mtime_ns for path in deepfm.workdir.rglob("*")}
    config, folder = with_model(name="deepfm"), deepfm.workdir
    result = fit(config, log, folder, searched_by=searched if again else None)
    assert result.metrics == deepfm.metrics
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_stage_by_stage_retraining_comes_first(searched, log, deepfm, tmp_path):
    config, folder = with_model(name="deepfm"), tmp_path / "run"
    fit(config, log, folder, "retrain", searched_by=searched)
    assert sorted(path.name for path in (folder / "retrain").iterdir()) == [
        "cluster_0",
        "cluster_1",
    ]
    with pytest.raises(InputError, match="--stage evaluate needs the stage 'base'"):
        fit(config, log, folder, "evaluate")
    fit(config, log, folder, "base")
    metrics = fit(config, log, folder, "evaluate").metrics
    for model in ("base", "search", "ihas"):
        assert metrics[model] == deepfm.metrics[model]


@pytest.mark.parametrize("name", ["hofm", "lr"])
def test_models_with_other_tables_keep_the_same_coordinates(searched, log, deepfm, tmp_path, name):
    config = with_model(name=name)
    result = fit(config, log, tmp_path / "run", searched_by=searched)
    bundle = load_bundle(result.workdir)
    source, target = (build_model(c.model, log.schema.sizes).embedding for c in (DNN, config))
    carried = [carry_kept(kept, source, target) for kept in load_bundle(deepfm.workdir).kept]
    everything = (tuple(range(target.dim)),) * len(target.sizes)
    expected = tuple(None if kept == everything else kept for kept in carried)
    assert bundle.kept == expected


def test_a_warm_start_takes_the_tables_that_fit(log, tmp_path):
    run = Run(with_model(name="deepfm"), log, tmp_path, searched_by=DNN.model)
    variables = init_model(jax.random.key(7), run.searched_model)
    expert = Expert(Selection(((0, 2), (), (1,), *((0, 1, 2, 3),) * 6)))
    compact = run.expert_model(expert)
    fresh = fresh_state(run, "retrain", compact)
    warm = _from_tables(run, variables, compact, expert, fresh).params["tables"]
    table = variables.params["tables"][EMBEDDING]
    expected = slice_table(run.searched_model.embedding, table, compact.embedding)
    jax.tree.map(np.testing.assert_array_equal, warm[EMBEDDING], expected)
    jax.tree.map(np.testing.assert_array_equal, warm[LINEAR], fresh.params["tables"][LINEAR])


def refused(log, searched, tmp_path, words, config, **options):
    with pytest.raises(InputError, match=words):
        fit(config, log, tmp_path / "other", searched_by=searched, **options)
    assert not (tmp_path / "other").exists()


def test_a_run_without_a_plan_can_not_serve_another_model(log, tmp_path):
    fit(DNN, log, tmp_path / "run", "base")
    words = "has not finished its stage 'search' yet"
    refused(log, tmp_path / "run", tmp_path, words, with_model(name="fm"))


def test_a_folder_without_a_run_can_not_serve(log, tmp_path):
    words = "config.json can't be read.*Pass the folder of a run as --searched-by"
    refused(log, tmp_path / "nothing", tmp_path, words, with_model(name="fm"))


@pytest.mark.parametrize("name", ["fm", "lr", "hofm", "ffm"])
@pytest.mark.parametrize("dim", [1, 8, 12])
def test_a_model_of_another_dimension_is_refused(searched, log, tmp_path, name, dim):
    words = r"dnn was searched with --model\.dim 4.*Choose 4"
    refused(log, searched, tmp_path, words, with_model(name=name, dim=dim))


def test_any_other_difference_is_refused(searched, log, tmp_path):
    config = dataclasses.replace(with_model(name="fm"), seed=1)
    words = "is a run of another config: seed: 0 -> 1. Its search can serve only runs that differ"
    refused(log, searched, tmp_path, words, config)


def test_a_search_on_other_data_is_refused(searched, tmp_path):
    other = synthetic(SyntheticConfig(rows=2000, own=2, noise=2, values=30, seed=1))
    refused(other, searched, tmp_path, "is a run on other data", with_model(name="fm"))


def test_another_model_in_the_folder_of_a_run_is_told_both_ways(searched, log):
    words = (
        r"holds a run of another config: model\.name: dnn -> fm\. Choose another --output for a "
        rf"run of fm by its own search; add --searched-by {searched} to that command"
    )
    with pytest.raises(InputError, match=words):
        fit(with_model(name="fm"), log, searched)
    with pytest.raises(InputError, match="Use the old values to resume it"):  # it has no search
        fit(dataclasses.replace(with_model(name="fm"), method="none"), log, searched)


def test_a_run_by_its_own_search_takes_no_other(searched, log, tmp_path):
    fit(with_model(name="fm"), log, tmp_path / "run", "base")
    with pytest.raises(InputError, match="holds a run of fm by its own search"):
        fit(with_model(name="fm"), log, tmp_path / "run", searched_by=searched)


def test_other_choices_than_those_of_the_folder_are_told_what_to_do(searched, log, deepfm):
    with pytest.raises(InputError, match=r"model\.hidden: .* or choose another --output"):
        fit(with_model(name="deepfm", hidden=(3,)), log, deepfm.workdir, searched_by=searched)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("optembed", "retrains from weights of the searched model"),
        ("none", "--method none has no search"),
    ],
)
def test_methods_whose_search_serves_no_other_model_are_refused(log, tmp_path, method, words):
    config = dataclasses.replace(DNN, method=method)
    fit(config, log, tmp_path / "run", "base")
    finished = dict.fromkeys(("base", "search", "choose"), 1.0)
    write_json(tmp_path / "run" / "stages.json", finished)
    refused(log, tmp_path / "run", tmp_path, words, with_model(config, name="fm"))


def test_a_method_that_serves_its_searched_model_serves_no_other(log, tmp_path):
    config = dataclasses.replace(DNN, method="adafs_soft")
    for stage in ("search", "choose"):
        fit(config, log, tmp_path / "run", stage)
    words = "adafs_soft serves its searched model, so the search of dnn can't serve fm"
    refused(log, tmp_path / "run", tmp_path, words, with_model(config, name="fm"))


def test_a_selection_serves_another_model_too(log, tmp_path):
    config = dataclasses.replace(DNN, method="sseds")
    for stage in ("search", "choose"):
        fit(config, log, tmp_path / "dnn", stage)
    other = with_model(config, name="deepfm")
    result = fit(other, log, tmp_path / "deepfm", searched_by=tmp_path / "dnn")
    (served,) = load_bundle(result.workdir).models
    assert list(result.metrics["selection"]["widths"].values()) == list(
        served.model.embedding.widths
    )
    assert result.metrics["models"] == {"base": "deepfm", "search": "dnn", "sseds": "deepfm"}


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
    for cluster, served in zip(result.metrics["clusters"], bundle.models, strict=True):
        widths = served.model.embedding.widths
        assert list(cluster["widths"].values()) == list(widths)
        assert cluster["kept"] == pytest.approx(sum(widths) / spec.coordinates)


def test_a_searched_model_with_several_vectors_serves_no_other(log, tmp_path):
    for stage in ("search", "cluster"):
        fit(with_model(name="hofm"), log, tmp_path / "run", stage)
    with pytest.raises(InputError, match=r"has 2 vectors for each field.*such as dnn"):
        fit(with_model(name="fm"), log, tmp_path / "fm", searched_by=tmp_path / "run")
