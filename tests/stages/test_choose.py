"""The choosing stage: what the method gets, and when its plan is read back."""

from __future__ import annotations

import dataclasses
import shutil
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from ihas_jax.errors import InputError
from ihas_jax.selectors.by_value import ScoreRouter
from ihas_jax.selectors.plan import SERVE_SEARCHED, Expert, Plan
from ihas_jax.selectors.selection import Selection
from ihas_jax.stages.choose import choose
from ihas_jax.stages.plans import load_plan, save_plan
from ihas_jax.stages.run import Run

SEARCH = SimpleNamespace(variables="searched")
PLAN = Plan(
    (Expert(Selection(((0,), (1,), ())), "cluster_2", np.array([3, 5]), np.array([1])),
     Expert(Selection(((0,), (0, 1), (1,)), scale=0.5), "all")),
    routes=(1, 1, 0),
    reasons=("it is small", "it is small", None),
    centroids=np.arange(18, dtype=np.float32).reshape(3, 6),
    shares=(0.2, 0.7, 0.1),
)  # fmt: skip


@pytest.fixture
def run(tiny, small, tmp_path):
    """A run of a method that records what it chooses by."""
    run = Run(tiny.config, small, tmp_path)
    asked = []

    def choose(found):
        asked.append(found)
        return PLAN

    run.__dict__["selector"] = SimpleNamespace(choose=choose, asked=asked)
    return run


def test_a_method_chooses_by_the_searched_model_and_both_splits(run, small):
    plan, seconds = choose(run, SEARCH)
    (found,) = run.selector.asked
    assert plan is PLAN and seconds >= 0
    assert found.model is run.searched_model and found.variables == "searched"
    assert found.train is small.train and found.valid is small.valid
    assert found.seed == zlib.crc32(b"cluster/0")  # as recorded numbers were made


def with_budget(run, budget):
    own = Run(dataclasses.replace(run.config, budget=budget), run.data, run.workdir)
    own.__dict__["selector"] = run.selector
    return own


def test_a_budget_is_told_to_the_method_and_to_the_reader(run, caplog):
    """The plan keeps 5 + 3 and 5 + 2 * 3 + 4 numbers of 24."""
    own = with_budget(run, 1.0)
    with caplog.at_level("INFO", "ihas_jax"):
        choose(own, SEARCH)
    assert run.selector.asked[0].budget == 24
    words = "for cluster_2 (the budget is 100.0% for all models)"
    assert f"[choose] keeps 33.3% of the embedding table {words}" in caplog.text
    assert PLAN.parameters(own.searched_model.embedding) == 23


def test_a_plan_that_keeps_more_than_the_budget_is_refused(run):
    own = with_budget(run, 23 / 24)
    choose(own, SEARCH)
    shutil.rmtree(own.workdir / "choose")
    own = with_budget(run, 22 / 24)
    with pytest.raises(InputError, match=r"ihas keeps 23 numbers .* than the 22 .*found.budget"):
        choose(own, SEARCH)
    assert not (own.workdir / "choose").exists()


def test_a_plan_of_the_searched_model_keeps_the_whole_table(run, monkeypatch):
    monkeypatch.setattr(run.selector, "choose", lambda found: SERVE_SEARCHED)
    with pytest.raises(InputError, match=r"keeps 24 numbers .* more than the 12"):
        choose(with_budget(run, 0.5), SEARCH)


def test_without_a_budget_none_is_told(run):
    choose(run, SEARCH)
    assert run.selector.asked[0].budget is None


def test_a_plan_is_made_once_and_read_back(run):
    _, seconds = choose(run, SEARCH)
    plan, again = choose(run, SEARCH)
    assert len(run.selector.asked) == 1 and again == seconds
    assert (plan.routes, plan.reasons, plan.shares) == (PLAN.routes, PLAN.reasons, PLAN.shares)
    np.testing.assert_array_equal(plan.centroids, PLAN.centroids)
    for ours, theirs in zip(plan.experts, PLAN.experts, strict=True):
        assert (ours.name, ours.selection.kept) == (theirs.name, theirs.selection.kept)
        assert ours.selection.scale == theirs.selection.scale
        np.testing.assert_array_equal(ours.rows, theirs.rows)
        np.testing.assert_array_equal(ours.valid_rows, theirs.valid_rows)


def test_a_fact_can_not_take_the_place_of_the_scores(run):
    run.selector.choose = lambda found: dataclasses.replace(PLAN, facts={"ihas": 1.0})
    with pytest.raises(InputError, match=r"Plan\.facts can't have the entry 'ihas'"):
        choose(run, SEARCH)
    assert not (run.workdir / "choose").exists()


def test_a_plan_whose_arrays_are_damaged_is_made_anew(run):
    choose(run, SEARCH)
    for path in (run.workdir / "choose" / "arrays").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-9])
    plan, _ = choose(run, SEARCH)
    assert len(run.selector.asked) == 2 and plan is PLAN


@pytest.mark.parametrize("removed", [None, "values", "mask"])
def test_a_choice_is_read_back_as_it_was(tmp_path, removed):
    rng, shape = np.random.default_rng(0), (270, 4)
    chosen = rng.integers(2, size=shape if removed == "mask" else shape[:1]).astype(bool)
    kept = ((0, 2), ()) * 4 + ((1,),)
    selection = Selection(kept, **({removed: chosen} if removed else {}), scale=0.1 + 0.2)
    save_plan(tmp_path / "choose", Plan((Expert(selection),)), 1.5)
    plan, seconds = load_plan(tmp_path / "choose")
    (expert,) = plan.experts
    found = expert.selection
    assert (found.kept, found.scale, seconds) == (kept, selection.scale, 1.5)
    for name in ("values", "mask"):
        np.testing.assert_array_equal(getattr(found, name), getattr(selection, name))
    assert (expert.name, expert.rows, expert.valid_rows, plan.centroids) == ("", None, None, None)


def test_clusters_are_read_back_as_they_were(tmp_path):
    rows = [np.array(part, np.int32) for part in ([0, 2], [1], [1, 3, 4], [0, 2])]
    kept = [((0, 1), (1,)), ((), (0,))]
    plan = Plan(
        (
            Expert(Selection(kept[0]), "cluster_1", *rows[:2]),
            Expert(Selection(kept[1]), "cluster_2", *rows[2:]),
            Expert(Selection(kept[0]), "all"),
        ),
        routes=(2, 0, 1),
        reasons=("it is small", None, None),
        centroids=np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
        shares=(0.1, 0.2 + 0.1, 0.6),
        facts={"kmeans": [{"rows": 9, "inertia": 0.1}]},
        router=ScoreRouter(
            np.array([7, -9], np.int32),
            np.arange(20, dtype=np.int16).reshape(2, 10),
            np.array([0, 4], np.int32),
        ),
    )
    save_plan(tmp_path / "choose", plan, 2.5)
    found, seconds = load_plan(tmp_path / "choose")
    assert seconds == 2.5
    for name in ("routes", "reasons", "shares", "facts"):
        assert getattr(found, name) == getattr(plan, name)
    np.testing.assert_array_equal(found.centroids, plan.centroids)
    for name in ("bias", "scores", "first"):
        ours, theirs = (getattr(one.router, name) for one in (found, plan))
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(found.experts, plan.experts, strict=True):
        assert (ours.name, ours.selection.kept) == (theirs.name, theirs.selection.kept)
        np.testing.assert_array_equal(ours.rows, theirs.rows)
        np.testing.assert_array_equal(ours.valid_rows, theirs.valid_rows)
