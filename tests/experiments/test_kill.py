from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ihas_jax.serving.storage import load_bundle

DEADLINE = 240.0
TRAINED = ("base", "search/pretrain", "search", "retrain/cluster_0", "retrain/cluster_1")


def checkpoint_facts(folder: Path) -> dict | None:
    """Facts of the newest complete checkpoint."""
    numbers = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    try:
        newest = folder / str(max(numbers, default=0))
        return json.loads((newest / "facts" / "metadata").read_text())
    except (OSError, ValueError):
        return None


def in_epoch(stage: str, epoch: int) -> Callable[[Path], bool]:
    """Whether the newest checkpoint of a stage lies within that epoch, not at its end."""

    def inside(run: Path) -> bool:
        facts = checkpoint_facts(run / stage)
        return facts is not None and facts["epoch"] >= epoch and facts["round"] > 0

    return inside


def in_choose(run: Path) -> bool:
    log = (run / "log.jsonl").read_text().splitlines() if (run / "log.jsonl").exists() else [""]
    return '"stage": "choose", "state": "starts"' in log[-1]


def in_evaluate(run: Path) -> bool:
    return (run / "bundle").exists() and not (run / "metrics.json").exists()


# in the order of a run: where it is ended, by what
ENDS = {
    "base, Ctrl-C": (in_epoch("base", 0), signal.SIGINT),
    "base": (in_epoch("base", 1), signal.SIGKILL),
    "search/pretrain": (in_epoch("search/pretrain", 1), signal.SIGKILL),
    "search": (in_epoch("search", 1), signal.SIGKILL),
    "choose": (in_choose, signal.SIGKILL),
    "retrain": (in_epoch("retrain/cluster_1", 1), signal.SIGKILL),
    "evaluate": (in_evaluate, signal.SIGKILL),
}


def end_inside(process, run: Path, inside: Callable[[Path], bool], by: signal.Signals):
    """Ends a process while it is `inside`: stops it, looks again, and only then ends it.

    Returns its exit code and what it said, or None where it finished before.
    """
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None:
        assert time.monotonic() < deadline, "never got there"
        if not inside(run):
            time.sleep(0.001)
            continue
        process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            break
        there = inside(run)
        if there:
            process.send_signal(by)
        process.send_signal(signal.SIGCONT)
        if there:
            stdout, stderr = process.communicate(timeout=DEADLINE)
            return process.returncode, stdout, stderr
    process.communicate(timeout=DEADLINE)
    return None


@pytest.fixture(scope="module")
def ended(command):
    """A run that was ended in every stage and resumed each time; what each process said."""
    run, before = command.folder / "ended", command.folder / "before"
    said = {}
    for name, (inside, by) in ENDS.items():
        for _ in range(3):  # a stalled poll may miss a short stage
            shutil.rmtree(before, ignore_errors=True)
            if run.exists():
                shutil.copytree(run, before)
            process = command.start(output=run)
            try:
                said[name] = end_inside(process, run, inside, by)
            finally:
                process.kill()
                process.wait()
            if said[name] is not None:
                break
            shutil.rmtree(run)
            if before.exists():
                before.rename(run)
        assert said[name] is not None, f"{name}: the process always ended before the signal"
    said["end"] = command(output=run)
    return run, said


@pytest.mark.parametrize("name", [name for name in ENDS if "Ctrl-C" not in name])
def test_kill_9_inside_a_stage(ended, name):
    code, stdout, _ = ended[1][name]
    assert code == -signal.SIGKILL
    order = [*ENDS, "end"]
    after = ended[1][order[order.index(name) + 1]]
    later = after.stdout if order[order.index(name) + 1] == "end" else after[1]
    if name in ("choose", "evaluate"):
        assert f"[{name}] starts" in stdout
        assert f"[{name}] starts" in later
    else:
        assert f"[{name if name != 'retrain' else 'retrain/cluster_1'}] resumes at epoch" in later


def test_ctrl_c_says_in_one_line_how_to_go_on(ended):
    code, _, stderr = ended[1]["base, Ctrl-C"]
    assert code == 130
    assert stderr == "interrupted: run the same command again to resume\n"
    assert "[base] resumes at epoch 0, round " in ended[1]["base"][1]


def test_the_last_process_ends_well(ended):
    assert ended[1]["end"].returncode == 0, ended[1]["end"].stderr


