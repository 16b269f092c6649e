"""Trainings of several seeds: each has its own label, state and event log."""

from __future__ import annotations

import dataclasses

import pytest

from ihas_jax.stages import base
from ihas_jax.stages.run import Run


@pytest.mark.parametrize("number", [1, 2])
def test_every_seed_has_its_own_label_and_log(tiny, small, tmp_path, monkeypatch, number):
    monkeypatch.setattr(base, "train_to_finish", lambda *given: given)
    runs = [
        Run(dataclasses.replace(tiny.config, seed=seed), small, tmp_path / str(seed))
        for seed in range(5, 5 + number)
    ]
    tasks = [base.model_task(run, "base", run.model) for run in runs]
    found, states, events = base.train_runs(runs, tasks, ["a", "b"][:number])
    assert [task.label for task in found] == [[""], ["seed 5", "seed 6"]][number - 1]
    assert [task.directory for task in found] == [run.workdir / "base" for run in runs]
    assert states == ["a", "b"][:number]
    for run, event in zip(runs, events, strict=True):
        run.workdir.mkdir()
        event("epoch", {})
        assert (run.workdir / "log.jsonl").read_text().count("epoch") == 1
