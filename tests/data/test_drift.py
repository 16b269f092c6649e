from __future__ import annotations

import numpy as np
import pytest

from ihas_jax.data import drift
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.drift import find_drift, with_shares
from ihas_jax.data.schema import Field, Schema


@pytest.mark.parametrize(
    ("counted", "share", "rows", "found"),
    [
        (0.02, 1.0, 100, True),
        (0.02, 1.0, 99, False),  # too few rows
        (0.02, 0.5, 1000, False),  # more than half of the known values are still there
        (0.02, 0.52, 1000, True),
        (0.95, 1.0, 100, False),  # five known rows may be missing by chance
        (0.95, 1.0, 1000, True),
        (1.0, 1.0, 1000, False),
        (0.0, 1.0, 100, True),
        (None, 1.0, 1000, False),
    ],
)
def test_far_more_other_than_counted(counted, share, rows, found):
    schema = Schema("y", (Field("ad", ("a",), other_share=counted),))
    drifts = find_drift(schema, [share], rows)
    assert bool(drifts) == found
    if found:
        assert str(drifts[0]) == f"ad: {share:.1%} of the rows are other, {counted:.1%} expected"


def test_fields_without_a_share_get_that_of_the_training_rows(monkeypatch):
    monkeypatch.setattr(drift, "_BLOCK_ROWS", 3)
    ids = np.array([[1, 0], [0, 1], [1, 1], [1, 0]], np.int32)
    split = Split(ids, np.zeros(4, np.uint8))
    fields = (Field("a", ("x",)), Field("b", ("y",), other_share=0.1))
    found = with_shares(Dataset(Schema("y", fields), split, split, split))
    assert [field.other_share for field in found.fields] == [0.75, 0.1]
