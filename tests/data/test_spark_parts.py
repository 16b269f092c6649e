"""Units, parts and splits of a log that many processes read; the tests need no Spark."""

from __future__ import annotations

import gzip
from functools import partial

import numpy as np
import polars as pl
import pytest

from ihas_jax.data import split as splits
from ihas_jax.data.raw import formats, records
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.spark import units
from ihas_jax.data.spark.parts import Selection, make_parts
from ihas_jax.data.spark.splitters import AtRandom, InOrder, find_boundaries, sum_ties
from ihas_jax.data.spark.spooling import spool_unit
from ihas_jax.data.spark.units import cut_log, scan_range
from ihas_jax.data.split import SPLITS, assign_splits, hash_rows, random_cuts, split_counts
from ihas_jax.errors import InputError

VALUES = ["a", "b", "é€", '"x,y"', '"q""t"', '"one\ntwo"', '"\n"', '""', ""]


def rows_of(rng, count):
    return "".join(f"{i % 2},{rng.choice(VALUES)},{rng.integers(9)}\n" for i in range(count))


def cut(log, size):
    return cut_log(log, size, lambda ranges: [scan_range(part) for part in ranges])


def texts(chunks):
    """All rows of chunks, and the places of bad ones."""
    rows, bad, complaints = [], [], []
    for chunk in chunks:
        bad += (len(rows) + chunk.bad).tolist()
        complaints += [chunk.complaint] if chunk.complaint else []
        columns = [values.gather(codes).to_list() for codes, values in chunk.columns]
        rows += zip(chunk.labels.tolist(), *columns, strict=True)
    return rows, bad, complaints


def read(log, size):
    """The rows of all units of a log, and the number of units."""
    parts = cut(log, size)
    found = [texts(unit.chunks(log)) for unit in parts]
    rows = [row for part, *_ in found for row in part]
    return rows, len(parts), [line for *_, lines in found for line in lines]


@pytest.mark.parametrize("size", [7, 30, 100, 700])
@pytest.mark.parametrize("block", [5, 64, 1 << 20])
def test_units_of_quoted_text_are_the_log(tmp_path, monkeypatch, size, block):
    monkeypatch.setattr(units, "_BLOCK_BYTES", block)
    monkeypatch.setattr(records, "BLOCK_BYTES", 50)
    rng = np.random.default_rng(size)
    for name in "ab":
        (tmp_path / name).write_text("\ufeffy,s,k\n" + rows_of(rng, 60), encoding="utf-8")
    (tmp_path / "c").touch()
    log = formats.table(
        *(tmp_path / name for name in "acb"), label="y", categorical=["s"], numeric=["k"]
    )
    rows, count, _ = read(log, size)
    assert rows == texts(log.chunks())[0]
    assert len(rows) == 120
    assert count > 4 if size < 700 else count == 2  # a file each


def test_a_line_end_in_quotes_cuts_no_record(tmp_path):
    # every line but the last is inside one value
    (tmp_path / "a").write_text('y,s\n0,"' + "1,x\n" * 50 + '"\n1,z\n')
    log = formats.table(tmp_path / "a", label="y", categorical=["s"])
    rows, count, _ = read(log, 20)
    assert rows == [(0, "1,x\n" * 50), (1, "z")]
    assert count == 2


def test_bad_rows_have_their_lines(tmp_path):
    lines = ["\t".join([str(i % 2), *["1"] * 39]) for i in range(40)]
    lines[17], lines[31] = "0\tshort", "2" + lines[31][1:]
    (tmp_path / "a").write_text("\n".join(lines))
    log = formats.criteo(tmp_path / "a")
    rows, count, complaints = read(log, 300)
    assert count > 5
    assert len(rows) == 38
    assert complaints == [
        f"{tmp_path / 'a'}, line 18: has 2 columns, not 40",
        f"{tmp_path / 'a'}, line 32: the label label is '2', not 0 or 1",
    ]


