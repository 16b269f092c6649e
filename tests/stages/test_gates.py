"""How far gates are from even odds, and how masks differ from row to row."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ihas_jax.stages.gates import describe


def test_gates_of_four_rows():
    probs = np.array([[0.9, 0.2], [0.1, 0.4], [0.7, 0.6], [0.3, 0.2]])
    thresholds = np.array([0.5, 0.5, 0.5, 0.1])
    found = describe(probs, thresholds)
    assert found["from_half"] == pytest.approx((0.4 + 0.3 + 0.4 + 0.1 + 0.2 + 0.1 + 0.2 + 0.3) / 8)
    masks = probs > thresholds[:, None]
    pairs = [(a != b).mean() for a, b in itertools.product(masks, masks)]
    assert found["differ"] == pytest.approx(np.mean(pairs)) and found["differ"] > 0


def test_gates_that_are_alike_do_not_differ():
    assert describe(np.array([[0.9, 0.1]] * 5), np.full(5, 0.5))["differ"] == 0
