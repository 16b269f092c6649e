from __future__ import annotations

import pytest

from ihas_jax.data.drift import find_drift
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
