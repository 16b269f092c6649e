"""The table of a compression: all models by size, with scores and times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ihas_jax.reporting.tables import Grid, markdown_table
from ihas_jax.training.metrics import auc_text

HEADERS = (
    *("model", "parameters", "smaller by", "MB", "µs per row"),
    *("test AUC", "test logloss", "validation AUC", "front"),
)
Facts = Mapping[str, Any]


def front_table(metrics: Facts) -> Grid:
    """The table of all candidates for a terminal."""
    return Grid("Compression", HEADERS, _rows(metrics, metrics["candidates"]))


def markdown_front(metrics: Facts) -> list[str]:
    """The lines of the table of all models: the base, what is no candidate, and other candidates.

    No candidates are the students before anything is cut, and the mean of the teachers.
    """
    base, *others = metrics["candidates"]
    found = [facts | {"name": f"{facts['name']}, not cut"} for facts in metrics["students"]]
    if metrics["teachers"]:
        found.append(metrics["teacher"] | {"name": "mean of the teachers"})
    found += sorted(others, key=lambda facts: -facts["parameters"])
    return markdown_table(HEADERS, _rows(metrics, [base, *found]))


def _rows(metrics: Facts, candidates: list[Facts]) -> list[list[str]]:
    front = {facts["name"] for facts in metrics["front"]}
    chosen, whole = metrics["chosen"]["name"], metrics["base"]["parameters"]
    return [
        [
            f"{facts['name']} (chosen)" if facts["name"] == chosen else facts["name"],
            f"{facts['parameters']:,}",
            _times(whole / facts["parameters"]),
            f"{facts['bytes'] / 1e6:.3f}",
            f"{facts['microseconds']:.2f}" if "microseconds" in facts else "",
            shown_auc(facts),
            f"{facts['logloss']:.4f}",
            shown_auc(facts, "valid_"),
            "yes" if facts["name"] in front else "",
        ]
        for facts in candidates
    ]


def _times(factor: float) -> str:
    return f"{factor:.1f}" if factor >= 1 else f"{factor:.2g}"


def shown_auc(facts: Facts, prefix: str = "") -> str:
    """The AUC of a model, or why there is none."""
    label = facts.get(f"{prefix}only_label", "0 or 1")
    return auc_text({"auc": facts[f"{prefix}auc"], "only_label": label})
