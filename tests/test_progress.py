"""Lines of progress where there is no terminal."""

from __future__ import annotations

import logging

import pytest

from ihas_jax import progress


@pytest.fixture
def clock(monkeypatch):
    """The time that trackers see, in seconds."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", type("Clock", (), {"monotonic": lambda: now[0]}))
    return now


@pytest.mark.parametrize(
    ("total", "first", "second"),
    [
        (80, "Reading: 25%, 0 rows/s", "Reading: 50%, 1 rows/s, 40 s left"),
        (0, "Reading: 20, 0 rows/s", "Reading: 40, 1 rows/s"),
    ],
)
def test_time_left_is_shown_once_a_unit_is_finished(clock, caplog, total, first, second):
    caplog.set_level(logging.INFO, "ihas_jax")
    with progress.track("Reading", total, done=20) as tracker:
        clock[0] += 10
        tracker.advance(0)
        clock[0] += 9
        tracker.advance(5)
        clock[0] += 1
        tracker.advance(15)
    assert [record.getMessage() for record in caplog.records] == [first, second]
