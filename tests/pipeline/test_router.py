"""Runs with a compiled router, from the clusters to the bundle and the report."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ihas_jax.config import (
    ClusterConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.config.shares import SpectralConfig
from ihas_jax.errors import InputError
from ihas_jax.pipeline.fit import fit
from ihas_jax.selectors.by_value import ScoreRouter
from ihas_jax.stages.plans import load_plan

IHAS = Config(
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=2),
    search=SearchConfig(pretrain_epochs=2, gate_every=2),
    options=(ClusterConfig(router="compiled", min_rows=100, min_agreement=0.5),),
)
SPECTRAL = dataclasses.replace(
    IHAS,
    method="spectral",
    search=SearchConfig(),
    options=(SpectralConfig(clusters=2), ClusterConfig(router="compiled", min_agreement=0.5)),
)


@pytest.fixture(scope="module", params=[IHAS, SPECTRAL], ids=["ihas", "spectral"])
def routed(request, log, tmp_path_factory):
    return fit(request.param, log, tmp_path_factory.mktemp("routed") / "run")


def test_training_and_serving_send_rows_the_same_way(routed, load_served, log):
    method = routed.metrics["method"]
    bundle, (plan, _) = load_served(routed, method), load_plan(routed.workdir / "choose")
    assert isinstance(bundle.router, ScoreRouter)
    for expert, rows in ((e, e.rows) for e in plan.experts if e.rows is not None):
        cluster = int(expert.name.removeprefix("cluster_"))
        found = bundle.assign(log.train.ids)
        np.testing.assert_array_equal(np.flatnonzero(found == cluster), rows)
        np.testing.assert_array_equal(
            np.flatnonzero(bundle.assign(log.valid.ids) == cluster), expert.valid_rows
        )
    shares = np.bincount(bundle.assign(log.train.ids), minlength=2) / len(log.train.labels)
    np.testing.assert_allclose(plan.shares, shares)


def test_metrics_and_report_have_the_router_beside_the_exact_one(routed, log):
    router, method = routed.metrics["router"], routed.metrics["method"]
    values = sum(log.schema.sizes)
    assert router["kept"] and router["agreement"] >= 0.5
    assert router["compiled"]["parameters"] == values + 1
    assert router["exact"]["parameters"] >= values * 4
    assert min(router[name]["microseconds"] for name in ("compiled", "exact")) > 0
    assert routed.metrics[method]["router_parameters"] == values + 1
    text = (routed.workdir / "report.md").read_text()
    assert f"Routing an instance needs {values + 1:,} more: a score of each value" in text
    assert f"sends {router['test_agreement']:.1%} of the test rows to the same cluster" in text


def test_the_bundle_has_no_gates(routed, load_served, log):
    bundle = load_served(routed, routed.metrics["method"])
    with pytest.raises(InputError, match="The bundle has no gates, since a compiled"):
        bundle.masks(log.test.ids[:2])


def test_where_routers_agree_too_little_the_exact_one_serves(log, load_served, tmp_path):
    strict = dataclasses.replace(
        IHAS, options=(dataclasses.replace(IHAS.of(ClusterConfig), min_agreement=1.0),)
    )
    found = fit(strict, log, tmp_path / "run")
    assert not found.metrics["router"]["kept"]
    bundle = load_served(found, "ihas")
    assert not isinstance(bundle.router, ScoreRouter)
    share = f"{found.metrics['router']['agreement']:.1%}"
    text = (tmp_path / "run" / "report.md").read_text()
    assert f"A compiled router would send {share} of the validation rows the same way" in text
