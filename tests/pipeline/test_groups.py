"""Groups of a field's values with networks over one table, on planted logs."""

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
    RetrainConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.schema import Field, Schema
from ihas_jax.errors import InputError
from ihas_jax.models.forward import init_model
from ihas_jax.models.grouped import stack_networks
from ihas_jax.pipeline.fit import fit
from ihas_jax.selectors.by_value import ValueRouter
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages import groups as module
from ihas_jax.stages import together
from ihas_jax.stages.base import fresh_state
from ihas_jax.stages.run import Run
from ihas_jax.training.metrics import score
from ihas_jax.training.task import Trained

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


@pytest.fixture(scope="module")
def planted(planted_log):
    """`planted(opposite)`: users of two kinds, to whom items mean the opposite, or the same."""

    def plant(opposite):
        def logit_of(values):
            item, user = values.T
            kind = np.where(user % 2 if opposite else True, 1, -1)
            return np.where(item % 2, 2.0, -2.0) * kind

        return planted_log({"item": ITEMS, "user": USERS}, logit_of)

    return plant


@pytest.fixture(scope="module")
def opposite(planted, tmp_path_factory):
    log = planted(opposite=True)
    return log, fit(CONFIG, log, tmp_path_factory.mktemp("opposite") / "run")


@pytest.fixture(scope="module")
def alike(planted, tmp_path_factory):
    log = planted(opposite=False)
    return log, fit(CONFIG, log, tmp_path_factory.mktemp("alike") / "run")


def test_the_kinds_of_users_are_found_and_answered(opposite):
    _, result = opposite
    assert result.metrics["base"]["auc"] < 0.6 and result.metrics["one"]["auc"] < 0.6
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
    groups = ValueRouter(1, (np.arange(USERS + 1) % 2).astype(np.uint8))
    member = log.valid.ids[:, 1] % 2
    monkeypatch.setattr(module, "_losses", lambda model, one, valid: np.array(one.loss)[member])
    model = Run(CONFIG, log, None).model
    retrained, losses = module._verdicts(model, log.valid, groups, everyone, own)
    assert retrained == [everyone, own[0], everyone]
    np.testing.assert_array_equal(losses, np.where(member == 0, 0.1, 0.5))


def test_one_training_of_the_groups_counts_once(opposite):
    """The report has one curve for it, and the seconds are those of all trainings."""
    _, result = opposite
    curves = json.loads((result.workdir / "curves.json").read_text())["histories"]
    assert set(curves) == {"base", "search", "retrain groups"}
    stages = {event["stage"] for event in _events(result, "epoch")}
    assert {"retrain/groups", "retrain/alone", "retrain/all"} <= stages


def test_networks_learn_together_and_go_on_with_smaller_steps(opposite, tmp_path, monkeypatch):
    """The model that they start from has ended at a pace of its own."""
    log, _ = opposite
    run, begun = Run(CONFIG, log, tmp_path), []

    def train_runs(runs, tasks, states):
        begun.append((round(float(states[0].pace), 6), tasks[0].finish))
        return [Trained(states[0].variables, states[0], [], 0.0)]

    monkeypatch.setattr(together, "train_runs", train_runs)
    monkeypatch.setattr(together, "regrouped", lambda *arguments: arguments[-1])
    start = dataclasses.replace(fresh_state(run, "start", run.model), pace=jnp.float32(0.5))
    first = Trained(start.variables, start, [], 0.0)
    together.learn_together(run, run.model, "groups", 2, first, 1)
    assert begun == [*[(1.0, ())] * 8, (0.2, (0.04,))]


def grouped_by(log, labels, taught, of_value, tmp_path):
    """How values are grouped by two networks, the first of which is surer of clicks."""
    log = Dataset(log.schema, Split(log.train.ids, labels), log.valid, log.test)
    run = Run(CONFIG, log, tmp_path, taught=taught)
    (tmp_path / "part").mkdir(parents=True)
    variables = stack_networks(init_model(jax.random.key(0), run.model), 2, 0.0, jax.random.key(1))
    network = jax.tree.map(
        lambda leaf: 0 * leaf + np.array([1.0, -1.0]).reshape(2, *[1] * (leaf.ndim - 1)),
        variables.params["network"],
    )
    tables = jax.tree.map(lambda leaf: 0 * leaf, variables.params["tables"])
    variables = variables._replace(params={"tables": tables, "network": network})
    found = together.regrouped(run, run.model, "part", variables, ValueRouter(1, of_value))
    return found.of_value


