"""What `fit` and `fit_seeds` hand to the stages, and what they refuse before any work."""

from __future__ import annotations

import dataclasses

import pytest

from ihas_jax.config import ClusterConfig, ModelConfig
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.files import write_json
from ihas_jax.pipeline import fit as module
from ihas_jax.pipeline.fit import Result, check_rows, fit, fit_seeds
from ihas_jax.pipeline.workdir import open_run
from ihas_jax.selectors.plan import single
from ihas_jax.selectors.selection import Selection
from ihas_jax.stages.plans import save_plan


@pytest.fixture
def config(tiny):
    return tiny.config.having(ClusterConfig(clusters=2))


@pytest.fixture
def runs(monkeypatch):
    """The runs whose stages would be done."""
    found = []

    def record(runs, stage):
        found.extend(runs)
        return [Result({}, run.workdir) for run in runs]

    monkeypatch.setattr(module, "_fit", record)
    return found


def test_every_seed_is_a_run_in_its_own_folder(config, small, tmp_path, runs):
    results = fit_seeds(config, small, {5: tmp_path / "five", 3: tmp_path / "three"})
    assert [run.config.seed for run in runs] == [5, 3]
    assert [result.workdir.name for result in results] == ["five", "three"]
    assert fit_seeds(config, small, {}) == []


def test_the_model_of_another_search_comes_with_its_stages(config, small, tmp_path, runs):
    with open_run(config, small, tmp_path / "source") as source:
        (source.workdir / "search").mkdir()
        save_plan(source.workdir / "choose", single(Selection(((0,), (), ()))), 2.0)
        write_json(source.workdir / "stages.json", {"search": 1.0, "choose": 2.0})
    model = ModelConfig(name="fm", dim=2)
    other = dataclasses.replace(config, model=model)
    fit(other, small, tmp_path / "run", searched_by=source.workdir)
    assert (runs[0].config.model, runs[0].searched_by) == (model, config.model)
    assert (tmp_path / "run" / "choose").is_dir()


@pytest.fixture
def advanced(monkeypatch):
    """The folders of the runs whose stages are advanced; nothing is shown."""
    found = []

    class Chain:
        def __init__(self, runs, stages):
            found.extend(run.workdir.name for run in runs)

        def advance(self, wanted):
            pass

    monkeypatch.setattr(module, "Chain", Chain)
    monkeypatch.setattr(module, "present", lambda run, metrics: ("part",))
    return found


def test_a_finished_run_is_shown_and_not_advanced(config, small, tmp_path, advanced):
    with open_run(dataclasses.replace(config, seed=1), small, tmp_path / "1") as run:
        (run.workdir / "bundle").mkdir()
        (run.workdir / "bundle" / "bundle.json").write_text("{}")
        files = {"metrics": {"kmeans": []}, "curves": {}, "stages": {"evaluate": 1.0}}
        for name, content in files.items():
            write_json(run.workdir / f"{name}.json", content)
    first, second = fit_seeds(config, small, {1: tmp_path / "1", 2: tmp_path / "2"})
    assert advanced == ["2"]
    assert (first.metrics, first.missing) == ({"kmeans": []}, ("part",))
    assert (second.metrics, second.missing) == ({}, ())


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_a_split_without_rows_is_refused(config, small, name):
    split = getattr(small, name)
    empty = dataclasses.replace(small, **{name: Split(split.ids[:0], split.labels[:0])})
    with pytest.raises(InputError, match=f"hold no {name} rows"):
        check_rows(config, empty)


def test_more_clusters_than_rows_are_refused(config, small):
    with pytest.raises(InputError, match="clusters 25 is more than the 24 rows"):
        check_rows(config.having(ClusterConfig(clusters=25)), small)
    check_rows(config, small)
