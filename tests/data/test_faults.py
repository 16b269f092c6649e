"""Logs as they should not be: handled, or a clear error; never a silently wrong store."""

from __future__ import annotations

import gzip
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ihas_jax.data.open import open_store
from ihas_jax.data.raw import formats, ingest, records, vocabulary
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.raw.spool import Spool
from ihas_jax.data.store import verify_store
from ihas_jax.errors import InputError


def read_back(store):
    """All values and labels, in the order of the log."""
    data = open_store(store)
    (field,) = data.schema.fields
    values = np.array([*field.values, "other"], dtype=object)
    splits = (data.train, data.valid, data.test)
    return (
        np.concatenate([values[np.asarray(s.ids)[:, 0]] for s in splits]),
        np.concatenate([s.labels for s in splits]),
    )


def write(path, values, *, start="", end="\n"):
    lines = [f"{value},{i % 2}" for i, value in enumerate(values)]
    path.write_bytes((start + end.join(["ad,y", *lines]) + end).encode())
    return formats.table(path, label="y", categorical=["ad"])


def prepared(log, store, **choices):
    prepare(log, store, min_count=1, split="chronological", **choices)
    verify_store(store)
    return read_back(store)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(records, "BLOCK_BYTES", 500)


def test_long_lines(tmp_path):
    values = ["x" * 1_000_000 if i == 5 else f"v{i}" for i in range(20)]
    found, labels = prepared(write(tmp_path / "log.csv", values), tmp_path / "store")
    assert found.tolist() == values
    assert labels.tolist() == [0, 1] * 10


def test_many_long_values_are_counted_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "_PART_BYTES", 2000)
    parts = []
    counts = Spool.counts

    def watch(self, number):
        parts.append(number)
        return counts(self, number)

    monkeypatch.setattr(Spool, "counts", watch)
    rng = np.random.default_rng(0)
    values = ["".join(map(chr, rng.integers(97, 123, 1000))) for _ in range(20)] * 2
    log = write(tmp_path / "log.csv", values)
    found, _ = prepared(log, tmp_path / "store")
    assert found.tolist() == values
    assert len(parts) > 10


@pytest.mark.parametrize("character", ["\0", "\u2028", "\x0b", "\x1c", "\ufeff", "é"])
def test_odd_characters_are_part_of_a_value(tmp_path, character):
    values = [f"a{character}{i}" for i in range(12)]
    found, _ = prepared(write(tmp_path / "log.csv", values), tmp_path / "store")
    assert found.tolist() == values


@pytest.mark.parametrize("packed", [False, True])
def test_marks_and_windows_line_ends(tmp_path, packed):
    values = [f"v{i}" for i in range(200)]
    path = tmp_path / "log.csv"
    log = write(path, values, start="\ufeff", end="\r\n")
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
        log = formats.table(path, label="y", categorical=["ad"])
    found, labels = prepared(log, tmp_path / "store")
    assert found.tolist() == values
    assert labels.tolist() == [0, 1] * 100


def test_quoted_separators_and_line_ends(tmp_path):
    values = [f'a,"{i}"\n' for i in range(30)]
    path = tmp_path / "log.csv"
    pl.DataFrame({"ad": values, "y": [0, 1] * 15}).write_csv(path)
    found, _ = prepared(formats.table(path, label="y", categorical=["ad"]), tmp_path / "store")
    assert found.tolist() == values


def test_a_truncated_gzip_member_leaves_nothing(tmp_path):
    log = write(tmp_path / "log.csv", [f"v{i}" for i in range(500)])
    text = log.paths[0].read_bytes()
    members = [gzip.compress(part) for part in (text[:2000], text[2000:])]
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(members[0] + members[1][:-20])
    log = formats.table(packed, label="y", categorical=["ad"])
    with pytest.raises(InputError, match="truncated or damaged gzip"):
        prepare(log, tmp_path / "store")
    assert not list(tmp_path.glob("*store*")) and not list(tmp_path.glob(".*"))


def test_an_output_that_cannot_be_made(tmp_path):
    log = write(tmp_path / "log.csv", ["v"] * 20)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/store cannot be made: Not a directory"):
        prepare(log, tmp_path / "file" / "store")


@contextmanager
def ordinary_user():
    """Permissions bind even where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that every user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("output", ["store", "deeper/store"])
def test_a_read_only_folder(open_folder, output, monkeypatch):
    # the installed packages may be out of that user's reach
    monkeypatch.setattr(ingest, "version", lambda package: "1")
    log = write(open_folder / "log.csv", ["v"] * 20)
    locked = open_folder / "locked"
    locked.mkdir(mode=0o555)
    with (
        ordinary_user(),
        pytest.raises(InputError, match=f"locked/{output} cannot be made: Permission denied"),
    ):
        prepare(log, locked / output)
    assert list(locked.iterdir()) == []
