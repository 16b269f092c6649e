"""The job without flags: the published method, and beside it the recipe that we recommend."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ihas_jax.presets import preset

PUBLISHED = {"base": (0.81, 100), "ihas": (0.80, 80), "method": "ihas"}
RECOMMENDED = {"base": (0.82, 100), "spectral": (0.83, 10), "method": "spectral"}


def metrics_of(facts):
    """Content of metrics.json with the given AUC and parameters."""
    made = {
        name: {"auc": value[0], "logloss": 0.4, "parameters": value[1]}
        for name, value in facts.items()
        if name != "method"
    }
    return made | {"method": facts["method"], "models": dict.fromkeys(made, "dnn")}


@pytest.fixture
def started(script, monkeypatch, tmp_path):
    """`started(*flags)`: the runs that the script starts by some flags, as config and folder."""
    run = script("run")

    def start(*flags):
        calls = []

        def fit(config, data, output, *stage, **options):
            calls.append((config, output))
            facts = PUBLISHED if config.method == "ihas" else RECOMMENDED
            return SimpleNamespace(metrics=metrics_of(facts), missing=(), workdir=output)

        monkeypatch.setattr(run, "fit", fit)
        monkeypatch.setattr(run, "synthetic", lambda: None)
        monkeypatch.setattr(sys, "argv", ["run.py", *map(str, flags)])
        monkeypatch.chdir(tmp_path)
        run.main()
        return calls

    return start


def test_without_flags_both_run_and_stand_side_by_side(started, script, monkeypatch):
    shown = []
    monkeypatch.setattr(script("run"), "show", shown.append)
    runs = Path("runs")
    assert started() == [
        (preset("small"), runs / "synthetic"),
        (preset("compact"), runs / "synthetic_compact"),
    ]
    (grid,) = shown
    assert [row and (row[0], row[1], row[-1]) for row in grid.rows] == [
        ("base", "0.8100", ""),
        ("iHAS", "0.8000", "-0.0100"),
        None,
        ("base", "0.8200", ""),
        ("Spectral", "0.8300", "+0.0100"),
    ]


@pytest.mark.parametrize("flags", [("--seed", 1), ("--output", "mine"), ("--preset", "compact")])
def test_with_a_flag_only_what_is_asked_for_runs(started, flags):
    assert len(started(*flags)) == 1
