"""Compression from the trials of the base model to the bundle of the smallest good one."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from ihas_jax.config import Config, ModelConfig, OptimizerConfig, TrainConfig
from ihas_jax.config.compress import CompressConfig
from ihas_jax.errors import InputError
from ihas_jax.pipeline import compress as module
from ihas_jax.pipeline import cut_source, cuts
from ihas_jax.pipeline.about import read_about
from ihas_jax.pipeline.compress import compress
from ihas_jax.pipeline.fit import fit
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages.candidates import choose
from ihas_jax.stages.cut import cut
from ihas_jax.stages.lessons import read_lessons
from ihas_jax.training.metrics import score

PLAIN = Config(
    method="spectral",
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=2, checkpoint_seconds=0),
)
CHOICES = CompressConfig(
    tolerance=0.001,
    budget=(1.0, 0.5),
    teachers=("lr",),
    students=("dcnv2",),
    student_dim=2,
    student_rank=1,
    l2=(1e-5,),
)


def untimed(content):
    """Content of metrics.json without what is measured by a clock."""
    if isinstance(content, dict):
        return {k: untimed(v) for k, v in content.items() if k not in ("microseconds", "front")}
    return [untimed(one) for one in content] if isinstance(content, list) else content


@pytest.fixture(scope="module")
def done(log, tmp_path_factory):
    return compress(PLAIN, CHOICES, log, tmp_path_factory.mktemp("compress") / "run")


def test_every_candidate_is_scored_and_the_choice_follows_from_the_scores(done):
    metrics = done.metrics
    names = [facts["name"] for facts in metrics["candidates"]]
    lr = {m["name"]: m["valid_auc"] for m in metrics["pool"] if m["name"].startswith("lr")}
    small = max(lr, key=lr.__getitem__)
    assert names == [
        "base",
        f"{small} on clicks",  # no others of the pool are smaller than the base
        *(f"dnn, {s}, {b} %" for s in ("spectral", "uniform") for b in (100, 50)),
        *(f"dcnv2, {s}, 50 %" for s in ("spectral", "uniform")),
    ]
    students = [facts["name"].removesuffix(", batch norm") for facts in metrics["students"]]
    assert students == ["dnn, D = 4", "dcnv2, D = 2"]
    best = max(facts["valid_auc"] for facts in metrics["candidates"])
    behind = {f["name"]: 0.001 + f["valid_doubt"] for f in metrics["candidates"]}
    good = [f for f in metrics["candidates"] if f["valid_auc"] >= best - behind[f["name"]]]
    assert metrics["chosen"]["parameters"] == min(facts["parameters"] for facts in good)
    assert metrics["base"]["trial"].startswith("dnn_1e-05")
    for facts in metrics["candidates"]:
        assert {"auc", "logloss", "parameters", "bytes", "microseconds", "budget"} <= set(facts)
    trials = [member["name"] for member in metrics["pool"]]
    assert {"dnn_1e-05", "dnn_1e-05_norm", "dnn_1e-05_dropout_0.2", "lr_1e-05"} <= set(trials)
    assert set(metrics["teachers"]) <= set(trials)
    assert all(facts in metrics["candidates"] for facts in metrics["front"])


def test_the_base_is_the_best_trial(done):
    trials = {m["name"]: m["valid_auc"] for m in done.metrics["pool"]}
    own = [n for n in trials if n.startswith("dnn") and not n.endswith("_1")]
    assert done.metrics["base"]["trial"] == max(own, key=trials.__getitem__)
    assert done.metrics["base"]["valid_auc"] == max(trials[name] for name in own)


def test_the_bundle_is_the_chosen_model(done, log):
    bundle, chosen = load_bundle(done.workdir), done.metrics["chosen"]
    found = score(log.test.labels, bundle.predict_ids(log.test.ids))
    assert found.auc == pytest.approx(chosen["auc"], abs=1e-6)
    assert found.logloss == pytest.approx(chosen["logloss"], abs=1e-6)
    assert bundle.parameters == chosen["parameters"]


def test_a_smaller_model_of_the_pool_may_be_chosen(done, log, tmp_path):
    """Any model is good enough at a tolerance of 1, and an LR is the smallest."""
    shutil.copytree(done.workdir, tmp_path / "run")
    found = compress(PLAIN, dataclasses.replace(CHOICES, tolerance=1.0), log, tmp_path / "run")
    chosen, pool = found.metrics["chosen"], {m["name"]: m for m in found.metrics["pool"]}
    assert chosen["name"].startswith("lr_1e-05") and chosen["name"].endswith(" on clicks")
    assert chosen["valid_auc"] == pool[chosen["name"].removesuffix(" on clicks")]["valid_auc"]
    bundle = load_bundle(found.workdir)
    assert bundle.parameters == chosen["parameters"] == sum(log.schema.sizes) + 1


def test_a_base_that_is_kept_can_be_cut_later(done, log, tmp_path, monkeypatch):
    """Its bundle knows how the training rows use its table."""
    shutil.copytree(done.workdir, tmp_path / "run")
    monkeypatch.setattr("ihas_jax.pipeline.compression.choose", lambda *of: 0 * choose(*of))
    other = dataclasses.replace(CHOICES, tolerance=0.002)
    found = compress(PLAIN, other, log, tmp_path / "run")
    assert found.metrics["chosen"]["name"] == "base"
    bundle = load_bundle(found.workdir)
    assert cut(bundle, 0.5).parameters < bundle.parameters


@pytest.mark.parametrize("name", ["base", "dnn, spectral, 100 %"])
def test_a_chosen_model_is_trained_on_from_what_it_has_learnt(
    done, log, tmp_path, monkeypatch, caplog, name
):
    """The base has learnt from clicks, and a student of full size from the teachers."""
    shutil.copytree(done.workdir, tmp_path / "run")
    names = [facts["name"] for facts in done.metrics["candidates"]]
    monkeypatch.setattr("ihas_jax.pipeline.compression.choose", lambda *of: names.index(name))
    other = dataclasses.replace(CHOICES, tolerance=0.003)
    found = compress(PLAIN, other, log, tmp_path / "run")
    assert found.metrics["chosen"]["name"] == name
    learnt = []

    def read(run, teachers):
        learnt.append(teachers)
        return read_lessons(run, teachers)

    monkeypatch.setattr(cut_source, "read_lessons", read)
    half = dataclasses.replace(CHOICES, budget=(0.5,))
    cuts.cut_run(tmp_path / "run", log, half, tmp_path / "cut", retrain=True)
    assert learnt == ([] if name == "base" else [done.metrics["teachers"]])
    # a bundle alone knows nothing of teachers
    shutil.copytree(tmp_path / "run" / "bundle", tmp_path / "alone" / "bundle")
    with caplog.at_level("INFO", "ihas_jax"):
        cuts.cut_run(tmp_path / "alone", log, half, tmp_path / "cut_alone", retrain=True)
    assert "the bundle is without its run, so each size learns from clicks" in caplog.text
    if name != "base":
        with pytest.raises(InputError, match=r"holds cuts that have learnt from other labels"):
            cuts.cut_run(tmp_path / "alone", log, half, tmp_path / "cut", retrain=True)
    (tmp_path / "run" / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"no metrics.json, which says what .* compress.py"):
        cuts.cut_run(tmp_path / "run", log, half, tmp_path / "cut", retrain=True)


def test_a_budget_of_everything_keeps_what_the_full_size_has(done):
    found = {facts["name"]: facts for facts in done.metrics["candidates"]}
    full, whole = done.metrics["students"][0], found["dnn, spectral, 100 %"]
    assert whole["parameters"] == full["parameters"]
    # the start of its training is the turned full-size model, and a candidate
    assert whole["valid_auc"] >= full["valid_auc"] - 1e-6


def test_shares_are_those_of_the_base_models_table(done, log):
    """Half of the base model's numbers are all numbers of a student of half its D."""
    found = {facts["name"]: facts for facts in done.metrics["candidates"]}
    whole = done.metrics["students"][1]
    assert found["dcnv2, spectral, 50 %"]["parameters"] == whole["parameters"]
    values = sum(log.schema.sizes)
    network = 2 * len(log.schema.names) * (8 + 3 * 2 + 3 + 1) + 8 + 8 * 4 + 4 + 4 + 1
    norm = 2 * (8 + 4) if whole["name"].endswith("batch norm") else 0
    assert whole["parameters"] == 2 * values + network + norm


