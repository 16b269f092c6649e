"""Sides that take turns."""

from __future__ import annotations

import numpy as np
import pytest

from ihas_jax.stages import speed
from ihas_jax.stages.speed import take_turns


def test_turns_alternate_and_the_first_does_not_count():
    calls = []

    def side(name, *seconds):
        left = list(seconds)

        def turn():
            calls.append(name)
            return left.pop(0)

        return turn

    sides = {"a": side("a", 9.0, 1.0, 3.0, 2.0), "b": side("b", 9.0, 4.0, 4.0, 7.0)}
    assert take_turns(sides, 3) == {"a": 2.0, "b": 4.0}
    turns = [calls[i : i + 2] for i in range(0, 8, 2)]
    assert {*map(tuple, turns)} == {("a", "b"), ("b", "a")}


@pytest.mark.parametrize(("rows", "at_once"), [(10, 1_000), (30_000, 20_000)])
def test_two_predictions_stand_beside_each_other_with_the_spread_of_their_turns(
    monkeypatch, rows, at_once
):
    clock, seen, slow = [0.0], set(), iter([0.0] * 6 + [0.5] + [0.0] * 1000)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])

    def predict(seconds):
        def function(ids):
            seen.add(ids.shape)
            clock[0] += seconds + next(slow)  # other work meets the first that counts

        return function

    functions = {"base": predict(0.25), "one": predict(0.75)}
    found = speed.speed_beside(functions, np.zeros((rows, 3), np.int32))
    assert list(found) == ["base", "one", "ratio", "turns"]
    assert seen == {(at_once, 3)} and found["turns"] == 7
    assert found["base"]["middle"] == pytest.approx(0.25e6 / at_once)
    assert found["one"]["middle"] == pytest.approx(0.75e6 / at_once)
    assert found["ratio"]["middle"] == pytest.approx(3)
    later = [found[name]["high"] - found[name]["middle"] for name in functions]
    assert sorted(later) == pytest.approx([0, 0.5e6 / at_once])
    assert found["ratio"]["low"] < 3 or found["ratio"]["high"] > 3
