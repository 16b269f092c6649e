"""All stages of the baseline in PyTorch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ihas_jax.config import (
    ClusterConfig,
    Config,
    GateConfig,
    ModelConfig,
    OptimizerConfig,
    RetrainConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.data.synthetic import SyntheticConfig, synthetic

try:
    import torch
except ModuleNotFoundError:
    torch = None

# where a whole module is skipped, no test is counted as skipped
pytestmark = pytest.mark.skipif(torch is None, reason="needs PyTorch: pip install -e '.[bench]'")


CONFIG = Config(
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=128, max_epochs=3),
    search=SearchConfig(pretrain_epochs=1, gate_every=2),
    options=(ClusterConfig(batch_rows=1024, max_passes=3, min_rows=100),),
)


@pytest.fixture(scope="module")
def stages(bench):
    return bench("torch_stages")


@pytest.fixture(scope="module")
def log():
    return synthetic(SyntheticConfig(rows=3000, own=2, noise=2, values=30))


@pytest.mark.parametrize("kind", ["adam", "fused", "sparse"])
def test_all_stages_run(stages, log, kind):
    lines = []
    result = stages.run_stages(log, CONFIG, kind, lines.append)
    assert list(result["seconds"]) == ["search", "choose", "retrain", "evaluate"]
    assert min(result["seconds"].values()) > 0
    assert 0.5 < result["auc"] < 1
    assert 0 < result["logloss"] < 1
    assert result["epochs"]["search"] <= 3
    assert any(line.startswith("[retrain/0] epoch 0") for line in lines)
    if kind == "fused":
        again = stages.run_stages(log, CONFIG, kind, lines.append)
        assert again["auc"] == result["auc"]


def test_clusters_that_are_too_small_share_a_model_of_all_rows(stages, log):
    config = CONFIG.having(ClusterConfig(min_rows=10_000, max_passes=1))
    lines = []
    result = stages.run_stages(log, config, "fused", lines.append)
    assert np.isfinite([result["auc"], result["logloss"]]).all()
    assert not any(line.startswith("[retrain/1]") for line in lines)


def test_what_is_missing_here_is_refused(stages, log):
    for config in (
        dataclasses.replace(CONFIG, model=ModelConfig(dropout=0.2)),
        dataclasses.replace(CONFIG, retrain=RetrainConfig(start="tables")),
        CONFIG.having(GateConfig(polarization=False)),
    ):
        with pytest.raises(ValueError, match="no batch norm"):
            stages.run_stages(log, config, "fused", print)


def test_an_epoch_visits_every_row_and_fills_the_last_batch_from_its_start(stages):
    fitting = stages._Stages((1,), CONFIG, "fused", print)
    for rows, batches in ((300, 3), (50, 1), (128, 1)):
        data = (torch.arange(rows)[:, None], torch.arange(rows))
        drawn = [labels for _, labels in fitting._epoch(data)]
        assert [len(part) for part in drawn] == [128] * batches
        order = torch.cat(drawn)
        assert sorted(order[:rows].tolist()) == list(range(rows))
        assert torch.equal(order[rows:], order[: len(order) - rows])