def test_values_go_to_the_network_with_the_least_loss_on_what_is_learnt(opposite, tmp_path):
    """Networks that say yes and no; odd users click by their labels, even ones by the teachers."""
    log, _ = opposite
    odd = log.train.ids[:, 1] % 2 == 1
    start = np.zeros(USERS + 1, np.uint8)
    own = grouped_by(log, odd.astype(np.uint8), None, start, tmp_path / "clicks")
    assert own[1:].tolist() == [0 if user % 2 else 1 for user in range(1, USERS + 1)]
    taught = np.where(odd, 0.1, 0.9).astype(np.float32)
    other = grouped_by(log, odd.astype(np.uint8), taught, start, tmp_path / "taught")
    assert other[1:].tolist() == [1 if user % 2 else 0 for user in range(1, USERS + 1)]


@pytest.mark.parametrize(("clicks", "group"), [(0.8, 0), (0.2, 1)])
def test_values_without_rows_go_to_the_network_that_is_best_for_all(
    opposite, tmp_path, clicks, group
):
    log, _ = opposite
    odd = log.train.ids[:, 1] % 2 == 1
    share = np.where(odd, 0.9, 0.1) + (clicks - 0.5)  # most rows click, or most do not
    taught = np.clip(share, 0.05, 0.95).astype(np.float32)
    found = grouped_by(
        log, log.train.labels, taught, np.full(USERS + 1, 1 - group, np.uint8), tmp_path / "run"
    )
    assert {*found[1:]} == {0, 1} and found[0] == group


def assert_one_serves(result):
    """The model that the groups are compared with is the one that is served."""
    one, served = (result.metrics[name] for name in ("one", "spectral"))
    for metric in ("auc", "logloss", "parameters", "bytes"):
        assert one[metric] == pytest.approx(served[metric])


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
    # users alike leave nothing to specialise in
    assert event["groups"] >= event["one"]
    assert len(bundle.models) == 1 and bundle.router is None
    for metric in ("auc", "logloss", "parameters", "bytes"):
        assert result.metrics["one"][metric] == pytest.approx(result.metrics["spectral"][metric])


def test_killed_groups_end_with_the_same_numbers(opposite, tmp_path, stopped_often):
    """Stopped after every epoch of the networks."""
    log, result = opposite
    again, stops = stopped_often(lambda: fit(CONFIG, log, tmp_path / "run"), "retrain/")
    assert stops > 12
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
def test_any_method_with_one_model_has_groups(method, planted, tmp_path):
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


def test_a_field_of_one_value_has_no_groups(planted, tmp_path):
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
    assert_one_serves(result)
    one, base = result.metrics["one"], result.metrics["base"]
    row = f"| one model | {one['auc']:.4f} | {one['logloss']:.4f} | {one['parameters']:,} | "
    row += f"{one['auc'] - base['auc']:+.4f} |"
    assert row in (result.workdir / "report.md").read_text()


def test_without_room_one_model_serves_all(planted, tmp_path, caplog):
    """A network of the small table's size is more than a quarter more memory."""
    retrain = dataclasses.replace(CONFIG.retrain, groups=None)
    config = dataclasses.replace(CONFIG, retrain=retrain, model=ModelConfig(dim=4, hidden=(64, 32)))
    with caplog.at_level("INFO", "ihas_jax"):
        result = fit(config, planted(opposite=True), tmp_path / "run")
    assert "would take more than a quarter more memory" in caplog.text
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
def test_wrong_choices_name_their_flag(planted, retrain, words, tmp_path):
    config = dataclasses.replace(CONFIG, retrain=dataclasses.replace(CONFIG.retrain, **retrain))
    with pytest.raises(InputError, match=words):
        fit(config, planted(opposite=True), tmp_path / "run")


@pytest.mark.parametrize("number", [1, 9])
def test_the_number_of_groups_is_bounded(number):
    with pytest.raises(InputError, match=r"--retrain.groups must be 2 to 8"):
        dataclasses.replace(CONFIG, retrain=RetrainConfig(groups=number))
