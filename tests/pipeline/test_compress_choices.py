"""What a compression may be asked for, and what it refuses."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from flax import linen as nn

from ihas_jax.config import (
    Config,
    ModelConfig,
    OptimizerConfig,
    RetrainConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.config.compress import CompressConfig
from ihas_jax.config.shares import SpectralConfig
from ihas_jax.errors import InputError
from ihas_jax.models import MODELS, ClickModel, Model, Network, register_model
from ihas_jax.pipeline import compression
from ihas_jax.pipeline.compress import compress, plain_config
from ihas_jax.pipeline.fit import fit
from ihas_jax.training.metrics import DivergedError

PLAIN = Config(
    method="spectral",
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=2, checkpoint_seconds=0),
)
CHOICES = CompressConfig(budget=(0.5,), teachers=(), students=(), l2=(1e-5,))


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
        ({"tolerance": math.inf}, "--tolerance must be a finite number, not inf"),
        ({"standard_errors": math.inf}, "--standard-errors must be a finite number, not inf"),
        ({"l2": (1e-5, math.inf)}, "--l2 must be a finite number, not inf"),
        ({"standard_errors": -1.0}, "--standard-errors must not be negative"),
        ({"teacher_seeds": 0}, "--teacher-seeds must be positive"),
    ],
)
def test_values_out_of_range_name_their_flag(changes, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(CHOICES, **changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": None}, r"The config must be a Config, not a NoneType\. Make one with ihas"),
        ({"choices": PLAIN}, r"The choices must be a CompressConfig, not a Config\. Make them"),
        ({"data": "data/mine"}, r"The data must be a Dataset, not a str\. Open a store with ihas"),
        *[({"workers": n}, r"--workers must be a positive whole number") for n in (0, 1.5, "2")],
    ],
)
def test_a_wrong_argument_is_named(log, tmp_path, change, words):
    given = {"config": PLAIN, "choices": CHOICES, "data": log, "workdir": tmp_path / "run"}
    with pytest.raises(InputError, match=words):
        compress(**given | change)
    assert not (tmp_path / "run").exists()


def test_a_budget_of_everything_is_as_good_as_the_base(log, tmp_path):
    """What is chosen is at most the tolerance below it, whatever standard errors allow."""
    found = compress(
        PLAIN,
        dataclasses.replace(CHOICES, budget=(1.0,), standard_errors=50.0),
        log,
        tmp_path / "run",
    )
    base, chosen = found.metrics["base"], found.metrics["chosen"]
    assert chosen["valid_auc"] >= base["valid_auc"] - CHOICES.tolerance
    assert chosen["parameters"] <= base["parameters"]


def test_without_teachers_all_learn_from_clicks(log, tmp_path):
    found = compress(PLAIN, CHOICES, log, tmp_path / "run")
    assert found.metrics["teachers"] == []
    assert not (tmp_path / "run" / "teach").exists()
    assert "All models learn from clicks." in (tmp_path / "run" / "report.md").read_text()


def test_trials_and_students_that_diverge_are_left_out(log, tmp_path, monkeypatch, caplog):
    """An FM of the pool, the DCNv2 as a student, and one size of the base's student."""

    def diverging(function, wanted):
        def train(*arguments):
            if wanted(*arguments):
                raise DivergedError("The loss became nan.")
            return function(*arguments)

        return train

    for name, wanted in (
        ("train_member", lambda run, trial: trial.model.name == "fm"),
        ("train_whole", lambda run, model: model.name == "dcnv2"),
        ("cut_student", lambda title, *_: title == "dnn, uniform, 50 %"),
    ):
        monkeypatch.setattr(compression, name, diverging(getattr(compression, name), wanted))
    more = dataclasses.replace(CHOICES, teachers=("fm", "lr"), students=("dcnv2",))
    found = compress(PLAIN, more, log, tmp_path / "run")
    assert found.metrics["diverged"] == [
        "fm_1e-05 on clicks",
        *("dcnv2, D = 4", "dcnv2, D = 4, batch norm"),
        "dnn, uniform, 50 %",
    ]
    names = [facts["name"] for facts in found.metrics["candidates"]]
    assert "dnn, spectral, 50 %" in names and not any("dcnv2" in name for name in names)
    assert "fm_1e-05 on clicks is left out, since its training diverged." in caplog.text
    text = (tmp_path / "run" / "report.md").read_text()
    assert "The training of these diverged, so they were left out: fm_1e-05 on clicks; " in text


def test_without_a_base_model_there_is_nothing_to_compress(log, tmp_path):
    wild = dataclasses.replace(PLAIN, optimizer=OptimizerConfig(learning_rate=1e30))
    with pytest.raises(InputError, match=r"Every trial of the base model diverged \(dnn_1e-05"):
        compress(wild, CHOICES, log, tmp_path / "run", workers=2)


def test_only_click_model_optimizer_training_and_seed_count(log, tmp_path):
    odd = Config(
        method="ihas",
        model=PLAIN.model,
        optimizer=PLAIN.optimizer,
        train=PLAIN.train,
        search=SearchConfig(rotate=True),
        retrain=RetrainConfig(teacher_weight=0.5, teacher_mean="log_odds"),
        options=(SpectralConfig(clusters=2),),
    )
    assert plain_config(odd) == dataclasses.replace(PLAIN, method="none")


def test_a_network_that_can_not_be_cut_is_refused_before_training(log, tmp_path, monkeypatch):
    class Pairs(Network):
        @nn.compact
        def __call__(self, vectors, *, train):
            flat = self.flat(vectors)
            return nn.Dense(1)((flat[:, :, None] * flat[:, None]).reshape(len(flat), -1))[:, 0]

    def build(parts):
        spec = parts.embedding()
        return Model({"embedding": spec}, Pairs(spec))

    for name in ("_entries", "sources"):
        monkeypatch.setattr(MODELS, name, dict(getattr(MODELS, name)))
    register_model("pairs", ClickModel(build, "all products of two numbers"))
    config = dataclasses.replace(PLAIN, model=dataclasses.replace(PLAIN.model, name="pairs"))
    with pytest.raises(InputError, match=r"network of pairs can't be cut .* --selections uniform"):
        compress(config, CHOICES, log, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_test_rows_of_one_class_have_no_auc_at_first_and_when_read_back(log, tmp_path):
    test = log.test._replace(labels=np.zeros_like(log.test.labels))
    found = [
        compress(PLAIN, CHOICES, dataclasses.replace(log, test=test), tmp_path / "run")
        for _ in range(2)
    ]
    for one in found:
        assert one.missing == () and math.isnan(one.metrics["chosen"]["auc"])
        assert one.metrics["choices"]["budget"] == [0.5]
