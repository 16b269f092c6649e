from __future__ import annotations

import dataclasses
import json

import pytest

from ihas_jax.config import (
    ClusterConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.config.methods import AutoEmbConfig, OptFSConfig
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.errors import InputError
from ihas_jax.pipeline.fit import fit, fit_seeds

CONFIG = Config(
    model=ModelConfig(dim=2, hidden=(4,)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=50, round_batches=4, max_epochs=2),
    search=SearchConfig(pretrain_epochs=1, gate_every=2),
    options=(
        ClusterConfig(clusters=1, majority=0.0, min_rows=10),
        OptFSConfig(epochs=2, rewind=1),
        AutoEmbConfig(dims=(2,)),
    ),
)


@pytest.fixture(scope="module")
def log():
    return synthetic(SyntheticConfig(rows=1000, own=2, noise=1, values=10))


def events(workdir):
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "epoch"]


@pytest.mark.parametrize("method", ["ihas", "optfs", "adafs_hard", "autoemb"])
def test_seeds_together_leave_what_each_leaves_alone(log, tmp_path, method):
    config = dataclasses.replace(CONFIG, method=method)
    results = fit_seeds(config, log, {seed: tmp_path / f"together{seed}" for seed in (3, 4)})
    alone = [
        fit(dataclasses.replace(config, seed=3), log, tmp_path / "alone3"),
        # the second seed's run is compared before its choice
        fit(dataclasses.replace(config, seed=4), log, tmp_path / "alone4", "base"),
    ]
    assert [result.workdir.name for result in results] == ["together3", "together4"]
    # from two different seeds
    assert events(alone[0].workdir)[0]["loss"] != events(alone[1].workdir)[0]["loss"]
    for found, expected in zip(results, alone, strict=True):
        ours, theirs = ((run.workdir / "config.json").read_text() for run in (found, expected))
        assert ours == theirs
        ours, theirs = events(found.workdir), events(expected.workdir)
        shared = len(theirs) if expected.metrics else 2
        for a, b in zip(ours[:shared], theirs[:shared], strict=True):
            assert a.keys() == b.keys()
            assert a["stage"] == b["stage"]
            for name in a.keys() - {"stage", "event", "time"}:
                # sums over a batch in another order, amplified by Adam over two epochs
                assert a[name] == pytest.approx(b[name], rel=1e-3)
    found, expected = results[0].metrics, alone[0].metrics
    assert found.keys() == expected.keys()
    for model in {"base", "search", method} & found.keys():
        assert found[model]["auc"] == pytest.approx(expected[model]["auc"], abs=1e-3)
        assert found[model]["logloss"] == pytest.approx(expected[model]["logloss"], abs=1e-3)
        assert found[model]["parameters"] == expected[model]["parameters"]
    assert all(seconds >= 0 for seconds in found["seconds"].values())
    # the second seed is finished too
    before = (tmp_path / "together4" / "log.jsonl").read_text()
    again = fit(dataclasses.replace(config, seed=4), log, tmp_path / "together4")
    assert again.metrics == results[1].metrics
    assert (tmp_path / "together4" / "log.jsonl").read_text() == before


def test_each_seed_stops_by_its_own_validation_rows(log, tmp_path):
    """With a stopping share the rows that decide when to stop are drawn anew for each seed."""
    search = dataclasses.replace(CONFIG.search, stopping_share=0.3)
    config = dataclasses.replace(CONFIG, method="autofield", search=search)
    fit_seeds(config, log, {seed: tmp_path / f"together{seed}" for seed in (3, 4)})
    fit(dataclasses.replace(config, seed=4), log, tmp_path / "alone", "search")
    ours, theirs = (
        [e for e in events(tmp_path / name) if e["stage"] == "search"]
        for name in ("together4", "alone")
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a["logloss"] == pytest.approx(b["logloss"], rel=1e-4)


def test_rows_that_do_not_fit_the_device_are_refused(log, tmp_path):
    train = dataclasses.replace(CONFIG.train, device_data_gb=0.0)
    with pytest.raises(InputError, match=r"--train\.device-data-gb"):
        fit_seeds(
            dataclasses.replace(CONFIG, train=train),
            log,
            {seed: tmp_path / str(seed) for seed in (3, 4)},
        )
