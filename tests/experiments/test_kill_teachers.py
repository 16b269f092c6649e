"""Teachers killed in their training and while their predictions are written, and resumed."""

from __future__ import annotations

import re
import signal

import numpy as np
import pytest

FLAGS = (
    *("--method", "none", "--retrain.teachers", "gdcn", "dnn"),
    *("--retrain.teacher-folds", 2, "--train.max-epochs", 3),
)


def writes(run, teacher, split):
    """Whether a teacher has begun a file, of training rows with what a fold predicts."""
    path = run.path / "teach" / f".{teacher}.{split}.npy.partial"
    if split == "test":
        return path.exists()
    try:
        return bool(np.load(path, mmap_mode="r").any())
    except (OSError, ValueError, EOFError):  # there is no file, or not all of its header yet
        return False


ENDS = {
    "gdcn trained": lambda run: run.in_epoch("teach/gdcn_0/fold_1", 1),
    "gdcn asked for training rows": lambda run: writes(run, "gdcn_0", "train"),
    "gdcn asked for test rows": lambda run: writes(run, "gdcn_0", "test"),
    "dnn trained": lambda run: run.in_epoch("teach/dnn_0/fold_0", 1),
    "dnn asked for training rows": lambda run: writes(run, "dnn_0", "train"),
}


@pytest.fixture(scope="module")
def taught(command, written):
    """A run that was killed at each of `ENDS`, one in one go, and what the first one's said."""
    run, whole = (command.folder / name for name in ("taught", "taught_at_once"))
    said = {name: command.ended(there, *FLAGS, output=run) for name, there in ENDS.items()}
    said["end"] = command(*FLAGS, output=run)
    assert command.inside(*FLAGS, output=whole).returncode == 0
    return written(run), written(whole), said


def test_teachers_resume_after_kill_9_bit_for_bit(taught, assert_equal_trees):
    ours, theirs, _ = taught
    for name in ("gdcn_0", "dnn_0"):
        for split in ("train", "test"):
            file = f"teach/{name}.{split}.npy"
            np.testing.assert_array_equal(np.load(ours.path / file), np.load(theirs.path / file))
    assert ours.metrics() == theirs.metrics()
    assert_equal_trees(ours.served(), theirs.served())


def test_only_what_is_missing_is_done_again(taught):
    *_, said = taught
    assert {said[name].returncode for name in ENDS} == {-signal.SIGKILL}
    assert said["end"].returncode == 0, said["end"].stderr
    later = said["gdcn asked for training rows"].stdout
    assert "[teach/gdcn_0/fold_1] resumes at epoch" in later
    assert "[teach/gdcn_0/fold_0] epoch" not in later
    later = said["dnn asked for training rows"].stdout
    assert "[teach/dnn_0/fold_0] resumes at epoch" in later
    assert "[teach/gdcn_0" not in later  # its predictions are there
    # trained once, and not again for a kill among the predictions
    for name in ("gdcn asked for test rows", "end"):
        assert not re.search(r"\[teach/gdcn_0/fold_.\] epoch", said[name].stdout)
    assert "[teach/" not in said["end"].stdout


def test_nothing_half_written_is_left(taught):
    ours, theirs, _ = taught
    names = [{path.name for path in (run.path / "teach").iterdir()} for run in (ours, theirs)]
    assert names[0] == names[1]
