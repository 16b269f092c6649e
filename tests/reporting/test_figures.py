"""What the figures of a run draw: counts of gates, bars and curves, by their numbers."""

from __future__ import annotations

import numpy as np
import pytest

from ihas_jax.reporting.figures import count_gates, draw_learning_curves, draw_widths


def test_gates_are_counted_over_all_instances_and_the_one_of_the_median_share():
    probs = [[0.1, 0.1, 0.1, 0.9], [0.6, 0.7, 0.8, 0.9], [0.1, 0.3, 0.6, 0.9], [0.1, 0.1, 0.6, 0.9]]
    found = count_gates(np.array(probs), np.array([0.5, 0.4, 0.2, 0.5]), bins=2)
    # they keep 1, 4, 3 and 2 of 4 gates: of the two in the middle the upper one counts
    assert found["threshold"] == 0.2 and found["instances"] == 4
    assert (found["one"], found["all"]) == ([2, 2], [7, 9])
    assert found["quantiles"] == pytest.approx([0.23, 0.45, 0.5])


def test_clusters_stand_side_by_side_around_the_place_of_a_field():
    clusters = [
        {"share": 0.25, "kept": 0.5, "widths": {"f0": 2, "f1": 1}},
        {"share": 0.75, "kept": 1.0, "widths": {"f0": 4, "f1": 3}},
    ]
    (axis,) = draw_widths({"clusters": clusters}, ["f0", "f1"]).axes
    bars = [[(bar.get_x(), bar.get_height()) for bar in group] for group in axis.containers]
    np.testing.assert_allclose(bars[0], [(-0.4, 2), (0.6, 1)], atol=1e-12)
    np.testing.assert_allclose(bars[1], [(0.0, 4), (1.0, 3)], atol=1e-12)
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert texts[0] == "cluster 0: 25% of rows, keeps 50%"


def test_losses_are_left_and_aucs_right():
    history = [{"epoch": e, "loss": 0.5 - e / 10, "auc": 0.6 + e / 10} for e in range(2)]
    left, right = draw_learning_curves({"base": history}).axes
    for axis, numbers in ((left, [0.5, 0.4]), (right, [0.6, 0.7])):
        (line,) = axis.lines
        np.testing.assert_allclose(line.get_xydata(), list(enumerate(numbers)))
