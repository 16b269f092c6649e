from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from ihas_jax import checksums
from ihas_jax.config import (
    ClusterConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.open import open_store
from ihas_jax.data.store_writer import save_dataset
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.errors import InputError
from ihas_jax.files import write_json
from ihas_jax.flags import replaced
from ihas_jax.pipeline.fit import fit, fit_seeds
from ihas_jax.pipeline.workdir import open_run
from ihas_jax.serving.storage import load_bundle

PLAIN = Config(
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=2),
    search=SearchConfig(pretrain_epochs=2, gate_every=2),
    options=(ClusterConfig(min_rows=100),),
)


def changed(**parts) -> Config:
    """PLAIN with other values: changed(cluster={"clusters": 1})."""
    config = PLAIN
    for part, values in parts.items():
        for name, value in values.items():
            config = replaced(config, f"{part}.{name}", value)
    return config


SHAPE = SyntheticConfig(rows=2000, own=2, noise=2, values=30)


@pytest.fixture(scope="module")
def log(fit_once):
    return fit_once(PLAIN, SHAPE).log


@pytest.fixture(scope="module")
def plain(fit_once):
    return fit_once(PLAIN, SHAPE).result


@pytest.fixture
def run(log, plain, tmp_path, caplog):
    """Runs a variant to its end, from those stages of the plain run that it shares."""

    def start(config, *shared, data=log):
        seconds = json.loads((plain.workdir / "stages.json").read_text())
        with open_run(config, data, tmp_path / "run") as new:
            for stage in shared:
                shutil.copytree(plain.workdir / stage, new.workdir / stage)
            write_json(new.workdir / "stages.json", {s: seconds[s] for s in shared})
        result = sane(fit(config, data, new.workdir), config)
        assert "damaged" not in caplog.text
        return result

    return start


def sane(result, config):
    metrics = result.metrics
    for model in ("base", "search", "ihas"):
        assert 0.2 < metrics[model]["auc"] < 1
        assert 0.3 < metrics[model]["logloss"] < 1
    assert len(metrics["clusters"]) == config.of(ClusterConfig).clusters
    shares = [cluster["share"] for cluster in metrics["clusters"]]
    assert sum(shares) == pytest.approx(1)
    for cluster in metrics["clusters"]:
        assert all(0 <= width <= config.model.dim for width in cluster["widths"].values())
        assert 0 < cluster["kept"] <= 1
    assert 0 < metrics["search"]["kept"] <= 1
    assert metrics["base"]["parameters"] < metrics["search"]["parameters"]
    bundle = load_bundle(result.workdir)
    assert bundle.router.centroids.shape[0] == config.of(ClusterConfig).clusters
    return result


def test_compact_models_have_only_what_they_keep(plain):
    bundle = load_bundle(plain.workdir)
    for cluster, served in zip(plain.metrics["clusters"], bundle.models, strict=True):
        kept, params = served.model.embedding.kept, served.variables.params
        sizes = bundle.schema.sizes
        numbers = sum(size * len(k) for size, k in zip(sizes, kept, strict=True))
        assert sum(leaf.size for leaf in jax.tree.leaves(params["tables"])) == numbers
        assert [len(k) for k in kept] == list(cluster["widths"].values())
    sane(plain, PLAIN)


def test_one_cluster_is_one_compact_model(run):
    result = run(changed(cluster={"clusters": 1}), "base", "search")
    (cluster,) = result.metrics["clusters"]
    assert (cluster["share"], cluster["model"], cluster["fallback"]) == (1.0, "cluster_0", None)
    assert cluster["test"]["auc"] == result.metrics["ihas"]["auc"]


def test_three_clusters_with_warm_start(run, plain):
    config = changed(cluster={"clusters": 3, "min_rows": 10}, retrain={"start": "searched"})
    result = run(config, "base", "search")
    assert {cluster["model"] for cluster in result.metrics["clusters"]} == {
        "cluster_0",
        "cluster_1",
        "cluster_2",
    }
    assert sum(cluster["test"]["rows"] for cluster in result.metrics["clusters"]) == 200


def test_warm_start_learns_from_the_searched_tables(run, plain):
    warm = run(changed(retrain={"start": "tables"}), "base", "search", "choose")
    assert warm.metrics["search"] == plain.metrics["search"]
    assert warm.metrics["ihas"]["parameters"] == plain.metrics["ihas"]["parameters"]
    assert warm.metrics["ihas"]["auc"] != plain.metrics["ihas"]["auc"]


def test_clusters_that_are_too_small_share_the_model_of_all_rows(run, log):
    config = changed(cluster={"min_rows": 10_000})
    result = run(config, "base", "search")
    for cluster in result.metrics["clusters"]:
        assert cluster["model"] == "all"
        assert "fewer than cluster.min_rows = 10000" in cluster["fallback"]
    assert len(load_bundle(result.workdir).models) == 1
    report = (result.workdir / "report.md").read_text()
    assert "all (it has" in report
    before = (result.workdir / "log.jsonl").read_text()
    assert before.count('"event": "plan"') == 1
    assert fit(config, log, result.workdir).metrics == result.metrics
    assert (result.workdir / "log.jsonl").read_text() == before


