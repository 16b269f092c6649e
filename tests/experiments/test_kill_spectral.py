"""The method spectral killed in its cuts and in its choice for clusters, and resumed."""

from __future__ import annotations

import signal

import pytest

FLAGS = (
    *("--method", "spectral", "--budget", 0.3, "--spectral.steps", 0.6, 0.45),
    *("--spectral.clusters", 2, "--search.pretrain-epochs", 0),
)
ENDS = {
    "search/cut_0": lambda run: run.in_epoch("search/cut_0", 1),
    "search/cut_1": lambda run: run.in_epoch("search/cut_1", 1),
    "choose": lambda run: run.begins("choose"),
}
TRAINED = ("search", "search/cut_0", "search/cut_1", "retrain/cluster_0", "retrain/cluster_1")


@pytest.fixture(scope="module")
def cut(command, written):
    """A run that was killed at each of `ENDS`, one in one go, and what the first one's said."""
    run, whole = (command.folder / name for name in ("cut", "cut_at_once"))
    said = {name: command.ended(there, *FLAGS, output=run) for name, there in ENDS.items()}
    said["end"] = command(*FLAGS, output=run)
    assert command.inside(*FLAGS, output=whole).returncode == 0
    return written(run), written(whole), said


def test_a_killed_stage_is_resumed(cut):
    *_, said = cut
    assert {said[name].returncode for name in ENDS} == {-signal.SIGKILL}
    assert said["end"].returncode == 0, said["end"].stderr
    assert "[search/cut_0] resumes at epoch" in said["search/cut_1"].stdout
    assert "[search/cut_1] resumes at epoch" in said["choose"].stdout
    for name in ("choose", "end"):
        assert "[choose] starts" in said[name].stdout
    assert "[search/cut_1] epoch" not in said["end"].stdout


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
@pytest.mark.parametrize("stage", TRAINED)
def test_resumed_training_equals_the_uninterrupted_one_bit_for_bit(cut, assert_equal_trees, stage):
    ours, theirs = (run.facts(stage) | {"seconds": 0} for run in cut[:2])
    assert ours == theirs
    assert ours["finished"]
    assert len(ours["history"]) > 1
    for item in ("params", "state", "best"):
        assert_equal_trees(*(run.item(stage, item) for run in cut[:2]))


def test_what_comes_of_it_is_equal_bit_for_bit(cut, assert_equal_trees):
    ours, theirs, _ = cut
    assert ours.metrics() == theirs.metrics()
    assert_equal_trees(ours.served(), theirs.served())
    assert len(ours.metrics()["clusters"]) == 2
