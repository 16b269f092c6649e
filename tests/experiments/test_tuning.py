"""The trials of methods before the seeds of Table 2."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from ihas_jax.config import Config, RetrainConfig


@pytest.fixture
def tried(script, monkeypatch):
    """The configs that are tried for a method under some flags; the last one has the best score."""
    tuning = script("tuning")
    data = SimpleNamespace(schema=SimpleNamespace(names=("a", "b", "c", "d")))

    def trials(method, count, **flags):
        config, seen = Config(method=method, **flags), {}

        def score(trial, data, place):
            seen[place.name] = dataclasses.replace(trial, seed=0)
            return float(len(seen))

        monkeypatch.setattr(tuning, "validation_score", score)
        best = tuning.best_of(config, data, Path("trials"), count)
        assert best == [config, *seen.values()][-1]
        return seen

    return trials


@pytest.mark.parametrize("method", ["uniform", "random", "pep", "spectral", "autofield"])
def test_under_a_budget_trials_leave_out_how_much_to_keep(tried, method):
    found = tried(method, 6, budget=0.25)
    assert len(found) == len({*found.values()}) == 6
    for config in found.values():
        for options in config.options:
            default = type(options)()
            for name in ("kept", "fields", "dim"):
                assert getattr(options, name, None) == getattr(default, name, None)
    free = [config.options for config in tried(method, 6).values()]
    assert any(
        getattr(o, name, None) != getattr(type(o)(), name, None)
        for options in free for o in options for name in ("kept", "fields", "dim")
    )  # fmt: skip


def test_no_config_is_tried_twice(tried):
    """Three learning rates and four weights of L2 are twelve configs, one of them the default."""
    for flags in ({}, {"retrain": RetrainConfig(teachers=("lr",))}):
        found = tried("none", 30, **flags)
        assert len(found) == len({*found.values()}) == 12
    assert next(iter(found)) == "none_0" and found["none_0"] == Config(method="none", **flags)
    assert tried("pep", 1) == tried("pep", 0) == {}