def test_gates_for_all_instances_alike(run):
    result = run(changed(gates={"instance_wise": False}), "base")
    events = [json.loads(line) for line in (result.workdir / "log.jsonl").read_text().splitlines()]
    epochs = [e for e in events if e["event"] == "epoch" and e["stage"] == "search"]
    assert epochs
    assert all(epoch["kept_deviation"] < 1e-6 for epoch in epochs)


def test_the_literal_threshold(run, plain):
    config = changed(gates={"threshold": "literal", "bins": 100})
    result = run(config, "base", "search")
    # without a probability near 0 the literal rule opens every gate
    assert result.metrics["search"]["kept"] == 1
    assert plain.metrics["search"]["kept"] < 1


def test_batch_norm_dropout_and_no_pretraining(run):
    config = changed(
        model={"batch_norm": True, "dropout": 0.2},
        search={"pretrain_epochs": 0},
        cluster={"clusters": 1},
    )
    result = run(config)
    assert all(served.variables.stats for served in load_bundle(result.workdir).models)


def one_class(split: Split) -> Split:
    return Split(split.ids, np.zeros_like(split.labels))


def test_a_test_split_of_one_class_has_no_auc_but_strict_json(log, plain, tmp_path):
    data = Dataset(log.schema, log.train, log.valid, one_class(log.test))
    shutil.copytree(plain.workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "bundle")
    result = fit(PLAIN, data, tmp_path / "run")

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = (tmp_path / "run" / "metrics.json").read_text()
    metrics = json.loads(text, parse_constant=refuse)
    assert metrics["ihas"]["auc"] is None
    assert np.isnan(result.metrics["ihas"]["auc"])
    for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    assert np.isnan(fit(PLAIN, data, tmp_path / "run").metrics["ihas"]["auc"])


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_an_empty_split_is_refused(log, tmp_path, name):
    split = getattr(log, name)
    data = Dataset(log.schema, log.train, log.valid, log.test)
    data = dataclasses.replace(data, **{name: Split(split.ids[:0], split.labels[:0])})
    with pytest.raises(InputError, match=f"no {name} rows"):
        fit(PLAIN, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["config.json", "stages.json", "metrics.json"])
def test_a_damaged_file_of_a_run_is_named(log, plain, tmp_path, name):
    shutil.copytree(plain.workdir, tmp_path / "run")
    file = tmp_path / "run" / name
    file.write_text(file.read_text()[:-20])
    with pytest.raises(InputError, match=f"{name} can't be read"):
        fit(PLAIN, log, tmp_path / "run")


def test_a_run_of_a_version_with_other_values_is_named(log, plain, tmp_path):
    shutil.copytree(plain.workdir, tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    checksums.replace(file, file.read_bytes().replace(b'"teachers"', b'"preachers"'))
    with pytest.raises(InputError, match=r"config\.json can't be read .*preachers"):
        fit(PLAIN, log, tmp_path / "run")


def test_a_folder_of_another_format_is_named(log, plain, tmp_path):
    shutil.copytree(plain.workdir, tmp_path / "run")
    for file in (tmp_path / "run" / "config.json", tmp_path / "run" / "bundle" / "bundle.json"):
        content = json.loads(file.read_text())
        del content["version"]  # as the first one was written
        checksums.replace(file, json.dumps(content).encode())
    words = "is in format 1, and this version of ihas_jax reads format 3"
    with pytest.raises(InputError, match=words):
        fit(PLAIN, log, tmp_path / "run")
    checksums.forget(tmp_path / "run" / "bundle", ["bundle.json"])
    with pytest.raises(InputError, match=words):
        load_bundle(tmp_path / "run")


def test_a_folder_that_a_killed_start_left_is_taken_up(log, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    checksums.start(workdir)
    (workdir / ".config.json.partial").write_text('{"config": {"mod')
    for _ in range(2):
        with open_run(PLAIN, log, workdir) as run:
            assert run.workdir == workdir


def test_values_that_touch_no_number_may_change(log, plain):
    config = changed(train={"checkpoint_seconds": 1.0, "device_data_gb": 0.0})
    with open_run(config, log, plain.workdir) as run:
        assert run.workdir == plain.workdir
    other = changed(train={"batch_size": 64})
    with (
        pytest.raises(InputError, match=r"train\.batch_size: 100 -> 64"),
        open_run(other, log, plain.workdir),
    ):
        pass


def test_two_runs_in_one_folder_exclude_each_other(tmp_path):
    log = synthetic(SHAPE)
    with (
        open_run(PLAIN, log, tmp_path / "run") as first,
        pytest.raises(InputError, match="Another process is at work"),
    ):
        fit(PLAIN, log, first.workdir)
    assert not (first.workdir / "base").exists()


@pytest.mark.parametrize("run", [fit, lambda c, d, w: fit_seeds(c, d, {0: w})])
def test_a_store_with_an_id_that_is_none_does_not_start_a_run(log, tmp_path, run):
    save_dataset(log, tmp_path / "store")
    ids = np.load(tmp_path / "store" / "train.ids.npy", mmap_mode="r+")
    ids[17, 2] = 5000
    ids.flush()
    name = log.schema.names[2]
    with pytest.raises(InputError, match=f"ids of train hold 5000 in row 17 of field '{name}'"):
        run(PLAIN, open_store(tmp_path / "store"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