def test_report_and_figure_answer_how_small_how_good_how_fast_how_sure(done):
    text = (done.workdir / "report.md").read_text()
    base, chosen = done.metrics["base"], done.metrics["chosen"]
    assert text.split("\n")[2].startswith(f"**{chosen['name']}** is, of 8 candidates, the ")
    assert f"| parameters | {base['parameters']:,} | {chosen['parameters']:,} |" in text
    assert f"| µs per row | {base['microseconds']:.2f} | {chosen['microseconds']:.2f} |" in text
    assert "95 % certainty" in text
    teacher = done.metrics["teacher"]
    assert f"| mean of the teachers | {teacher['parameters']:,} |" in text
    allowed = CHOICES.tolerance + chosen["valid_doubt"]
    assert f"{chosen['name']} is behind by " in text and f"where {allowed:.5f} are allowed" in text
    assert (done.workdir / "figures" / "front.png").stat().st_size > 10_000
    assert done.missing == ()


def test_the_mean_of_the_teachers_is_scored(done, log):
    """By hand, from what the teachers predict of the test rows."""
    found = [np.load(done.workdir / "teach" / f"{n}.test.npy") for n in done.metrics["teachers"]]
    expected = score(log.test.labels, np.mean(found, axis=0))
    assert done.metrics["teacher"]["auc"] == pytest.approx(expected.auc)
    assert done.metrics["teacher"]["logloss"] == pytest.approx(expected.logloss, rel=1e-5)


