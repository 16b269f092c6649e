from __future__ import annotations

import dataclasses
import json

import pytest


@pytest.fixture(scope="module")
def devices(command):
    return dataclasses.replace(command, script="devices.py")


def test_devices_hold_and_receive_what_is_counted(command, devices):
    results = command.folder / "devices"
    done = devices(
        *("--devices", 1, 4, "--processes", 1, 2, "--shrink", 20, "--turns", 1, "--part-of", 1, 4),
        *("--values", 9000, 20_000, "--batches", 64, "--results", results),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(results.with_suffix(".json").read_text())
    cases = [(row["devices"], row["tables"], row["split"]) for row in found["shared"]]
    four = [(4, tables, split) for tables in ("dense", "rowwise") for split in (False, True)]
    assert cases == [(1, "dense", False), (1, "rowwise", False), *four]
    for row in found["shared"]:
        expected = row["expected"]
        assert row["bytes received"] == pytest.approx(expected["bytes received"], rel=1e-4)
        padded = 1.1 if row["split"] else 1  # a whole table of 54,000 rows is not padded
        assert expected["bytes held"] <= row["bytes held"] <= padded * expected["bytes held"]
    two = [(2, 4096, tables, split) for _, tables, split in four]
    added = [(row["devices"], row["B"], row["tables"], row["split"]) for row in found["added"]]
    assert added == [(1, 2048, "dense", False), (1, 2048, "rowwise", False), *two]
    for row in found["added"]:
        counted = row["expected"]["bytes received"]
        assert row["bytes received"] == pytest.approx(counted, rel=1e-4)
    assert [(row["devices"], row["V"]) for row in found["parts"]] == [(1, 9009), (4, 20_124)]
    assert "| rowwise | between all | 4 |" in results.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--batches", 12, "--part-of", 8, "--values", 1000), "--batches must be multiples"),
        (("--part-of", 8, "--values", 1000, 1000), "--values needs one number below 2^31"),
        (("--part-of", 8, "--values", 2**31), "--values needs one number below 2^31"),
    ],
)
def test_steps_that_can_not_be_shared_are_refused(devices, flags, words):
    done = devices("--devices", "--processes", *flags)
    assert done.returncode == 2 and words in done.stderr
