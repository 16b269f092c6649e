"""The folder of a run: whose it is, what may change, and what another run may take from it."""

from __future__ import annotations

import dataclasses

import pytest

from ihas_jax.config import ModelConfig
from ihas_jax.errors import InputError
from ihas_jax.files import write_json
from ihas_jax.flags import replaced
from ihas_jax.pipeline.reuse import copy_stages, require_search, reuse_stages
from ihas_jax.pipeline.workdir import fingerprint, open_run
from ihas_jax.selectors.plan import single
from ihas_jax.selectors.selection import Selection
from ihas_jax.stages.plans import save_plan

OTHER = ModelConfig(dim=2, hidden=(3,))


@pytest.fixture
def config(tiny):
    return tiny.config


def begin(config, data, path, *stages, searched_by=None):
    """A run with the folders and seconds of some stages."""
    with open_run(config, data, path, searched_by) as run:
        for name in stages:
            (run.workdir / name).mkdir()
            (run.workdir / name / "left").write_text(str(path.name))
        if "choose" in stages:
            save_plan(run.workdir / "choose", single(Selection(((0,), (), ()))), 1.5)
        write_json(run.workdir / "stages.json", dict.fromkeys(stages, 1.5))
    return path


def other_data(small, **parts):
    return dataclasses.replace(small, valid=small.valid._replace(**parts))


def test_values_that_touch_no_number_may_change_and_others_may_not(config, small, tmp_path):
    begin(config, small, tmp_path / "run")
    for flag, value in (("train.checkpoint_seconds", 9.0), ("train.device_data_gb", 0.5)):
        with open_run(replaced(config, flag, value), small, tmp_path / "run"):
            pass
    for flag, value in (("train.batch_size", 9), ("train.patience", 7), ("gates.weight", 0.3)):
        with (
            pytest.raises(InputError, match=f"another config: {flag.replace('_', '.')}"),
            open_run(replaced(config, flag, value), small, tmp_path / "run"),
        ):
            pass


def test_data_are_told_apart_by_the_ids_and_labels_of_validation_rows(config, small, tmp_path):
    begin(config, small, tmp_path / "run")
    ids, labels = small.valid.ids.copy(), small.valid.labels.copy()
    ids[0, 0], labels[0] = (ids[0, 0] + 1) % 5, 1 - labels[0]
    changed = other_data(small, ids=ids), other_data(small, labels=labels)
    assert len({fingerprint(data) for data in (small, *changed)}) == 3
    for data in changed:
        with (
            pytest.raises(InputError, match="holds a run on other data"),
            open_run(config, data, tmp_path / "run"),
        ):
            pass


def test_a_folder_is_a_path(config, small):
    with (
        pytest.raises(InputError, match=r"not a NoneType\. Name the folder of the run"),
        open_run(config, small, None, kind="run"),
    ):
        pass


def test_a_folder_that_is_no_run_is_left_alone(config, small, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with (
        pytest.raises(InputError, match="exists and is not a run"),
        open_run(config, small, tmp_path),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_remembers_the_searched_model(config, small, tmp_path):
    begin(config, small, tmp_path / "run", searched_by=OTHER)
    with open_run(config, small, tmp_path / "run") as run:
        assert run.searched_by == OTHER
    begin(config, small, tmp_path / "own")
    with (
        pytest.raises(InputError, match="by its own search"),
        open_run(config, small, tmp_path / "own", OTHER),
    ):
        pass


# what another run may take


@pytest.mark.parametrize(
    ("values", "stages"),
    [
        ({}, {"base", "search"}),
        ({"cluster.clusters": 7, "retrain.start": "tables"}, {"base", "search"}),
        ({"cluster.clusters": 7, "gates.weight": 0.3}, {"base"}),
        ({"train.batch_size": 9}, set()),
        ({"seed": 3}, set()),
    ],
)
def test_stages_are_borrowed_that_nothing_touches(config, small, tmp_path, values, stages):
    source = begin(config, small, tmp_path / "source", "base", "search", "choose")
    for flag, value in values.items():
        config = replaced(config, flag, value)
    reuse_stages(config, small, tmp_path / "run", source)
    assert {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()} == stages


def test_a_search_of_another_model_is_not_borrowed_nor_anything_of_other_data(
    config, small, tmp_path
):
    source = begin(config, small, tmp_path / "by", "base", "search", searched_by=OTHER)
    reuse_stages(config, small, tmp_path / "run", source)
    assert not (tmp_path / "run" / "search").exists() and (tmp_path / "run" / "base").exists()
    labels = 1 - small.valid.labels
    reuse_stages(config, other_data(small, labels=labels), tmp_path / "other", source)
    assert not (tmp_path / "other").exists()


def test_stages_that_a_run_has_begun_are_left_alone(config, small, tmp_path):
    source = begin(config, small, tmp_path / "source", "search", "choose", "retrain")
    with open_run(config, small, tmp_path / "run") as run:
        (run.workdir / "search").mkdir()
        copy_stages(run, source, ("search", "choose"))
        assert not (run.workdir / "search" / "left").exists()
        assert (run.workdir / "choose" / "left").read_text() == "source"
        assert not (run.workdir / "retrain").exists()


def test_a_search_serves_runs_that_differ_in_the_model_alone(config, small, tmp_path):
    source = begin(config, small, tmp_path / "source", "search", "choose")
    model = dataclasses.replace(config, model=OTHER)
    assert require_search(model, small, source) == config.model
    with pytest.raises(InputError, match=r"another config: gates\.weight"):
        require_search(replaced(model, "gates.weight", 0.3), small, source)
    with pytest.raises(InputError, match="a run on other data"):
        require_search(model, other_data(small, labels=1 - small.valid.labels), source)
    early = begin(config, small, tmp_path / "early", "search")
    with pytest.raises(InputError, match="has not finished its stage 'choose' yet"):
        require_search(model, small, early)
