"""Candidates for the smallest good model, with their scores, size and speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ihas_jax.config.compress import CompressConfig
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.serving.bundle import Bundle
from ihas_jax.stages.speed import microseconds_per_row
from ihas_jax.stages.verdict import choose_smallest, doubts_of
from ihas_jax.training.metrics import Scores, score


@dataclass(frozen=True)
class Candidate:
    """A model that could be chosen.

    Attributes:
      name: what it is called.
      bundle: the model, ready to be served.
      budget: the share of its full-size table that it may keep; 1 for a model that is not cut.
      facts: its scores on validation and test rows, its size and its speed, as JSON; the speed
        comes by `add_speed`.
      probs: `[m]`, its click probabilities of the test rows.
      valid_probs: `[m]`, those of the validation rows.
    """

    name: str
    bundle: Bundle
    budget: float
    facts: dict[str, Any]
    probs: np.ndarray
    valid_probs: np.ndarray


def measure(name: str, bundle: Bundle, budget: float, data: Dataset) -> Candidate:
    """A candidate with its scores and size."""
    valid, test = (_predict(bundle, split, name) for split in (data.valid, data.test))
    facts = {
        **score(data.test.labels, test).facts,
        **valid_facts(score(data.valid.labels, valid)),
        "parameters": bundle.parameters,
        "bytes": bundle.bytes,
    }
    return Candidate(name, bundle, budget, facts, test, valid)


def valid_facts(scores: Scores) -> dict[str, Any]:
    """Scores of the validation rows as facts beside those of the test rows."""
    return {f"valid_{key}": value for key, value in scores.facts.items()}


def _predict(bundle: Bundle, split: Split, name: str) -> np.ndarray:
    ids, title = split.ids, f"[{name}] scores"
    return bundle.predict_assigned(ids, bundle.assign_checked(ids, title), title)


def choose(candidates: Sequence[Candidate], labels: np.ndarray, choices: CompressConfig) -> int:
    """The smallest candidate that is about as good as the best one on validation rows.

    The facts get `valid_doubt`, by how much more than the tolerance a candidate may be behind.

    Args:
      candidates: the base model, and others.
      labels: `[m]`, those of the validation rows.
      choices: how far behind the best one the chosen one may be.
    """
    facts = [one.facts for one in candidates]
    probs = [one.valid_probs for one in candidates]
    doubts = doubts_of(facts, labels, probs, choices.standard_errors)
    for own, doubt in zip(facts, doubts, strict=True):
        own["valid_doubt"] = doubt
    return choose_smallest(facts, choices.tolerance, doubts)


def add_speed(candidates: Sequence[Candidate], split: Split) -> None:
    """Adds the time of prediction for a row to the facts, all that serving does included."""
    times = microseconds_per_row([one.bundle.predict_ids for one in candidates], split.ids)
    for one, microseconds in zip(candidates, times, strict=True):
        one.facts["microseconds"] = microseconds
