"""Rows on a mesh: how many devices take part, and row numbers that are none."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ihas_jax import processes
from ihas_jax.errors import InputError
from ihas_jax.training import parallel


@pytest.fixture
def devices(monkeypatch, caplog):
    """`devices(number)`: as many devices, and meshes of them as `(their names, whether split)`."""
    caplog.set_level("WARNING", "ihas_jax")
    monkeypatch.setattr(parallel, "mesh_of", lambda devices, split: ("".join(devices), split))
    return lambda number: monkeypatch.setattr(
        processes, "devices", lambda: list("abcdefgh"[:number])
    )


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(("batch", "number"), [(8, 4), (6, 3), (10, 2), (7, 1)])
def test_a_mesh_has_the_most_devices_that_divide_a_batch(devices, caplog, batch, number, split):
    devices(4)
    assert parallel.data_mesh(batch, split_tables=split) == ("abcd"[:number], split)
    said = [] if number == 4 else [f"{number} of 4 devices compute, the most that divide a batch"]
    assert [line[: len(said[0])] for line in caplog.messages] == said


def test_tables_are_split_over_a_divisor_of_their_rows_alone(devices, caplog):
    devices(7)
    assert parallel.data_mesh(7 * 6, split_tables=True) == ("abcdef", True)
    assert "6 of 7 devices compute, since tables are split over a divisor of 3840" in caplog.text
    assert parallel.data_mesh(7 * 6) == ("abcdefg", False)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.array([[0, -2]]), "hold -2; rows count from 0"),
        (np.zeros((2, 2)), r"float64 \[2, 2\]"),
        (np.zeros(4, int), r"int64 \[4\]"),
    ],
)
def test_row_numbers_that_are_none_are_refused(rows, words):
    with pytest.raises(InputError, match=words):
        parallel.shard_rows(rows, parallel.data_mesh(2))


def test_rows_that_devices_do_not_divide_are_refused():
    with pytest.raises(InputError, match="a multiple of the 4 devices"):
        parallel.shard_rows(np.zeros((1, 6), int), SimpleNamespace(size=4))
