"""Groups of a field's values with networks over one table, on planted logs."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ihas_jax.config import (
    ClusterConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    RetrainConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.schema import Field, Schema
from ihas_jax.errors import InputError
from ihas_jax.pipeline.fit import fit
from ihas_jax.selectors.plan import Groups
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages import groups as module
from ihas_jax.stages.run import Run
from ihas_jax.training.metrics import score

USERS, ITEMS = 40, 12
CONFIG = Config(
    method="spectral",
    budget=0.75,
    # without a hidden layer the effects of fields add up
    model=ModelConfig(dim=4, hidden=()),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, max_epochs=4, checkpoint_seconds=0),
    retrain=RetrainConfig(start="shared", group_by="user", groups=2),
)


def planted(opposite):
    """Users of two kinds, to whom items mean the opposite, or the same."""
    rng = np.random.default_rng(0)
    effects = np.where(np.arange(ITEMS) % 2, 2.0, -2.0)
    ids = np.stack([rng.integers(size, size=6000) for size in (ITEMS, USERS)], axis=1)
    kind = np.where(ids[:, 1] % 2 if opposite else True, 1, -1)
    logits = effects[ids[:, 0]] * kind
    labels = (rng.random(6000) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    ids = (ids + 1).astype(np.int32)  # id 0 is a value that was never seen
    parts = [Split(ids[a:b], labels[a:b]) for a, b in ((0, 4000), (4000, 5000), (5000, 6000))]
    names = [tuple(f"v{i}" for i in range(size)) for size in (ITEMS, USERS)]
    fields = [Field(name, values) for name, values in zip(("item", "user"), names, strict=True)]
    return Dataset(Schema("label", tuple(fields)), *parts)


@pytest.fixture(scope="module")
def opposite(tmp_path_factory):
    log = planted(opposite=True)
    return log, fit(CONFIG, log, tmp_path_factory.mktemp("opposite") / "run")


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    log = planted(opposite=False)
    return log, fit(CONFIG, log, tmp_path_factory.mktemp("alike") / "run")


def test_the_kinds_of_users_are_found_and_answered(opposite):
    _, result = opposite
    assert result.metrics["base"]["auc"] < 0.6
    assert result.metrics["spectral"]["auc"] > 0.85
    router = load_bundle(result.workdir).router
    assert router.field == 1
    groups = router.of_value[1:]
    assert len({*groups[0::2]}) == len({*groups[1::2]}) == 1 and groups[0] != groups[1]


def test_the_bundle_has_one_table_and_a_record_of_the_values(opposite):
    log, result = opposite
    bundle = load_bundle(result.workdir)
    first, second = (served.variables.params["tables"]["embedding"] for served in bundle.models)
    assert all(first[name] is second[name] for name in first)
    network = bundle.models[1].parameters
    assert bundle.parameters <= 0.75 * 4 * (USERS + ITEMS + 2) + 2 * network
    assert bundle.router.bytes == USERS + 1
    assert result.missing == ()
    assert bundle.bytes == sum(s.bytes for s in bundle.models) + bundle.router.bytes
    found = score(log.test.labels, bundle.predict_ids(log.test.ids))
    assert found.auc == pytest.approx(result.metrics["spectral"]["auc"], abs=1e-6)
    np.testing.assert_array_equal(
        bundle.assign(log.test.ids), bundle.router.of_value[log.test.ids[:, 1]]
    )
    shares = [cluster["share"] for cluster in result.metrics["clusters"]]
    members = bundle.router.of_value[log.train.ids[:, 1]]
    assert shares == pytest.approx([(members == g).mean() for g in (0, 1)])


def test_a_group_shares_beside_one_that_does_not(opposite, monkeypatch):
    """The network of group 1 is worse on its rows, though better on those of group 0."""
    log, _ = opposite
    own = [SimpleNamespace(loss=(0.1, 0.9)), SimpleNamespace(loss=(0.0, 0.6))]
    everyone = SimpleNamespace(loss=(0.5, 0.5))
    groups = Groups(1, (np.arange(USERS + 1) % 2).astype(np.uint8))
    member = log.valid.ids[:, 1] % 2
    monkeypatch.setattr(module, "_losses", lambda run, model, one: np.array(one.loss)[member])
    run = Run(CONFIG, log, None)
    retrained, losses = module._verdicts(run, run.model, groups, everyone, own)
    assert retrained == [everyone, own[0], everyone]
    np.testing.assert_array_equal(losses, np.where(member == 0, 0.1, 0.5))


def test_users_alike_keep_what_is_no_worse_on_validation(alike):
    log, result = alike
    bundle = load_bundle(result.workdir)
    (event,) = _events(result, "groups")
    start = [e for e in _events(result, "epoch") if e["stage"].startswith("retrain")]
    first = [e for e in start if e["stage"].split("/")[1:2] in ([], ["finish_0"], ["finish_1"])]
    best = max(first, key=lambda facts: facts["auc"])
    found = score(log.valid.labels, bundle.predict_ids(log.valid.ids))
    assert found.logloss <= best["logloss"] + 1e-6
    assert found.logloss == pytest.approx(min(event["one"], event["groups"]), abs=1e-6)
    if event["groups"] >= event["one"]:
        assert len(bundle.models) == 1 and bundle.router is None


def test_killed_groups_end_with_the_same_numbers(opposite, tmp_path, monkeypatch):
    """Stopped after every epoch of the networks."""
    log, result = opposite
    seen, event = set(), Run.event

    def kill(run, kind, facts):
        event(run, kind, facts)
        place = facts.get("stage", ""), facts.get("epoch")
        if place[0].startswith("retrain/") and place not in seen:
            seen.add(place)
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "event", kill)
    for _ in range(100):
        try:
            again = fit(CONFIG, log, tmp_path / "run")
            break
        except KeyboardInterrupt:
            continue
    assert len(seen) > 12
    for entry in ("base", "spectral", "clusters"):
        assert again.metrics[entry] == result.metrics[entry]
    bundles = [load_bundle(folder) for folder in (result.workdir, again.workdir)]
    np.testing.assert_array_equal(*(bundle.router.of_value for bundle in bundles))
    for ours, theirs in zip(*(bundle.models for bundle in bundles), strict=True):
        jax.tree.map(np.testing.assert_array_equal, ours.variables, theirs.variables)


def _events(result, kind):
    lines = (result.workdir / "log.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == kind]


@pytest.mark.parametrize("method", ["uniform", "pep", "optfs", "ihas"])
def test_any_method_with_one_model_has_groups(method, tmp_path):
    """Of masks, of removed values, of gates, and of whole coordinates."""
    options = (ClusterConfig(clusters=1, batch_rows=2048),) if method == "ihas" else ()
    search = SearchConfig(stopping_share=0.5, gate_every=2, pretrain_epochs=1)
    search = search if method == "ihas" else CONFIG.search
    config = dataclasses.replace(CONFIG, method=method, options=options, search=search)
    log = planted(opposite=True)
    result = fit(config, log, tmp_path / "run")
    assert result.metrics[method]["auc"] > result.metrics["base"]["auc"] + 0.1
    bundle = load_bundle(result.workdir)
    found = score(log.test.labels, bundle.predict_ids(log.test.ids))
    assert found.auc == pytest.approx(result.metrics[method]["auc"], abs=1e-6)


def test_a_field_of_one_value_has_no_groups(tmp_path):
    """More epochs alone would make two networks of one group look better."""
    log = planted(opposite=True)
    field = Field("one", ("v",))
    parts = [
        Split(np.c_[ids, np.ones(len(ids))].astype(np.int32), labels)
        for ids, labels in (log.train, log.valid, log.test)
    ]
    log = Dataset(Schema("label", (*log.schema.fields, field)), *parts)
    config = dataclasses.replace(
        CONFIG, retrain=dataclasses.replace(CONFIG.retrain, group_by="one")
    )
    result = fit(config, log, tmp_path / "run")
    bundle = load_bundle(result.workdir)
    assert len(bundle.models) == 1 and bundle.router is None and result.missing == ()


def test_without_room_one_model_serves_all(tmp_path, caplog):
    """A network of the small table's size is more than a quarter more memory."""
    retrain = dataclasses.replace(CONFIG.retrain, groups=None)
    config = dataclasses.replace(CONFIG, retrain=retrain, model=ModelConfig(dim=4, hidden=(64, 32)))
    with caplog.at_level("INFO", "ihas_jax"):
        result = fit(config, planted(opposite=True), tmp_path / "run")
    assert "networks of groups would take too much memory" in caplog.text
    assert len(load_bundle(result.workdir).models) == 1


@pytest.mark.parametrize(
    ("retrain", "words"),
    [
        ({"group_by": "usr"}, r"--retrain.group-by usr is no field of the log; .* item, user"),
        ({"start": None}, "need models that go on from one. Choose --retrain.start shared"),
        ({"group_by": None}, "Name a field there, or leave --retrain.groups out"),
        ({"group_by": None, "groups": None}, "Name a field whose values are clustered"),
    ],
)
def test_wrong_choices_name_their_flag(retrain, words, tmp_path):
    config = dataclasses.replace(CONFIG, retrain=dataclasses.replace(CONFIG.retrain, **retrain))
    with pytest.raises(InputError, match=words):
        fit(config, planted(opposite=True), tmp_path / "run")


@pytest.mark.parametrize("number", [1, 9])
def test_the_number_of_groups_is_bounded(number):
    with pytest.raises(InputError, match=r"--retrain.groups must be 2 to 8"):
        dataclasses.replace(CONFIG, retrain=RetrainConfig(groups=number))
