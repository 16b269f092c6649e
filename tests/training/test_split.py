"""Tables that four devices hold between them; see split_check.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

from ihas_jax.errors import InputError
from ihas_jax.models.placing import mesh_of, of_rows, place, whole
from ihas_jax.nn.draw import as_normal, as_uniform, bits_of_rows
from ihas_jax.nn.embedding import EmbeddingSpec, field_of_rows
from ihas_jax.nn.split import MULTIPLE, padded_rows
from ihas_jax.selectors.registry import METHODS
from ihas_jax.training.rowwise import init_row_adam, update_rows

VALUES, DIM = 4001 + 9 + 2503 + 40, 16
TOLERANCE = 1e-5
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What split_check.py finds on four CPU devices."""
    script = Path(__file__).with_name("split_check.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), str(tmp_path_factory.mktemp("split"))],
        env=os.environ
        | {
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4",
            "JAX_PLATFORMS": "cpu",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_devices_draw_their_rows_of_the_table_that_one_device_draws(found):
    kinds = ("xavier", "normal", "zeros", "groups", "stored")
    assert found["draws"] == dict.fromkeys(kinds, True)


@pytest.mark.parametrize("tables", ["dense", "rowwise", "deferred"])
@pytest.mark.parametrize("model", ["dnn", "deepfm", "ffm"])
def test_a_training_round_gives_the_single_device_result(found, model, tables):
    of_model = found["models"][f"{model}, {tables}"]
    assert of_model["drawn"] == 0 and of_model["moments"] < TOLERANCE
    # Adam divides a gradient by its size, and so makes much of the last bits of a small one
    assert of_model["params"] < 10 * TOLERANCE
    assert of_model["moved"] < VALUES * DIM and of_model["rows"] < VALUES


@pytest.mark.parametrize("model", ["dnn", "deepfm", "ffm"])
def test_predictions_are_those_of_a_single_device(found, model):
    of_model = found["models"][f"{model}, rowwise"]
    assert of_model["predicted"] == 0 and of_model["on the host"] == 0
    # a program of five rows that is compiled quickly adds in another order
    assert of_model["few predicted"] < TOLERANCE


@pytest.mark.parametrize("method", [*METHODS, "pep, value", "pep, value_coordinate", "pep, field"])
def test_a_search_round_moves_and_holds_no_table(found, method):
    of_method = found["methods"][method]
    assert of_method["difference"] < TOLERANCE
    assert of_method["moved"] < VALUES and of_method["rows"] < VALUES
    assert of_method["arrays"] >= 3 and of_method["whole"] == 0


@pytest.mark.parametrize("model", ["base", "search", "ihas"])
def test_a_run_gives_the_result_of_whole_tables(found, model):
    assert found["fit"][f"{model} logloss"] < TOLERANCE
    assert found["fit"][f"{model} auc"] < TOLERANCE


def test_no_device_ever_holds_a_whole_table(found):
    assert found["fit"]["looks"] > 50
    assert found["fit"]["most on a device"] == 0
    assert found["fit"]["most of replicated"] == VALUES  # the check sees one


@pytest.mark.parametrize(("first", "then"), [("rows", "replicated"), ("replicated", "rows")])
def test_a_training_resumes_with_tables_held_in_another_way(found, first, then):
    assert found["fit"][f"{first} stopped"]
    assert found["fit"][f"{first} to {then}"] < 1e-6


def test_devices_hold_the_tables_of_a_bundle_between_them(found):
    bundle = found["bundle"]
    assert bundle["router"] == "Router" and bundle["difference"] == 0
    assert bundle["most on a device"] == 0 and bundle["most of whole tables"] == VALUES
    assert bundle["equal files"] == bundle["files"] > 5


def test_seeds_side_by_side_give_the_result_of_whole_tables(found):
    assert found["seeds"] < 1e-6


@pytest.mark.parametrize(("first", "before"), [(0, 0), (3, 0), (5, 70), (11, 12345)])
def test_rows_are_drawn_as_jax_draws_the_whole_array(first, before):
    rows, width = 9, 7
    flat = jax.random.bits(KEY, (before + (first + rows) * width,))[before:]
    wanted = flat.reshape(-1, width)[first:]
    bits = bits_of_rows(KEY, jnp.int32(first), (rows, width), before)
    np.testing.assert_array_equal(bits, wanted)
    numbers = jax.random.uniform(KEY, (before + (first + rows) * width,), minval=-0.3, maxval=0.2)
    found = jax.jit(as_uniform, static_argnums=(1, 2))(bits, -0.3, 0.2)
    np.testing.assert_array_equal(found, numbers[before:].reshape(-1, width)[first:])
    numbers = jax.random.normal(KEY, (before + (first + rows) * width,))
    found = jax.jit(as_normal)(bits)
    np.testing.assert_array_equal(found, numbers[before:].reshape(-1, width)[first:])


@pytest.mark.parametrize(
    ("first", "width", "before"),
    [
        *((2**29, 16, 0), (2**28 - 1, 16, 3), (5, 3, 2**32 - 7), (2**30, 48, 2**35 + 11)),
        (1365 * 2**16 + 60_000, 48, 0),  # a product whose lower word overflows
        (2**32 // 3, 3, 0),  # a row whose numbers are on both sides of 2^32
    ],
)
def test_places_of_numbers_have_64_bits(first, width, before):
    """Number i of a draw belongs to i alone, whose words threefry mixes."""
    bits = np.asarray(bits_of_rows(KEY, jnp.int32(first), (2, width), before))
    for row, column in ((0, 0), (0, width - 1), (1, 0), (1, width - 1)):
        place = before + (first + row) * width + column
        words = jnp.array([place >> 32, place & 0xFFFFFFFF], jnp.uint32)
        high, low = threefry_2x32(jax.random.key_data(KEY), words)
        assert bits[row, column] == high ^ low


def test_keys_of_another_kind_are_refused():
    with pytest.raises(InputError, match="threefry2x32, not rbg"):
        bits_of_rows(jax.random.key(0, impl="rbg"), jnp.int32(0), (2, 3))


def test_rows_of_other_devices_are_left_out_of_an_update():
    """An index of V is none of the table's rows, alone or beside others, in every seed."""
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    gradients = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32)
    index = jnp.array([5, 1, 5, 1, 4, 5], jnp.int32)
    kept = jnp.array([1, 3, 4])

    def updated(index, gradients):
        state = init_row_adam(table)
        return update_rows(state, index, gradients, jnp.int32(1), 0.1, 0.01)[:3]

    found, wanted = updated(index, gradients), updated(index[kept], gradients[kept])
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    pairs = jnp.stack([index, index]), jnp.stack([gradients, -gradients])
    other = updated(index[kept], -gradients[kept])
    for ours, *theirs in zip(jax.vmap(updated)(*pairs), wanted, other, strict=True):
        np.testing.assert_array_equal(ours, jnp.stack(theirs))


@pytest.mark.parametrize(
    ("rows", "padded"), [(1, 1), (3839, 3839), (3840, 3840), (3841, 7680), (10_000, 11_520)]
)
def test_rows_are_padded_to_a_multiple_if_they_are_many(rows, padded):
    assert padded_rows(rows) == padded


def test_arrays_with_a_row_per_value_are_told_from_others():
    rows, dim = MULTIPLE + 5, 4
    arrays = {
        "params": {
            "tables": {"embedding": {"w": np.ones((rows, dim))}, "linear": {"w": np.ones((9, 1))}},
            "network": {"kernel": np.ones((MULTIPLE, dim))},
            "selector": {
                "each": np.ones((rows, 1)),
                "all": np.ones((rows, dim)),
                "square": np.ones((MULTIPLE, MULTIPLE), np.int8),
                "one": np.ones(()),
            },
        },
        "constants": {"factors": {"w": np.ones((rows, 1))}, "groups": {"of_value": np.ones(rows)}},
    }
    assert of_rows(arrays) == {
        "params": {
            "tables": {"embedding": {"w": True}, "linear": {"w": False}},
            "network": {"kernel": False},
            "selector": {"each": True, "all": True, "square": False, "one": False},
        },
        "constants": {"factors": {"w": True}, "groups": {"of_value": False}},
    }


def test_one_device_holds_arrays_as_they_are():
    tree = {"tables": {"embedding": {"w": np.arange(2.0 * MULTIPLE + 2).reshape(-1, 2)}}}
    placed = place(tree, mesh_of(jax.devices()[:1], split=True))
    assert placed["tables"]["embedding"]["w"].shape == (MULTIPLE + 1, 2)
    assert whole(placed, tree) is not None


def test_each_row_has_its_field_and_padding_has_the_last():
    spec = EmbeddingSpec((3, 1, 2), 4)
    np.testing.assert_array_equal(field_of_rows(spec, 8), [0, 0, 0, 1, 2, 2, 2, 2])
