"""Loading a bundle in a process of its own: what it imports, on which devices, by which JAX."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from ihas_jax.models.predict import _predictor
from ihas_jax.selectors.routing import _assign
from ihas_jax.serving.storage import load_bundle

BUNDLES = Path(__file__).parent / "bundles"
MADE = sorted(path.parent for path in BUNDLES.glob("*/*/bundle.json"))
PREDICT = """
import json, sys
import ihas_jax
bundle = ihas_jax.load_bundle(sys.argv[1])
rows = json.load(open(sys.argv[1] + ".json"))
probs = bundle.predict_ids(rows["ids"]).tolist()
import jax
print(json.dumps({"probs": probs, "devices": len(jax.devices()), "modules": [*sys.modules]}))
"""
TRAINING = {"orbax", "tensorstore", "grain", "optax", "sklearn", "scipy", "polars", "matplotlib"}


def rows_of(path):
    return json.loads(path.with_name(f"{path.name}.json").read_text())


def predict(path, *flags):
    """What another process predicts and imports."""
    environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
    command = [sys.executable, "-c", PREDICT, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def test_there_is_a_bundle_of_each_version_and_router():
    names = [f"{path.parent.name}/{path.name}" for path in MADE]
    assert names == [
        f"jax_{version}/{router}"
        for version in ("0_10", "0_12")
        for router in ("compiled", "exact")
    ]


@pytest.mark.parametrize("path", MADE, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_bundle_that_another_version_of_jax_made_predicts_the_same(path):
    bundle, rows = load_bundle(path), rows_of(path)
    np.testing.assert_array_equal(bundle.assign(rows["ids"]), rows["clusters"])
    np.testing.assert_allclose(bundle.predict_ids(rows["ids"]), rows["probs"], rtol=1e-6)
    assert len(set(rows["clusters"])) == len(bundle.models) == 2
    assert np.ptp(rows["probs"]) > 0.1


@pytest.mark.parametrize("router", ["exact", "compiled"])
def test_prediction_needs_no_code_of_trainings_and_no_number_of_devices(router):
    path = BUNDLES / "jax_0_10" / router
    one = predict(path)
    four = predict(path, "--xla_force_host_platform_device_count=4")
    assert (one["devices"], four["devices"]) == (1, 4)
    assert one["probs"] == four["probs"]
    np.testing.assert_allclose(one["probs"], rows_of(path)["probs"], rtol=1e-6)
    assert not TRAINING & set(one["modules"])
    packages = {name.split(".")[1] for name in one["modules"] if name.startswith("ihas_jax.")}
    assert not packages & {"training", "stages", "pipeline", "reporting"}
    selectors = {name for name in one["modules"] if name.startswith("ihas_jax.selectors.")}
    assert ("ihas_jax.selectors.bernoulli" in selectors) == (router == "exact")


@pytest.mark.parametrize("router", ["exact", "compiled"])
def test_nothing_is_compiled_after_the_warm_up(router, caplog):
    bundle = load_bundle(BUNDLES / "jax_0_10" / router)
    # programs of equal models are shared: those of other tests do not count
    _predictor.cache_clear()
    _assign.cache_clear()
    bundle.warm_up()
    rows = rows_of(BUNDLES / "jax_0_10" / router)
    ids = np.tile(rows["ids"], (150, 1))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for number in (1, 2, 17, 40, 300, 5000):
            probs = bundle.predict_ids(ids[:number])
            np.testing.assert_allclose(probs[:40], rows["probs"][:number], rtol=1e-6)
    assert [record for record in caplog.records if "compil" in record.getMessage().lower()] == []
