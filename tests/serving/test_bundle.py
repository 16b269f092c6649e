from __future__ import annotations

import dataclasses
import json
import re
import shutil

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
from ihas_jax.data.raw.encoder import encode
from ihas_jax.data.synthetic import SyntheticConfig
from ihas_jax.errors import InputError
from ihas_jax.selectors.routing import Router
from ihas_jax.serving.storage import load_bundle
from ihas_jax.serving.stream import Stream
from ihas_jax.training.metrics import score

CONFIG = Config(
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=2),
    search=SearchConfig(pretrain_epochs=2, gate_every=2),
    options=(ClusterConfig(min_rows=100),),
)
SHAPE = SyntheticConfig(rows=2000, own=2, noise=2, values=30)


@pytest.fixture(scope="module")
def log(fit_once):
    return fit_once(CONFIG, SHAPE).log


@pytest.fixture(scope="module")
def run(fit_once):
    return fit_once(CONFIG, SHAPE).result


@pytest.fixture(scope="module")
def bundle(run):
    return load_bundle(run.workdir)


@pytest.fixture(scope="module")
def raw(log):
    """The first test rows as they were before encoding."""
    columns = {}
    for n, field in enumerate(log.schema.fields):
        values = (*field.values, "seen by nobody")
        columns[field.name] = [values[i] for i in log.test.ids[:50, n]]
    return columns


def test_the_bundle_reproduces_the_metrics(bundle, run, log):
    probs = bundle.predict_ids(log.test.ids)
    assert len(probs) == len(log.test.labels)
    scores = score(log.test.labels, probs)
    assert (scores.auc, scores.logloss) == (
        run.metrics["ihas"]["auc"],
        run.metrics["ihas"]["logloss"],
    )
    for c, cluster in enumerate(run.metrics["clusters"]):
        assert (bundle.assign(log.test.ids) == c).sum() == cluster["test"]["rows"]


def test_each_row_is_predicted_by_itself(bundle, log):
    whole = bundle.predict_ids(log.test.ids)
    order = np.arange(len(whole))[::-1][:30]
    np.testing.assert_allclose(bundle.predict_ids(log.test.ids[order]), whole[order], rtol=1e-6)
    assert len(np.unique(whole)) > 20


def test_a_bundle_is_shown_in_a_line(bundle):
    shown = repr(bundle)
    assert shown.startswith("<Bundle of ") and "(dnn, ihas): " in shown and len(shown) < 100
    assert f"{len(bundle.schema.names)} fields, {bundle.parameters:,} parameters>" in shown


def test_no_row_is_routed_where_one_model_serves_all_clusters(bundle, log, monkeypatch):
    assert bundle.router is not None and len(bundle.routes) > 1
    alone = dataclasses.replace(bundle, models=bundle.models[:1], routes=(0,) * len(bundle.routes))

    def fail(*of, **named):
        raise AssertionError

    monkeypatch.setattr(Router, "assign", fail)
    probs = bundle.models[0].predict(log.test.ids, title="all").probs
    np.testing.assert_array_equal(alone.predict_ids(log.test.ids), probs)
    found = Stream(alone)(log.test.ids)
    np.testing.assert_array_equal(found.probability, probs)
    assert found.cluster is None
    assert (alone.router_parameters, alone.bytes) == (0, alone.models[0].bytes)
    alone.warm_up()
    with pytest.raises(AssertionError):
        alone.assign(log.test.ids)


def test_raw_rows_equal_their_encoded_ones(bundle, log, raw):
    ids = encode(log.schema, raw)
    np.testing.assert_array_equal(ids, log.test.ids[:50])
    np.testing.assert_array_equal(bundle.predict_proba(raw), bundle.predict_ids(ids))


def test_unseen_values_count_as_other(bundle, log, raw):
    other = {**raw, "shared_0": ["never seen"] * 50, "noise_0": [None] * 50}
    ids = log.test.ids[:50].copy()
    for name in ("shared_0", "noise_0"):
        n = log.schema.names.index(name)
        ids[:, n] = log.schema.fields[n].other
    assert not np.array_equal(ids, log.test.ids[:50])
    np.testing.assert_array_equal(bundle.predict_proba(other), bundle.predict_ids(ids))


