"""iHAS on principal axes killed around the rotation, and resumed."""

from __future__ import annotations

import signal

import pytest

FLAGS = (
    *("--search.rotate", "--gates.inputs", "unit", "--budget", 0.3, "--cluster.axes", "own"),
    *("--train.max-epochs", 3),
)


def has_axes(run):
    return (run.path / "search" / "axes.json").exists()


def is_turning(run):
    """Whether pretraining is finished and its axes are not found."""
    facts = run.facts("search/pretrain")
    return facts is not None and facts["finished"] and not has_axes(run)


ENDS = {
    "before the axes are found": is_turning,
    "before the search": lambda run: has_axes(run) and run.facts("search") is None,
    "in the search": lambda run: run.in_epoch("search", 1),
}


@pytest.fixture(scope="module")
def rotated(command, written):
    """A run that was killed at each of `ENDS`, one in one go, and what the first one's said."""
    run, whole = (command.folder / name for name in ("rotated", "rotated_at_once"))
    said = {name: command.ended(there, *FLAGS, output=run) for name, there in ENDS.items()}
    said["end"] = command(*FLAGS, output=run)
    assert command.inside(*FLAGS, output=whole).returncode == 0
    return written(run), written(whole), said


def test_axes_are_found_once(rotated):
    ours, theirs, said = rotated
    assert {said[name].returncode for name in ENDS} == {-signal.SIGKILL}
    assert said["end"].returncode == 0, said["end"].stderr
    assert "starts on principal axes" in said["before the search"].stdout
    for name in ("in the search", "end"):
        assert "starts on principal axes" not in said[name].stdout
    assert "[search] resumes at epoch" in said["end"].stdout
    axes = [(run.path / "search" / "axes.json").read_text() for run in (ours, theirs)]
    assert axes[0] == axes[1]


def test_what_comes_of_it_is_equal_bit_for_bit(rotated, assert_equal_trees):
    ours, theirs, _ = rotated
    assert ours.metrics() == theirs.metrics()
    assert_equal_trees(ours.served(), theirs.served())
