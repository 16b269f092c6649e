"""The command that compresses a log's click model, as a user starts it."""

from __future__ import annotations

import dataclasses
import json

import pytest

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
    assert "step 1 of" in done.stdout and "left" in done.stdout
    assert "(chosen)" in " ".join(done.stdout.split())


PLACES = {
    "a teacher": "pool/lr_1e-05/base",
    "the student of full size": "students/dnn/spectral_search/search/finish_0",
    "a compact model": "students/dnn/uniform_0.5/retrain",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_compression_resumes(
    compression, compressed, written, assert_equal_trees, place, tmp_path
):
    output = tmp_path / "killed"
    compression.ended(lambda run: (run.path / PLACES[place]).exists(), output=output)
    assert not (output / "metrics.json").exists()
    done = compression(output=output)
    assert done.returncode == 0, done.stderr
    assert untimed(metrics_of(output)) == untimed(metrics_of(compressed[0]))
    assert_equal_trees(written(output).served(), written(compressed[0]).served())


def test_help_has_what_compression_reads_alone(compression):
    done = compression.inside("--help")
    assert "--tolerance" in done.stdout and "--model.dim" in done.stdout
    for flag in ("--method", "--search.", "--retrain.", "--gates.", "--spectral."):
        assert flag not in done.stdout
