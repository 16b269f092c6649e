"""The test scores of the models of a run, and their table on the terminal."""

from __future__ import annotations

import math
from typing import Any

from ihas_jax.reporting.tables import Grid
from ihas_jax.selectors.registry import METHODS
from ihas_jax.training.metrics import auc_text


def titles() -> dict[str, str]:
    """The titles of the models of `metrics.json`: base, teachers, search, and the methods."""
    methods = {name: method.title for name, method in METHODS.items()}
    shared = {name: name for name in ("base", "teacher", "search", "student")}
    return {**shared, "none": "base", "one": "one model", **methods}


def closing_table(metrics: dict[str, Any]) -> Grid:
    """The table of test metrics and parameters of all scored models, for a terminal."""
    rows = score_rows(metrics)
    # an AUC that is not defined is a sentence, which may wrap
    texts = (0,) if all(math.isfinite(metrics[key]["auc"]) for key in _scored(metrics)) else (0, 1)
    headers = ("model", "AUC", "logloss", "parameters", versus(metrics))
    return Grid("Test split", headers, rows, texts)


def score_rows(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """The title, AUC, logloss, parameters and gain of all scored models."""
    return [(_name(metrics, key), *_cells(metrics, key)) for key in _scored(metrics)]


def versus(metrics: dict[str, Any]) -> str:
    """What the gains of `score_rows` are measured from."""
    return "vs base, clicks" if "teacher" in metrics else "vs base"


def _scored(metrics: dict[str, Any]) -> list[str]:
    """The names of the models that have scores."""
    return [key for key in titles() if key in metrics]


def _name(metrics: dict[str, Any], key: str) -> str:
    """The title of a model, with its click model where a run has two of them."""
    models = metrics.get("models", {})
    if key == "teacher":
        return f"teacher: {' '.join(metrics[key]['models'])}"
    name = "search (iHAS-1)" if key == "search" and "ihas" in metrics else titles()[key]
    return f"{name}, {models[key]}" if len(set(models.values())) > 1 else name


def _cells(metrics: dict[str, Any], key: str) -> list[str]:
    row, models = metrics[key], metrics.get("models", {})
    # a gain over another click model says nothing
    same = key == "teacher" or models.get(key) == models.get("base")
    difference = row["auc"] - metrics["base"]["auc"]
    gain = f"{difference:+.4f}" if same and key != "base" and math.isfinite(difference) else ""
    return [auc_text(row), f"{row['logloss']:.4f}", f"{row['parameters']:,}", gain]