def test_no_checkpoint_counts_as_damaged(ended):
    said = [ended[1][name][1] for name in ENDS] + [ended[1]["end"].stdout]
    assert not [line for text in said for line in text.splitlines() if "damaged" in line]


def test_what_was_clustered_is_not_clustered_again(ended):
    said = {name: ended[1][name][1] for name in ENDS} | {"end": ended[1]["end"].stdout}
    clustered = {name for name, text in said.items() if re.search(r"\[choose\] [\d,]+ rows", text)}
    # a line for each pass over the rows; the first of both may be killed before its first
    assert clustered in ({"choose", "retrain"}, {"retrain"})


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
@pytest.mark.parametrize("stage", TRAINED)
def test_resumed_training_equals_the_uninterrupted_one_bit_for_bit(ended, finished, stage):
    ours, theirs = (checkpoint_facts(run / stage) for run in (ended[0], finished[0]))
    assert ours.pop("seconds") > 0
    assert theirs.pop("seconds") > 0
    assert ours == theirs
    assert ours["finished"]
    assert len(ours["history"]) > 1
    for item in ("params", "state", "best"):
        a, b = (newest_item(run / stage, item) for run in (ended[0], finished[0]))
        assert_equal_trees(a, b)


def test_the_bundle_is_equal_bit_for_bit(ended, finished):
    ours, theirs = load_bundle(ended[0]), load_bundle(finished[0])
    assert ours.kept == theirs.kept
    assert ours.routes == theirs.routes
    for get in (
        lambda bundle: [served.variables for served in bundle.models],
        lambda bundle: (bundle.router.variables, bundle.router.centroids),
    ):
        assert_equal_trees(get(ours), get(theirs))


def test_the_metrics_are_equal_apart_from_seconds(ended, finished):
    ours, theirs = (
        json.loads((run / "metrics.json").read_text()) for run in (ended[0], finished[0])
    )
    assert list(ours.pop("seconds")) == list(theirs.pop("seconds"))
    assert ours == theirs


def test_the_log_stays_readable(ended):
    events = [json.loads(line) for line in (ended[0] / "log.jsonl").read_text().splitlines()]
    resumed = [event["stage"] for event in events if event["event"] == "resume"]
    assert resumed == ["base", "base", "search/pretrain", "search", "retrain/cluster_1"]


@pytest.fixture(scope="module")
def taught(command):
    """A run with two teachers that was killed in the training of each, and one in one go."""
    flags = ("--method", "none", "--retrain.teachers", "gdcn", "dnn", "--train.max-epochs", 3)
    run, said = command.folder / "taught", []
    for teacher in ("gdcn_0", "dnn_0"):
        process = command.start(*flags, output=run)
        try:
            said.append(end_inside(process, run, in_epoch(f"teach/{teacher}", 1), signal.SIGKILL))
        finally:
            process.kill()
            process.wait()
    said.append(command(*flags, output=run))
    whole = command.folder / "taught_at_once"
    assert command.inside(*flags, output=whole).returncode == 0
    return run, whole, said


def test_a_teacher_resumes_after_kill_9_bit_for_bit(taught):
    ours, theirs, (first, second, last) = taught
    assert first[0] == second[0] == -signal.SIGKILL and last.returncode == 0
    assert "[teach/gdcn_0] resumes at epoch" in second[1]
    assert "[teach/dnn_0] resumes at epoch" in last.stdout
    assert "[teach/gdcn_0] epoch" not in last.stdout  # its predictions are there
    for name in ("gdcn_0", "dnn_0"):
        for split in ("train", "test"):
            file = f"teach/{name}.{split}.npy"
            np.testing.assert_array_equal(np.load(ours / file), np.load(theirs / file))
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (ours, theirs)]
    for found in metrics:
        found.pop("seconds")
    assert metrics[0] == metrics[1]
    assert_equal_trees(*([m.variables for m in load_bundle(run).models] for run in (ours, theirs)))


def newest_item(folder: Path, item: str):
    newest = max(
        (path for path in folder.glob("*") if path.name.isdigit()), key=lambda p: int(p.name)
    )
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(newest / item)


def assert_equal_trees(a, b):
    def bits(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf)

    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert jax.tree.leaves(a)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(bits(x), bits(y)), a, b)
