"""The choice among candidates, by scores of validation rows and how sure these are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ihas_jax.config.compress import CompressConfig
from ihas_jax.data.dataset import Split
from ihas_jax.stages.candidates import Candidate, add_speed, choose


@pytest.mark.parametrize(("errors", "chosen"), [(1.9, 2), (2.1, 1)])
def test_two_standard_errors_are_allowed_by_default(errors, chosen):
    """A small model is that many standard errors of the difference behind a large one."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 2000).astype(np.uint8)
    facts = {"valid_logloss": 0.5}
    base, large, small = (
        Candidate("", None, 1.0, facts | {"valid_auc": auc, "parameters": size}, probs, probs)
        for auc, size, probs in zip(
            (0.5, 0.8, 0.7), (100, 100, 10), rng.random((3, 2000)), strict=True
        )
    )
    choose([base, large, small], labels, CompressConfig(tolerance=0.0, standard_errors=1.0))
    assert 0 < small.facts["valid_doubt"] < 0.1
    small.facts["valid_auc"] = 0.8 - errors * small.facts["valid_doubt"]
    found = [base, large, small]
    assert choose(found, labels, CompressConfig(tolerance=0.0)) == chosen


@pytest.mark.parametrize(("rows", "at_once", "times"), [(1, 1000, 20), (6000, 6000, 4)])
def test_few_test_rows_are_timed_many_at_once(rows, at_once, times):
    asked = []
    bundle = SimpleNamespace(predict_ids=lambda ids: asked.append(ids.shape))
    one = Candidate("", bundle, 1.0, {}, np.zeros(0), np.zeros(0))
    add_speed([one], Split(np.ones((rows, 3), np.int32), np.ones(rows, np.uint8)))
    assert asked == 6 * times * [(at_once, 3)]
    assert one.facts["microseconds"] > 0
