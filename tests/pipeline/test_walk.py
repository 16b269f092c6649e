"""The steps of a long piece of work, counted and timed."""

from __future__ import annotations

from contextlib import contextmanager

from ihas_jax.pipeline import walk as module


def test_the_time_left_is_that_of_steps_that_train(monkeypatch, caplog):
    """Three steps of 30, 0.1 (read back) and 60 seconds, of five."""
    clock = iter((0.0, 30.0, 30.0, 30.1, 30.1, 90.1, 90.1, 91.0))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    events = []
    walk = module.Walk("Work", 5, lambda kind, facts: events.append(facts["step"]))
    with caplog.at_level("INFO", "ihas_jax"):
        for name in "abcd":
            with walk.step(name):
                pass
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "[Work] step 1 of 5: a",
        "[Work] step 2 of 5: b, about 2 minutes left",
        "[Work] step 3 of 5: c, about 90 s left",
        "[Work] step 4 of 5: d, about 90 s left",
    ]
    assert events == list("abcd")


def test_steps_beside_each_other_share_their_time(monkeypatch, caplog):
    """Three steps of 60 seconds, of which one is read back, two at a time, of six."""
    seconds = iter((60.0, 0.1, 60.0))

    @contextmanager
    def together(calls, workers, kept, modules):
        assert (workers, modules) == (2, ("own",))
        yield ((i, (i, next(seconds))) for i in range(len(calls)))

    monkeypatch.setattr(module, "together", together)
    walk = module.Walk("Work", 6, lambda kind, facts: None, 2, ("own",))
    with caplog.at_level("INFO", "ihas_jax"):
        assert walk.each([(name, abs, (-1,)) for name in "abc"]) == [0, 1, 2]
    left = [record.getMessage().rpartition(", ")[2] for record in caplog.records]
    assert left == [
        "2 at a time",
        "about 2 minutes left",
        "about 2 minutes left",
        "about 90 s left",
    ]
