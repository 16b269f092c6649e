"""Networks of clusters and of groups over one table, killed where they train, and resumed."""

from __future__ import annotations

import dataclasses
import signal

import pytest

SPECTRAL = (
    *("--method", "spectral", "--budget", 0.5, "--spectral.steps", "--retrain.start", "shared"),
    *("--search.pretrain-epochs", 0),
)
CLUSTERS = (*SPECTRAL, "--spectral.clusters", 2)
# a network of little memory beside the table, so that there is room for a second one
GROUPS = (*SPECTRAL, "--retrain.group-by", "shared_0", "--model.hidden", 1, "--budget", 1)
KILLS = {
    "clusters": [
        lambda run: run.facts("retrain/cluster_0") is not None,
        lambda run: run.facts("retrain/cluster_1") is not None,
    ],
    "groups": [
        lambda run: (run.path / "retrain" / "groups_3" / "groups.json").exists(),
        lambda run: (run.path / "retrain" / "alone_1").exists(),
    ],
}


@pytest.fixture(scope="module", params=KILLS)
def killed(request, command, written):
    """A run that was killed twice, one in one go, and what the last process of the first said."""
    if request.param == "clusters":
        run_py, flags = command, CLUSTERS
    else:  # the usual flags are those of clusters
        run_py, flags = dataclasses.replace(command, tiny=command.tiny[:-2]), GROUPS
    run, whole = (command.folder / f"{request.param}_{name}" for name in ("killed", "whole"))
    for there in KILLS[request.param]:
        assert run_py.ended(there, *flags, output=run).returncode == -signal.SIGKILL
    last = run_py(*flags, output=run)
    done = run_py.inside(*flags, output=whole)
    assert (last.returncode, done.returncode) == (0, 0), last.stderr + done.stderr
    return written(run), written(whole), last.stdout


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_what_comes_of_kills_is_equal_bit_for_bit(killed, assert_equal_trees):
    ours, theirs, said = killed
    assert "[search] epoch" not in said and "[retrain" in said
    assert ours.metrics() == theirs.metrics()
    stages = sorted({f"retrain/{path.parts[-3]}" for path in theirs.path.glob("retrain/*/*/facts")})
    assert len(stages) > 1
    for stage in stages:
        assert ours.facts(stage) | {"seconds": 0} == theirs.facts(stage) | {"seconds": 0}
        assert_equal_trees(ours.item(stage, "best"), theirs.item(stage, "best"))
    for one in (ours, theirs):
        assert (one.path / "report.md").exists()
