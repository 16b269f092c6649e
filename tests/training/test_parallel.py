from __future__ import annotations

import json
import os
import re
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


@pytest.mark.parametrize("model", ["plain", "batch norm", "rowwise", "deferred"])
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


@pytest.mark.parametrize("step", ["plain", "jit", "partial", "lambda"])
def test_pmap_refuses_a_step_without_its_axis_however_it_is_wrapped(found, step):
    """Biases before batch norms and their moments have no gradient, so they can't differ."""
    assert re.match(
        r"Of the arrays that the step returns, 32 would differ from device to device, such as "
        r"state\.params\['network'\].*does not average.*Build its model with axis_name='data'",
        found["refusals"][step],
    )


def test_pmap_refuses_statistics_and_metrics_of_one_device(found):
    refusals = found["refusals"]
    assert refusals["own batch norm"].startswith("Of the arrays that the step returns, 4 would")
    assert "state.stats['network']['mlp']['norm_0']['mean']" in refusals["own batch norm"]
    assert refusals["own metric"].startswith("Of the arrays that the step returns, 1 would")
    assert "metrics['clicks']" in refusals["own metric"]


def test_pmap_refuses_another_axis(found):
    refusal = found["refusals"]["other axis"]
    assert "unbound axis name: rows" in refusal
    assert "Give build_model and pmap_step the same axis_name." in refusal


def test_pmap_refuses_a_batch_that_does_not_divide(found):
    for rows, refusal in ((30, "uneven"), (0, "empty")):
        start = f"A batch of {rows} rows can't be split evenly among 4 devices."
        assert found["refusals"][refusal].startswith(start)


def test_pmap_takes_a_step_with_its_axis(found):
    assert found["refusals"]["named"] == found["refusals"]["named, jit"] == ""


def test_under_pmap_the_state_stays_on_all_devices(found):
    place = found["place"]
    assert place["copies"] == 4 and place["whole"]
    assert place["taken over"]
    assert place["steps"] == 5


def test_under_pmap_a_step_is_traced_once(found):
    first, *later = found["place"]["traces"]
    assert later == [first, first]


@pytest.mark.parametrize("loop", ["training", "search"])
def test_the_loops_of_the_readme_under_pmap_give_the_single_device_result(found, loop):
    readme = found["readme"]
    assert readme[loop] < TOLERANCE
    assert readme[f"{loop} predictions"] < TOLERANCE
    assert readme[f"{loop} devices"] == 4
    assert readme[f"{loop} steps"] == 8
    assert 0.2 < readme[f"{loop} loss"] < 1
    assert readme["lines"] <= 15


def test_a_whole_training_gives_the_single_device_result(found):
    assert found["fit"]["devices"] == 4
    assert found["fit"]["params"] < 1e-4
    assert found["fit"]["history"] < 1e-4


def test_a_checkpoint_of_four_devices_opens_on_one(found):
    assert found["fit"]["moved"] == 0


def test_a_batch_has_the_most_devices_that_divide_it(found):
    assert found["fit"]["odd batch"] == [3, 2]


def test_devices_share_the_batches_of_predictions_and_give_the_very_numbers_of_one(found):
    found = found["predictions"]
    assert found["spread"] > 0.01
    assert found["streamed"] == {"equal": True, "rows": [None, None], "batches": [51, 51]}
    assert found["summed"] == {"equal": True, "rows": [13_000, 13_000], "batches": [4, 4]}
    streamed, summed = [[64, 256]], [[4, 4096]]
    four = [[[16, 1, 256]] * 4, [[1, 1, 4096]] * 4]
    assert found["shards"] == [streamed, four[0], summed, four[1]]


def test_a_training_tells_its_steps_which_devices_share_them(found):
    assert found["fit"]["shared by"] == [4]


def test_a_rowwise_step_exchanges_the_rows_of_a_batch_once(found):
    program = found["rowwise program"]
    assert program["with"] < program["without"]
