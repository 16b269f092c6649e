"""Sides that take turns."""

from __future__ import annotations

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
