"""What a compression may be asked for, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest

from ihas_jax.config import Config, ModelConfig, OptimizerConfig, TrainConfig
from ihas_jax.config.compress import CompressConfig
from ihas_jax.errors import InputError
from ihas_jax.pipeline.compress import compress
from ihas_jax.pipeline.fit import fit

PLAIN = Config(
    method="spectral",
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=2, checkpoint_seconds=0),
)
CHOICES = CompressConfig(budget=(0.5,), teachers=(), students=(), l2=(1e-5,))


def test_without_workers_there_is_no_work(log, tmp_path):
    with pytest.raises(InputError, match="--workers must be positive, not 0"):
        compress(PLAIN, CHOICES, log, tmp_path / "run", workers=0)


def test_a_run_of_another_kind_is_refused(log, tmp_path):
    plain = dataclasses.replace(PLAIN, method="none")
    fit(plain, log, tmp_path / "run")
    with pytest.raises(
        InputError, match=r"holds a run, not a compression. Choose another --output"
    ):
        compress(PLAIN, CHOICES, log, tmp_path / "run")


def test_budgets_without_room_are_left_out(log, tmp_path, caplog):
    few = dataclasses.replace(CHOICES, budget=(0.5, 0.0001))
    with caplog.at_level("INFO", "ihas_jax"):
        found = compress(PLAIN, few, log, tmp_path / "run")
    assert "dnn, uniform, 0.01 % is left out: --budget 0.0001 is" in caplog.text
    assert all("0.01 %" not in facts["name"] for facts in found.metrics["candidates"])


def test_a_model_without_an_mlp_has_no_trials_of_one(log, tmp_path):
    config = dataclasses.replace(PLAIN, model=dataclasses.replace(PLAIN.model, name="fm"))
    found = compress(config, CHOICES, log, tmp_path / "run")
    assert [member["name"] for member in found.metrics["pool"]] == [
        "fm_1e-05",
        "fm_1e-05_rate_0.006",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teachers": ("gdnc",)}, "--teachers gdnc names no click model. Did you mean gdcn"),
        ({"students": ("fmm",)}, "--students fmm names no click model. Did you mean fm"),
        ({"budget": (0.0001,)}, "--budget 0.0001 is .* at least"),
    ],
)
def test_wrong_choices_leave_no_folder(log, tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        compress(PLAIN, dataclasses.replace(CHOICES, **changes), log, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": (0.5, 0.5)}, "--budget names 0.5 twice"),
        ({"budget": ()}, "--budget needs at least one value"),
        ({"budget": (1.5,)}, r"--budget must lie between 0 and 1, not 1\.5"),
        ({"selections": ()}, "--selections needs at least one value"),
        ({"selections": ("random",)}, "--selections must be"),
        ({"tolerance": -0.1}, "--tolerance must not be negative"),
        ({"standard_errors": -1.0}, "--standard-errors must not be negative"),
        ({"teacher_seeds": 0}, "--teacher-seeds must be positive"),
    ],
)
def test_values_out_of_range_name_their_flag(changes, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(CHOICES, **changes)


def test_without_teachers_all_learn_from_clicks(log, tmp_path):
    found = compress(PLAIN, CHOICES, log, tmp_path / "run")
    assert found.metrics["teachers"] == []
    assert not (tmp_path / "run" / "teach").exists()
    assert "All models learn from clicks." in (tmp_path / "run" / "report.md").read_text()