def test_metrics_describe_the_log(done, log):
    splits = zip(("training", "validation", "test"), (log.train, log.valid, log.test), strict=True)
    expected = {name: len(split.labels) for name, split in splits}
    rate, labels = log.train.labels.mean(), log.test.labels
    same = -np.log(np.where(labels == 1, rate, 1 - rate)).mean()
    shares = {"clicks": pytest.approx(rate), "logloss_of_rate": pytest.approx(same)}
    assert done.metrics["rows"] == expected | shares


def test_what_has_learnt_from_teachers_is_said(done):
    taught = {facts["name"]: facts["taught"] for facts in done.metrics["candidates"]}
    assert [name for name, own in taught.items() if not own] == list(taught)[:2]


def test_the_same_call_reads_everything_back(done, log, monkeypatch):
    def fail(*args):
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "Compression", fail)
    again = compress(PLAIN, CHOICES, log, done.workdir)
    assert again.metrics == json.loads((done.workdir / "metrics.json").read_text()) == done.metrics


def test_a_killed_compression_ends_with_the_same_numbers(done, log, tmp_path, monkeypatch):
    """Stopped at every second step, and once in the middle of a training."""
    steps = [0]

    def kill(run, kind, facts):
        if kind == "step":
            steps[0] += 1
            if steps[0] % 2 == 0 and steps[0] < 40:
                raise KeyboardInterrupt

    monkeypatch.setattr(module.Run, "event", kill)
    for _ in range(40):
        try:
            found = compress(PLAIN, CHOICES, log, tmp_path / "run")
            break
        except KeyboardInterrupt:
            steps[0] += 1
    assert untimed(found.metrics) == untimed(done.metrics)
    first, second = load_bundle(found.workdir), load_bundle(done.workdir)
    jax.tree.map(
        np.testing.assert_array_equal, first.models[0].variables, second.models[0].variables
    )


def test_trainings_beside_each_other_have_the_same_numbers(done, log, tmp_path):
    found = compress(PLAIN, CHOICES, log, tmp_path / "run", workers=2)
    assert untimed(found.metrics) == untimed(done.metrics)
    first, second = load_bundle(found.workdir), load_bundle(done.workdir)
    jax.tree.map(
        np.testing.assert_array_equal, first.models[0].variables, second.models[0].variables
    )


def test_another_budget_follows_in_the_same_folder(done, log):
    more = dataclasses.replace(CHOICES, budget=(0.5, 0.25), students=())
    found = compress(PLAIN, more, log, done.workdir)
    old = {facts["name"]: facts["auc"] for facts in done.metrics["candidates"]}
    new = {facts["name"]: facts["auc"] for facts in found.metrics["candidates"]}
    assert "dnn, spectral, 25 %" in new and "dcnv2, uniform, 50 %" not in new
    assert all(new[name] == old[name] for name in new if name in old)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teachers": ("fm",)}, r"other --teachers \(lr there, fm here\)"),
        ({"l2": (1e-4,)}, "other --l2"),
        ({"teacher_seeds": 1}, "other --teacher-seeds"),
    ],
)
def test_what_students_have_learnt_from_can_not_change(done, log, changes, words):
    with pytest.raises(InputError, match=words):
        compress(PLAIN, dataclasses.replace(CHOICES, **changes), log, done.workdir)


def test_students_of_unknown_teachers_are_refused(done, log, tmp_path):
    shutil.copytree(done.workdir, tmp_path / "run")
    (tmp_path / "run" / "compress.json").write_text("{")
    with pytest.raises(InputError, match=r"compress.json can't be read .* Choose another --output"):
        compress(PLAIN, CHOICES, log, tmp_path / "run")
    (tmp_path / "run" / "compress.json").unlink()
    with pytest.raises(InputError, match=r"has students, but no compress.json"):
        compress(PLAIN, dataclasses.replace(CHOICES, teachers=("fm",)), log, tmp_path / "run")


def test_a_run_does_not_take_over_a_compression(done, log):
    before = (done.workdir / "metrics.json").read_bytes()
    with pytest.raises(InputError, match=r"holds a compression, not a run"):
        fit(read_about(done.workdir).config, log, done.workdir)
    assert (done.workdir / "metrics.json").read_bytes() == before


def test_damaged_files_of_a_finished_compression_are_made_again(done, log, tmp_path, caplog):
    folder = tmp_path / "copy"
    shutil.copytree(done.workdir, folder)
    first = compress(PLAIN, CHOICES, log, folder)
    arrays = max((folder / "bundle").glob("arrays/*.npy"), key=lambda path: path.stat().st_size)
    arrays.write_bytes(bytes(reversed(arrays.read_bytes())))
    compress(PLAIN, CHOICES, log, folder)
    assert f"{folder.resolve() / 'bundle'} is damaged, and is made again." in caplog.text
    assert load_bundle(folder).parameters == first.metrics["chosen"]["parameters"]
    for name in ("bundle/bundle.json", f"teach/{first.metrics['teachers'][0]}.train.npy"):
        path = folder / name
        path.write_bytes(bytes(reversed(path.read_bytes())))
    shutil.rmtree(folder / "students")
    again = compress(PLAIN, CHOICES, log, folder)
    assert untimed(again.metrics) == untimed(first.metrics)
    assert load_bundle(folder).parameters == first.metrics["chosen"]["parameters"]
