"""Sizes that are cut from a finished run, by the rows and the lessons of that run alone."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from ihas_jax.config import Config, ModelConfig, OptimizerConfig, RetrainConfig, TrainConfig
from ihas_jax.config.compress import CompressConfig
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.pipeline.cuts import cut_run
from ihas_jax.pipeline.fit import fit
from ihas_jax.serving.storage import load_bundle, save_bundle
from ihas_jax.stages.candidates import choose

CONFIG = Config(
    method="none",
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=1, checkpoint_seconds=0),
    retrain=RetrainConfig(teachers=("lr",)),
)
CHOICES = CompressConfig(budget=(0.5,))


@pytest.fixture(scope="module")
def taught(log, tmp_path_factory):
    """A run whose model has learnt from a teacher."""
    return fit(CONFIG, log, tmp_path_factory.mktemp("cuts") / "run").workdir


def untimed(metrics):
    return [{k: v for k, v in c.items() if k != "microseconds"} for c in metrics["candidates"]]


def test_a_bundle_in_its_run_is_cut_as_the_run(taught, log, tmp_path):
    found = [
        cut_run(run, log, CHOICES, tmp_path / name, retrain=True)
        for run, name in ((taught, "run"), (taught / "bundle", "bundle"))
    ]
    assert untimed(found[0]) == untimed(found[1])


def test_a_bundle_that_does_not_know_how_values_are_used_counts_rows_once(
    taught, log, tmp_path, caplog
):
    (tmp_path / "copy").mkdir()
    save_bundle(dataclasses.replace(load_bundle(taught), usage=None), tmp_path / "copy" / "bundle")
    with caplog.at_level("INFO", "ihas_jax"):
        found = cut_run(tmp_path / "copy", log, CHOICES)
    assert untimed(found) == untimed(cut_run(taught, log, CHOICES))
    assert "whether --data has its rows can't be checked" in caplog.text


def test_rows_of_another_split_are_refused(taught, log):
    """Its validation rows may be those that the model was trained on."""
    ids, labels = (np.concatenate(parts) for parts in zip(log.train, log.valid, strict=True))
    n = len(log.valid.labels)
    other = dataclasses.replace(
        log, train=Split(ids[n:], labels[n:]), valid=Split(ids[:n], labels[:n])
    )
    with pytest.raises(InputError, match=r"on other rows than those of --data"):
        cut_run(taught, other, CHOICES)


def test_a_folder_has_the_sizes_of_one_bundle(taught, log, tmp_path):
    cut_run(taught, log, CHOICES, tmp_path / "cut")
    other = fit(
        dataclasses.replace(CONFIG, retrain=RetrainConfig(teachers=("fm",))), log, tmp_path / "b"
    )
    shutil.copytree(tmp_path / "cut", tmp_path / "same")
    cut_run(taught, log, CHOICES, tmp_path / "same")
    bundle = dataclasses.replace(load_bundle(other.workdir), config=load_bundle(taught).config)
    with pytest.raises(InputError, match=r"holds cuts of another run. Choose another --output"):
        cut_run(other.workdir, log, CHOICES, tmp_path / "cut")
    (tmp_path / "forged").mkdir()
    save_bundle(bundle, tmp_path / "forged" / "bundle")
    with pytest.raises(InputError, match=r"holds cuts of another run. Choose another --output"):
        cut_run(tmp_path / "forged", log, CHOICES, tmp_path / "cut")


def test_sizes_with_and_without_training_do_not_mix(taught, log, tmp_path):
    cut_run(taught, log, CHOICES, tmp_path / "trained", retrain=True)
    with pytest.raises(InputError, match=r"holds cuts that were trained on. Choose another"):
        cut_run(taught, log, CHOICES, tmp_path / "trained")
    cut_run(taught, log, CHOICES, tmp_path / "plain")
    with pytest.raises(InputError, match=r"holds cuts that were not trained on. Choose another"):
        cut_run(taught, log, CHOICES, tmp_path / "plain", retrain=True)


def test_budgets_without_room_are_left_out(taught, log, caplog):
    with caplog.at_level("INFO", "ihas_jax"):
        found = cut_run(taught, log, CompressConfig(budget=(0.0001, 0.5)))
    assert [facts["name"] for facts in found["candidates"]] == ["base", "50 %"]
    assert "0.01 % of the table is left out: --budget 0.0001" in caplog.text
    with pytest.raises(InputError, match=r"--budget 0.0001"):
        cut_run(taught, log, CompressConfig(budget=(0.0001,)))


def test_sizes_of_unknown_source_are_refused(taught, log, tmp_path):
    cut_run(taught, log, CHOICES, tmp_path / "cut")
    (tmp_path / "cut" / "source.json").write_text("{")
    with pytest.raises(InputError, match=r"source.json can't be read .* Choose another --output"):
        cut_run(taught, log, CHOICES, tmp_path / "cut")
    (tmp_path / "cut" / "source.json").unlink()
    with pytest.raises(InputError, match=r"has cuts, but no source.json"):
        cut_run(taught, log, CHOICES, tmp_path / "cut")


def test_a_cut_does_not_know_the_lessons_of_its_run(taught, log, tmp_path, monkeypatch):
    monkeypatch.setattr("ihas_jax.pipeline.cuts.choose_candidate", lambda *of: 0 * choose(*of))
    cut_run(taught, log, CHOICES, tmp_path / "cut")
    with pytest.raises(InputError, match=r"holds a cut of a run, .* the folder of the run itself"):
        cut_run(tmp_path / "cut", log, CHOICES, tmp_path / "again", retrain=True)


def test_a_log_without_rows_of_a_split_is_refused(taught, log, tmp_path):
    empty = dataclasses.replace(log, valid=Split(log.valid.ids[:0], log.valid.labels[:0]))
    with pytest.raises(InputError, match=r"The data hold no valid rows"):
        cut_run(taught, empty, CHOICES, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
