"""iHAS killed in every stage, and resumed."""

from __future__ import annotations

import json
import re
import signal

import pytest

TRAINED = ("base", "search/pretrain", "search", "retrain/cluster_0", "retrain/cluster_1")
# in the order of a run: where it is ended, by what
ENDS = {
    "base, Ctrl-C": (lambda run: run.in_epoch("base", 0), signal.SIGINT),
    "base": (lambda run: run.in_epoch("base", 1), signal.SIGKILL),
    "search/pretrain": (lambda run: run.in_epoch("search/pretrain", 1), signal.SIGKILL),
    "search": (lambda run: run.in_epoch("search", 1), signal.SIGKILL),
    "choose": (lambda run: run.begins("choose"), signal.SIGKILL),
    "retrain": (lambda run: run.in_epoch("retrain/cluster_1", 1), signal.SIGKILL),
    "evaluate": (lambda run: in_evaluate(run.path), signal.SIGKILL),
}


def in_evaluate(run):
    return (run / "bundle").exists() and not (run / "metrics.json").exists()


@pytest.fixture(scope="module")
def ended(command):
    """A run that was ended in every stage and resumed each time; what each process said."""
    run = command.folder / "ended"
    said = {name: command.ended(there, output=run, by=by) for name, (there, by) in ENDS.items()}
    return run, said | {"end": command(output=run)}


@pytest.fixture(scope="module")
def both(ended, finished, written):
    """What the run that was ended has written, and what the run in one go."""
    return written(ended[0]), written(finished[0])


@pytest.mark.parametrize("name", [name for name in ENDS if "Ctrl-C" not in name])
def test_kill_9_inside_a_stage(ended, name):
    names = [*ended[1]]
    process, later = (ended[1][names[names.index(name) + i]] for i in range(2))
    assert process.returncode == -signal.SIGKILL
    if name in ("choose", "evaluate"):
        assert f"[{name}] starts" in process.stdout
        assert f"[{name}] starts" in later.stdout
    else:
        training = name if name != "retrain" else "retrain/cluster_1"
        assert f"[{training}] resumes at epoch" in later.stdout


def test_ctrl_c_says_in_one_line_how_to_go_on(ended):
    process = ended[1]["base, Ctrl-C"]
    assert process.returncode == 130
    assert process.stderr == "interrupted: run the same command again to resume\n"
    assert "[base] resumes at epoch 0, round " in ended[1]["base"].stdout


def test_the_last_process_ends_well(ended):
    assert ended[1]["end"].returncode == 0, ended[1]["end"].stderr


def test_no_checkpoint_counts_as_damaged(ended):
    said = [process.stdout for process in ended[1].values()]
    assert not [line for text in said for line in text.splitlines() if "damaged" in line]


def test_what_was_clustered_is_not_clustered_again(ended):
    said = {name: process.stdout for name, process in ended[1].items()}
    clustered = {name for name, text in said.items() if re.search(r"\[choose\] [\d,]+ rows", text)}
    # a line for each pass over the rows; the first of both may be killed before its first
    assert clustered in ({"choose", "retrain"}, {"retrain"})


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
@pytest.mark.parametrize("stage", TRAINED)
def test_resumed_training_equals_the_uninterrupted_one_bit_for_bit(both, assert_equal_trees, stage):
    ours, theirs = (run.facts(stage) for run in both)
    assert ours.pop("seconds") > 0
    assert theirs.pop("seconds") > 0
    assert ours == theirs
    assert ours["finished"]
    assert len(ours["history"]) > 1
    for item in ("params", "state", "best"):
        assert_equal_trees(*(run.item(stage, item) for run in both))


def test_the_bundle_is_equal_bit_for_bit(both, assert_equal_trees):
    assert_equal_trees(*(run.served() for run in both))


def test_the_metrics_are_equal_apart_from_seconds(both):
    ours, theirs = (run.metrics() for run in both)
    assert ours == theirs


def test_the_log_stays_readable(ended):
    events = [json.loads(line) for line in (ended[0] / "log.jsonl").read_text().splitlines()]
    resumed = [event["stage"] for event in events if event["event"] == "resume"]
    assert resumed == ["base", "base", "search/pretrain", "search", "retrain/cluster_1"]