def test_units_of_parquet_and_gzip_are_the_log(tmp_path):
    frame = pl.DataFrame({"y": [0, 1] * 50, "s": range(100)})
    frame[:70].write_parquet(tmp_path / "a.parquet", row_group_size=8)
    frame[70:].write_parquet(tmp_path / "b.parquet")
    log = formats.table(*sorted(tmp_path.glob("*.parquet")), label="y", categorical=["s"])
    rows, count, _ = read(log, 100)
    assert rows == [(i % 2, str(i)) for i in range(100)]
    assert count > 10
    with gzip.open(tmp_path / "c.gz", "wt") as file:
        file.write("y,s\n" + "".join(f"{i % 2},{i}\n" for i in range(100)))
    log = formats.table(tmp_path / "c.gz", label="y", categorical=["s"])
    assert read(log, 20)[:2] == (rows, 1)


@pytest.fixture
def timed(tmp_path):
    """A log with few distinct times that are not sorted."""
    rng = np.random.default_rng(1)
    lines = [f"{i % 2},{i % 7},{rng.integers(1, 9)}" for i in range(400)]
    (tmp_path / "log").write_text("\n".join(["y,s,t", *lines]))
    return formats.table(tmp_path / "log", label="y", categorical=["s"], time="t")


def parts_of(log, folder, selection, size=300):
    work = partial(spool_unit, log, folder, False, selection.limit)
    return make_parts([work(unit) for unit in cut(log, size)], selection)


def splits_of(splitter, parts):
    return np.concatenate([found for part in parts for _, found in splitter(part)])


@pytest.mark.parametrize(("sample", "limit"), [(1.0, None), (0.4, None), (1.0, 123), (0.4, 321)])
def test_parts_hold_the_rows_that_prepare_takes(tmp_path, timed, sample, limit):
    parts = parts_of(timed, tmp_path, Selection(sample, 3, limit))
    kept = sum(part.kept for part in parts)
    summary = prepare(timed, tmp_path / "store", sample=sample, seed=3, limit_rows=limit)
    assert kept == sum(summary.rows)
    assert [part.kept_first for part in parts] == np.cumsum([0, *(p.kept for p in parts)]).tolist()[
        :-1
    ]
    found = splits_of(AtRandom(5, random_cuts(kept, 5)), parts)
    np.testing.assert_array_equal(found, assign_splits(kept, 5))
    found = splits_of(InOrder(kept), parts)
    np.testing.assert_array_equal(found, np.repeat(range(3), split_counts(kept)))


def test_rows_of_one_time_keep_their_order(tmp_path, timed):
    parts = parts_of(timed, tmp_path, Selection(1.0, 0, None))
    rows = texts(timed.chunks())[0]
    times = np.array([int(row[-1]) for row in rows])
    counts = pl.DataFrame({"value": [str(i) for i in range(1, 9)]}).with_columns(
        count=pl.Series(np.bincount(times)[1:])
    )
    unplaced = find_boundaries(counts, None)
    ties = [unplaced.count_ties(part) for part in parts]
    by_time = type(unplaced)(unplaced.kind, None, unplaced.boundaries, sum_ties(ties))
    found = splits_of(by_time, parts)
    np.testing.assert_array_equal(found, splits.chronological_splits(times))
    assert len(parts) > 5
    assert {name: int((found == n).sum()) for n, name in enumerate(SPLITS)} == {
        "train": 320,
        "valid": 40,
        "test": 40,
    }


def test_times_and_numbers_do_not_sort_together():
    counts = pl.DataFrame({"value": ["3", "2014-10-21"], "count": [10, 10]})
    with pytest.raises(InputError, match="holds numbers, such as '3', and times"):
        find_boundaries(counts, None)


@pytest.mark.parametrize("bits", [1, 3, 16])
@pytest.mark.parametrize("rows", [10, 11, 99, 5000])
def test_the_cuts_are_order_statistics_of_the_hashes(monkeypatch, rows, bits):
    monkeypatch.setattr(splits, "_TOP_BITS", bits)
    monkeypatch.setattr(splits, "_PART_ROWS", 64)
    hashes = np.sort(hash_rows(0, rows, 7))
    train, valid, _ = split_counts(rows)
    assert random_cuts(rows, 7) == (hashes[train], hashes[train + valid])
