"""The command that compresses a log's click model, as a user starts it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import sys

import pytest

from ihas_jax.errors import InputError
from ihas_jax.serving.storage import load_bundle

FLAGS = (
    *("--model.dim", 4, "--model.hidden", 8, 4, "--optimizer.learning-rate", 0.02),
    *("--train.batch-size", 100, "--train.max-epochs", 1, "--train.finish", 0.2),
    *("--teachers", "lr", "--students", "--l2", 1e-5, "--budget", 0.5, "--teacher-seeds", 1),
)


@pytest.fixture(scope="module")
def compression(command):
    """The command, with the flags of a tiny compression."""
    return dataclasses.replace(command, script="compress.py", tiny=FLAGS)


@pytest.fixture(scope="module")
def compressed(compression):
    """A compression in one go, and what it said."""
    output = compression.folder / "compressed"
    done = compression(output=output)
    assert done.returncode == 0, done.stderr
    return output, done


def untimed(content):
    """Content of metrics.json without what a clock measures, and what follows from that."""
    if isinstance(content, dict):
        return {k: untimed(v) for k, v in content.items() if k not in ("microseconds", "front")}
    return [untimed(one) for one in content] if isinstance(content, list) else content


def metrics_of(output):
    return json.loads((output / "metrics.json").read_text())


def test_a_compression_leaves_numbers_report_figure_and_bundle(compressed):
    output, done = compressed
    metrics = metrics_of(output)
    for entry in ("base", "chosen"):
        assert {"auc", "logloss", "parameters"} <= set(metrics[entry])
    assert metrics["front"]
    for facts in metrics["front"]:
        assert {"name", "budget", "microseconds"} <= set(facts)
    for name in ("report.md", "figures/front.png", "bundle/bundle.json"):
        assert (output / name).is_file()
    assert " of 10" in done.stdout
    assert "(chosen)" in " ".join(done.stdout.split())


STAGES = (
    *("pool/lr_1e-05/base", "teach/*.npy", "students/*/spectral_search/search"),
    *("students/*/spectral_0.5/retrain", "students/*/uniform_0.5/retrain", "bundle/bundle.json"),
)


@pytest.mark.parametrize(("places", "workers"), [(STAGES, 1), (STAGES[:1], 2)])
def test_a_killed_compression_resumes(
    compression, compressed, written, assert_equal_trees, places, workers, tmp_path
):
    output = tmp_path / "killed"
    flags = "--workers", workers
    for place in places:
        found = compression.ended(
            lambda run, place=place: any(run.path.glob(place)), *flags, output=output
        )
        assert found.returncode == -signal.SIGKILL
        assert place == STAGES[-1] or not (output / "metrics.json").exists()
    done = compression(*flags, output=output)
    assert done.returncode == 0, done.stderr
    assert untimed(metrics_of(output)) == untimed(metrics_of(compressed[0]))
    assert_equal_trees(written(output).served(), written(compressed[0]).served())


@pytest.fixture(scope="module")
def base_run(command):
    """A finished run of the click model alone."""
    output = command.folder / "base_run"
    done = command("--method", "none", "--train.max-epochs", 4, output=output)
    assert done.returncode == 0, done.stderr
    return output


def cut(compression, run, *flags):
    return compression.inside(
        "--run", run, "--data", compression.folder / "store", "--budget", 1, 0.5, 0.25, *flags
    )


def test_a_finished_run_is_cut_without_training(compression, base_run, tmp_path):
    before = {path: path.read_bytes() for path in base_run.rglob("*") if path.is_file()}
    done = cut(compression, base_run, "--output", tmp_path / "cut", "--tolerance", 0.02)
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path / "cut")
    names = [facts["name"] for facts in metrics["candidates"]]
    assert names == ["base", "100 %", "50 %", "25 %"]
    base, whole, *_ = metrics["candidates"]
    assert whole["valid_auc"] == pytest.approx(base["valid_auc"], abs=1e-5)
    assert whole["rise"] == pytest.approx(0, abs=1e-9)
    said = " ".join(done.stdout.split())
    assert "rise predicted" in said and "rise measured" in said
    bundle = load_bundle(tmp_path / "cut")
    assert bundle.parameters == metrics["chosen"]["parameters"]
    assert {path: path.read_bytes() for path in base_run.rglob("*") if path.is_file()} == before
    again = cut(compression, base_run, "--output", tmp_path / "cut", "--tolerance", 0.02)
    assert again.returncode == 0
    assert untimed(metrics_of(tmp_path / "cut")) == untimed(metrics)
    other = cut(compression, base_run, "--output", base_run)
    assert other.returncode and "holds a run, not a cut" in other.stderr


@pytest.fixture(scope="module")
def trained_on(compression, base_run):
    """The sizes of a finished run, trained on in one go."""
    output = compression.folder / "trained_on"
    cutting = dataclasses.replace(compression, tiny=())
    done = cutting(*trained_flags(compression, base_run), output=output)
    assert done.returncode == 0, done.stderr
    return output


def trained_flags(compression, run):
    store = compression.folder / "store"
    return "--run", run, "--data", store, "--budget", 0.5, 0.25, "--retrain", "--tolerance", 0.02


def test_sizes_of_a_run_are_trained_on_from_the_cut(compression, base_run, trained_on):
    """The cut is a candidate of early stopping, so its validation score is a lower bound."""
    metrics = metrics_of(trained_on)
    plain = compression.folder / "plain_cut"
    assert cut(compression, base_run, "--output", plain).returncode == 0
    before = {facts["name"]: facts for facts in metrics_of(plain)["candidates"]}
    for facts in metrics["candidates"][1:]:
        start = before[facts["name"]]
        assert facts["parameters"] == start["parameters"]
        assert facts["valid_auc"] >= start["valid_auc"] - 1e-6
        assert (facts["worth"], facts["rise"]) == (start["worth"], start["rise"])
    assert any(f["auc"] != before[f["name"]]["auc"] for f in metrics["candidates"][1:])
    assert load_bundle(trained_on).parameters == metrics["chosen"]["parameters"]


def test_a_killed_training_of_sizes_resumes(
    compression, base_run, trained_on, written, assert_equal_trees, tmp_path
):
    output, flags = tmp_path / "killed", trained_flags(compression, base_run)
    place = "sizes/0.25/retrain"
    cutting = dataclasses.replace(compression, tiny=())
    cutting.ended(lambda run: (run.path / place).exists(), *flags, output=output)
    resumed = cutting(*flags, output=output)
    assert resumed.returncode == 0, resumed.stderr
    assert untimed(metrics_of(output)) == untimed(metrics_of(trained_on))
    assert_equal_trees(written(output).served(), written(trained_on).served())


def test_sizes_learn_what_their_run_has_learnt(compression, command, tmp_path):
    run = command.folder / "taught_run"
    flags = ("--method", "none", "--train.max-epochs", 2, "--retrain.teachers", "lr")
    assert command(*flags, output=run).returncode == 0
    done = cut(compression, run, "--retrain", "--output", tmp_path / "cut")
    assert done.returncode == 0, done.stderr
    assert "each size learns what the teachers say: lr_0" in done.stdout
    shutil.copytree(run / "bundle", tmp_path / "bundle")
    alone = cut(compression, tmp_path / "bundle", "--retrain", "--output", tmp_path / "alone")
    assert alone.returncode and "what the teachers lr_0 say" in alone.stderr


def test_training_needs_a_run_and_a_folder(compression, base_run):
    done = cut(compression, base_run, "--retrain")
    assert done.returncode and "Name it as --output" in done.stderr
    done = compression.inside("--retrain")
    assert done.returncode and "Name the run as --run" in done.stderr


def test_what_can_not_be_cut_is_refused(compression, finished, base_run, tmp_path):
    done = cut(compression, finished[0])
    assert done.returncode and "run with --method none" in done.stderr
    done = cut(compression, base_run, "--data", compression.folder / "other")
    assert done.returncode and "Pass the --data of that run" in done.stderr
    done = cut(compression, tmp_path)
    assert done.returncode and "holds no complete bundle" in done.stderr


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--students", "fm"),
        ("--workers", 2),
        ("--selections", "uniform"),
        ("--train.max-epochs", 2),
        ("--model", "fm"),
        ("--seed", 1),
        ("--preset", "paper"),
    ],
)
def test_flags_that_a_cut_does_not_read_are_refused(script, flag, value, monkeypatch):
    module = script("compress")
    monkeypatch.setattr(sys, "argv", ["compress.py", "--run", "runs/a", flag, str(value)])
    with pytest.raises(InputError, match=f"{flag} would have no effect"):
        module.main()


@pytest.mark.parametrize(
    "flags", [("--method", "pep"), ("--search.rotate",), ("--spectral.steps=0.5",)]
)
def test_flags_of_methods_are_refused_with_the_script_that_has_them(compression, flags):
    done = compression.inside(*flags)
    name = flags[0].split("=")[0]
    assert done.returncode and f"compress.py has no {name}: it chooses" in done.stderr
    assert "experiments/run.py" in done.stderr


def test_help_has_what_compression_reads_alone(compression):
    done = compression.inside("--help")
    assert "--tolerance" in done.stdout and "--model.dim" in done.stdout
    for flag in ("--method {", "--budget {", "--search.", "--retrain.", "--gates.", "--spectral."):
        assert flag not in done.stdout
