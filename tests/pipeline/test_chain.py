"""The order of the stages, what each needs, and what is recorded of them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import jax
import pytest

from ihas_jax.errors import InputError
from ihas_jax.pipeline.chain import Chain, Stage, timed
from ihas_jax.programs import _COMPILED


@pytest.fixture
def runs(tmp_path):
    """Two runs that keep their events."""
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        events = []
        made.append(
            SimpleNamespace(
                workdir=tmp_path / name,
                config=SimpleNamespace(method="ihas"),
                events=events,
                event=lambda kind, facts, events=events: events.append((facts["stage"], facts)),
            )
        )
    return made


def stages(done, runs, seconds=2.0):
    """Stages that note their calls, each of one second more than the one before."""

    def work(name, extra):
        done.append(name)
        return [seconds + extra] * len(runs)

    needs = {"base": (), "search": (), "choose": ("search",), "evaluate": ("base", "choose")}
    return {
        name: Stage(lambda name=name, i=i: work(name, i), before)
        for i, (name, before) in enumerate(needs.items())
    }


def recorded(run):
    """What is recorded of the stages, but the time in which programs were compiled."""
    seconds = json.loads((run.workdir / "stages.json").read_text())
    *_, last = seconds
    assert last == "compiling"
    return {name: value for name, value in seconds.items() if name != last}


def test_all_stages_are_done_in_order_and_recorded_once(runs):
    done = []
    Chain(runs, stages(done, runs)).advance("all")
    assert done == ["base", "search", "choose", "evaluate"]
    seconds = {"base": 2.0, "search": 3.0, "choose": 4.0, "evaluate": 5.0}
    assert [recorded(run) for run in runs] == [seconds] * 2
    states = [facts["state"] for _, facts in runs[0].events]
    assert states == ["starts", "done"] * 4
    Chain(runs, stages(done, runs, seconds=9.0)).advance("all")  # reads results back
    assert len(done) == 8 and recorded(runs[1]) == seconds and len(runs[1].events) == 8


def test_a_stage_alone_reads_back_what_it_needs(runs):
    done = []
    chain = Chain(runs, stages(done, runs))
    chain.advance("search")
    chain.advance("cluster")  # another name of choose
    assert done == ["search", "search", "choose"]
    chain.advance("choose")
    assert len(done) == 3  # finished already


def test_a_missing_stage_is_named(runs):
    done = []
    chain = Chain(runs, stages(done, runs))
    with pytest.raises(InputError, match="--stage choose needs the stage 'search', which"):
        chain.advance("choose")
    with pytest.raises(InputError, match="ihas has no --stage retrain; it has base, search, "):
        chain.advance("retrain")
    assert done == []


def test_a_stage_that_one_of_two_runs_lacks_is_not_finished(runs):
    done = []
    Chain(runs[:1], stages(done, runs[:1])).advance("search")
    chain = Chain(runs, stages(done, runs, seconds=7.0))
    chain.advance("search")
    assert done == ["search"] * 2
    assert [recorded(run) for run in runs] == [{"search": 3.0}, {"search": 8.0}]


def test_runs_share_the_time_in_which_programs_are_compiled(runs):
    """And it adds up over the stages."""

    def work():
        jax.monitoring.record_event_duration_secs(_COMPILED, 3.0)
        jax.monitoring.record_event_duration_secs("/another", 100.0)
        return [2.0] * 2

    chain = Chain(runs, {"base": Stage(work), "evaluate": Stage(work, ("base",))})
    chain.advance("base")
    seconds = [json.loads((run.workdir / "stages.json").read_text()) for run in runs]
    assert seconds == [{"base": 2.0, "compiling": 1.5}] * 2
    chain.advance("evaluate")
    seconds = json.loads((runs[1].workdir / "stages.json").read_text())
    assert seconds == {"base": 2.0, "evaluate": 2.0, "compiling": 3.0}


@pytest.mark.parametrize(("known", "least", "most"), [(100.0, 100.0, 100.0), (-1.0, 0.0, 60.0)])
def test_a_stage_took_what_it_knows_or_longer(known, least, most):
    result, seconds = timed(lambda: "result", lambda result: known)
    assert result == "result" and least <= seconds <= most
