"""Sides that take turns."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ihas_jax.stages.speed import speed_beside, take_turns


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
def test_two_predictions_stand_beside_each_other_with_the_spread_of_their_turns(rows, at_once):
    seen = set()

    def predict(seconds):
        def function(ids):
            seen.add(ids.shape)
            time.sleep(seconds)

        return function

    functions = {"base": predict(0.002), "one": predict(0.006)}
    found = speed_beside(functions, np.zeros((rows, 3), np.int32))
    assert list(found) == ["base", "one", "ratio", "turns"]
    assert seen == {(at_once, 3)}
    for name, least in (("base", 0.002), ("one", 0.006), ("ratio", 0.0)):
        assert least * 1e6 / at_once <= found[name]["low"]
        assert found[name]["low"] <= found[name]["middle"] <= found[name]["high"]
    assert 1 < found["ratio"]["middle"] < 4
