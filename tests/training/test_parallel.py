from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What parallel_check.py finds on four CPU devices."""
    script = Path(__file__).with_name("parallel_check.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), str(tmp_path_factory.mktemp("parallel"))],
        env=os.environ
        | {
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4",
            "JAX_PLATFORMS": "cpu",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 4
    return found


@pytest.mark.parametrize("model", ["plain", "batch norm", "rowwise"])
@pytest.mark.parametrize("way", ["jit", "pmap"])
def test_steps_give_the_single_device_result(found, model, way):
    assert found[model][way] < TOLERANCE
    assert found[model]["moved"] > 1000 * TOLERANCE


def test_a_search_round_gives_the_single_device_result(found):
    assert found["round"]["jit"] < TOLERANCE
    assert found["round"]["devices"] == 4


def test_a_round_takes_over_the_arrays_of_its_state(found):
    assert found["round"]["donated"]


def test_gate_noise_depends_on_the_place_in_the_whole_batch(found):
    assert found["noise"] == {"jit": True, "pmap": True, "random": True}


def test_a_whole_training_gives_the_single_device_result(found):
    assert found["fit"]["devices"] == 4
    assert found["fit"]["params"] < 1e-4
    assert found["fit"]["history"] < 1e-4


def test_a_checkpoint_of_four_devices_opens_on_one(found):
    assert found["fit"]["moved"] == 0


def test_a_batch_that_does_not_divide_stays_on_one_device(found):
    assert found["fit"]["odd batch"] == 1
