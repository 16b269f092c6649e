"""The steps of a long piece of work, counted and timed."""

from __future__ import annotations

from contextlib import contextmanager
from io import StringIO
from itertools import pairwise
from types import SimpleNamespace

from rich.console import Console
from rich.text import Text

from ihas_jax import progress
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
        "[Work] step 2 of 5: b, about 2 minutes left at this pace",
        "[Work] step 3 of 5: c, about 90 s left at this pace",
        "[Work] step 4 of 5: d, about 90 s left at this pace",
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
        "about 2 minutes left at this pace",
        "about 2 minutes left at this pace",
        "about 90 s left at this pace",
    ]


def test_a_terminal_has_a_bar_of_all_steps_above_that_of_one(monkeypatch):
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=100, soft_wrap=True)
    monkeypatch.setattr(progress, "console", console)
    walk = module.Walk("Work", 3, lambda kind, facts: None)
    clock = SimpleNamespace(monotonic=iter((0.0, 90.0, 90.0, 99.0)).__next__)
    monkeypatch.setattr(module, "time", clock)
    with progress.command_line(), walk.shown():
        with walk.step("a"):
            pass
        walk.skip(1)
        with walk.step("b"), progress.track("inner", 4):
            progress.say("both bars are drawn anew below a line")
    lines = [Text.from_ansi(line).plain for line in screen.getvalue().splitlines()]
    bars = [(line, below) for line, below in pairwise(lines) if line.startswith("Work ")]
    assert any("0 of 3" in line for line, _ in bars)
    said = [(line, below) for line, below in bars if "1 of 2, about 90 s left at this pace" in line]
    assert any(below.startswith("inner ") for _, below in said)
    assert any("2 of 2" in line for line, _ in bars)


def test_a_library_has_no_bar_on_a_terminal(monkeypatch):
    screen = StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True))
    walk = module.Walk("Work", 1, lambda kind, facts: None)
    with walk.shown(), walk.step("a"):
        pass
    assert screen.getvalue() == ""


def test_there_is_no_bar_elsewhere(capsys):
    walk = module.Walk("Work", 1, lambda kind, facts: None)
    with progress.command_line(), walk.shown(), walk.step("a"):
        pass
    assert capsys.readouterr().out == "[Work] step 1 of 1: a\n"