def test_a_missing_column_is_named(bundle, raw):
    short = {name: values for name, values in raw.items() if name != "shared_0"}
    with pytest.raises(InputError, match="shared_0"):
        bundle.predict_proba(short)


def test_either_folder_loads(bundle, run, log):
    again = load_bundle(run.workdir / "bundle")
    ids = log.test.ids[:50]
    np.testing.assert_array_equal(again.predict_ids(ids), bundle.predict_ids(ids))


def test_no_bundle(tmp_path):
    with pytest.raises(InputError, match="no complete bundle"):
        load_bundle(tmp_path)
    assert not list(tmp_path.iterdir())


def remove(name):
    def damage(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def cut(folder):
    path = folder / "bundle.json"
    path.write_text(path.read_text()[:100])


def forget(folder):
    path = folder / "bundle.json"
    facts = json.loads(path.read_text())
    del facts["routes"]
    path.write_text(json.dumps(facts))


def another_digit(name):
    def damage(folder):
        path = folder / name
        digit = re.search(r"\d(?=[^\d]*$)", path.read_text())
        text = path.read_text()
        other = str((int(digit[0]) + 1) % 10)
        path.write_text(text[: digit.start()] + other + text[digit.end() :])

    return damage


def truncate(folder):
    path = next((folder / "arrays").glob("*width*"))
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove("bundle.json"), r"bundle\.json is damaged or missing"),
        (cut, r"bundle\.json is damaged or missing"),
        (forget, r"bundle\.json is damaged or missing"),
        (another_digit("bundle.json"), r"bundle\.json is damaged or missing"),
        (another_digit("schema.json"), r"schema\.json is damaged or missing"),
        (another_digit("checksums.json"), r"schema\.json is damaged or missing"),
        (remove("schema.json"), "schema.json"),
        (remove("arrays"), r"arrays/models\.0\..*\.npy is damaged or missing"),
        (truncate, r"arrays/models.*width.*\.npy is damaged or missing"),
    ],
)
def test_half_a_bundle_is_refused_and_left_alone(run, tmp_path, damage, words):
    folder = tmp_path / "bundle"
    shutil.copytree(run.workdir / "bundle", folder)
    damage(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match=words):
        load_bundle(folder)
    assert sorted(folder.rglob("*")) == before


WRONG_IDS = [
    (lambda ids, sizes: ids[0], r"one row is ids\[None, :\]"),
    (lambda ids, sizes: ids[:, :-1], r"the shape \[50, 8\]; \[n, 9\] is needed"),
    (lambda ids, sizes: ids.astype(float), "are float64; integers are needed"),
    (lambda ids, sizes: -1 - ids, "hold -.* in row 0 of field 'context_0'"),
    (
        lambda ids, sizes: ids + (np.arange(50) == 49)[:, None] * sizes,
        "in row 49 of field 'context_0'",
    ),
    (lambda ids, sizes: ids.astype(np.int64) + 2**32, "hold 42949672"),
]


@pytest.mark.parametrize(("change", "words"), WRONG_IDS)
@pytest.mark.parametrize("name", ["predict_ids", "assign", "masks"])
def test_ids_that_are_none_of_the_bundle_are_refused(bundle, log, change, words, name):
    wrong = change(log.test.ids[:50], np.array(log.schema.sizes, np.int32))
    with pytest.raises(InputError, match=words):
        getattr(bundle, name)(wrong)


@pytest.mark.parametrize("name", ["predict_ids", "assign", "masks"])
def test_ids_of_any_integers_are_predicted(bundle, log, name):
    function, ids = getattr(bundle, name), log.test.ids[:50]
    for same in (ids.astype(np.int64), ids.astype(np.uint8), ids.astype(">i4"), ids.tolist()):
        np.testing.assert_array_equal(function(same), function(ids))
    assert len(function(ids[:0])) == 0
    assert function(ids[:0]).shape[1:] == function(ids).shape[1:]
