"""Some cases of each kind; `robustness.py fuzz` does thousands."""

from __future__ import annotations

import random

import pytest

KINDS = ("log", "next_day", "rows", "bytes")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", range(4))
def test_random_logs_and_rows(bench, kind, block, tmp_path):
    fuzz = getattr(bench("fuzzing"), f"fuzz_{kind}")
    for case in range(12):
        folder = tmp_path / str(case)
        folder.mkdir()
        seed = f"{kind}/{block}/{case}"
        verdict = fuzz(random.Random(seed), folder)
        assert not verdict.fault, f"{seed}: {verdict.fault}"
