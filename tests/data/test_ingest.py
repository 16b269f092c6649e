from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ihas_jax.data.open import open_store
from ihas_jax.data.raw import formats, ingest, records, vocabulary
from ihas_jax.data.raw.canonical import spell
from ihas_jax.data.raw.encoder import Encoder, encode
from ihas_jax.data.raw.guess import first_rows, guess_fields
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.raw.texts import as_text
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.split import assign_splits, split_counts
from ihas_jax.data.store import verify_store
from ihas_jax.errors import InputError

ROOT = Path(__file__).parents[2]


def write_csv(path, columns):
    pl.DataFrame(columns).write_csv(path, quote_style="non_numeric")
    return path


def read_ids(dataset, seed):
    """All ids and labels in the order of the log."""
    rows = sum(len(split.labels) for split in (dataset.train, dataset.valid, dataset.test))
    where = assign_splits(rows, seed)
    ids = np.empty((rows, len(dataset.schema.fields)), np.int32)
    labels = np.empty(rows, np.uint8)
    for index, split in enumerate((dataset.train, dataset.valid, dataset.test)):
        ids[where == index], labels[where == index] = split
    return ids, labels


def contents(store):
    return {file.name: file.read_bytes() for file in store.iterdir()}


ADS = ["b"] * 4 + ["a"] * 4 + ["é"] * 3 + ["rare"] + [""] * 5 + ["twice"] * 2
PRICES = [3, 4, 3, 4, 2, 2, -1, -1, 10, 9, 100, None, None, 0, 0, 0, 5, 6, 7]
CLICKS = [1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 0, 1, 1]


@pytest.fixture
def log(tmp_path):
    path = write_csv(tmp_path / "log.csv", {"ad": ADS, "price": PRICES, "click": CLICKS})
    return formats.table(path, label="click", categorical=["ad"], numeric=["price"])


def test_a_store_by_hand(tmp_path, log):
    summary = prepare(log, tmp_path / "store", min_count=2, seed=5)
    data = open_store(tmp_path / "store")
    # 3 and 4 -> 1, 2 -> 0, -1 -> -3, 0 -> -2, 5 -> 2, 6 and 7 -> 3, 9 -> 4, 10 -> 5
    prices = ("1", "-2", "-3", "0", "3", "NULL")
    assert (
        data.schema
        == summary.schema
        == Schema(
            "click",
            (
                # By count, then by bytes; "rare" was seen once.
                Field("ad", ("", "a", "b", "é", "twice"), other_share=1 - 18 / 19),
                Field(
                    "price", ("1", "-2", "-3", "0", "3", "NULL"), "numeric", other_share=1 - 15 / 19
                ),
            ),
        )
    )
    ids, labels = read_ids(data, 5)
    ads = [2] * 4 + [1] * 4 + [3] * 3 + [5] + [0] * 5 + [4] * 2
    prices = [0, 0, 0, 0, 3, 3, 2, 2, 6, 6, 6, 5, 5, 1, 1, 1, 6, 4, 4]
    assert ids.tolist() == [list(pair) for pair in zip(ads, prices, strict=True)]
    assert labels.tolist() == CLICKS
    assert summary.rows == (15, 1, 3)
    assert sum(summary.clicks) == sum(CLICKS)
    assert summary.other_shares == (1 / 19, 4 / 19)
    verify_store(tmp_path / "store")


def test_new_rows_get_the_ids_of_the_old(tmp_path, log):
    schema = prepare(log, tmp_path / "store", min_count=2).schema
    new = {"price": [100, 3.7, None, float("nan"), "4"], "ad": ["b", "new", None, "", 5]}
    want = [[2, 6], [5, 0], [0, 5], [0, 5], [5, 0]]
    assert encode(schema, new).tolist() == want
    frame = pl.DataFrame({"ad": ["b", None], "price": ["100", ""], "more": [1, 2]})
    assert encode(schema, frame).tolist() == [[2, 6], [0, 5]]
    assert encode(schema, frame.head(0)).shape == (0, 2)
    assert encode(schema, frame).dtype == np.int32
    assert encode(schema, frame).flags.c_contiguous


def test_a_missing_value_that_the_log_never_had_is_other():
    schema = Schema("y", (Field("a", ("x",)), Field("n", ("5",), "numeric"), Field("z", ())))
    assert encode(schema, {"a": [None, ""], "n": [None, ""], "z": ["", "q"]}).tolist() == (
        [[1, 1, 0], [1, 1, 0]]
    )


def test_categories_may_be_numbers_in_memory():
    schema = Schema("y", (Field("site", ("15706", "-1")),))
    assert encode(schema, {"site": [15706, -1, 7, None]}).tolist() == [[0], [1], [2], [2]]


def test_encode_names_what_is_missing():
    encoder = Encoder(Schema("y", (Field("a", ()), Field("b", ()))))
    for frame in ({"a": [1], "c": [2]}, pl.DataFrame({"a": [1], "c": [2]})):
        with pytest.raises(InputError, match="no column 'b'; the columns are a, c"):
            encoder(frame)
    with pytest.raises(InputError, match="differ in length"):
        encoder({"a": [1], "b": [1, 2]})


category = st.sampled_from(["", "a", "b", "NULL", "other", "x,y", 'q"', "é", "new\nline"])
number = st.one_of(st.none(), st.integers(-5, 30))
logs = st.lists(st.tuples(category, number, st.integers(0, 1)), min_size=10, max_size=60)


@settings(deadline=None)
@given(rows=logs, min_count=st.integers(1, 4), seed=st.integers(0, 99), block=st.integers(1, 200))
def test_a_store_is_what_counting_in_python_gives(rows, min_count, seed, block, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    columns = dict(zip(("c", "n", "y"), map(list, zip(*rows, strict=True)), strict=True))
    path = write_csv(folder / "log.csv", pl.DataFrame(columns, schema_overrides={"n": pl.Int64}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK_BYTES", block)
        patch.setattr(vocabulary, "_PART_BYTES", 100)
        log = formats.table(path, label="y", categorical=["c"], numeric=["n"])
        prepare(log, folder / "store", min_count=min_count, seed=seed)
    data = open_store(folder / "store")
    ids, labels = read_ids(data, seed)
    assert labels.tolist() == columns["y"]
    assert tuple(len(s.labels) for s in (data.train, data.valid, data.test)) == split_counts(
        len(rows)
    )
    texts = formats_text(columns)
    for column, field, text in zip(ids.T, data.schema.fields, texts, strict=True):
        counts = Counter(text)
        kept = sorted(
            (v for v in counts if counts[v] >= min_count), key=lambda v: (-counts[v], v.encode())
        )
        assert field.values == tuple(kept)
        assert column.tolist() == [kept.index(v) if v in kept else len(kept) for v in text]
    # Predicting on the rows of the log, as text or as numbers, gives the stored ids.
    np.testing.assert_array_equal(encode(data.schema, columns), ids)
    raw = pl.read_csv(path, infer_schema=False, empty_string_is_null=False)
    np.testing.assert_array_equal(encode(data.schema, raw), ids)


def formats_text(columns):
    numbers = as_text(pl.Series(columns["n"], dtype=pl.Int64))
    return columns["c"], spell(numbers, "numeric").to_list()


def test_the_same_log_and_seed_give_the_same_bytes(tmp_path, log, monkeypatch):
    prepare(log, tmp_path / "a", min_count=2, seed=1)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "log.csv"
    copy.write_bytes(log.paths[0].read_bytes())
    moved = formats.table(copy, label="click", categorical=["ad"], numeric=["price"])
    monkeypatch.setattr(records, "BLOCK_BYTES", 16)
    prepare(moved, "b", min_count=2, seed=1)
    prepare(moved, "c", min_count=2, seed=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")
    assert str(tmp_path).encode() not in b"".join(contents(tmp_path / "a").values())


def test_gzip_and_plain_text_give_the_same_rows(tmp_path, log):
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(log.paths[0].read_bytes()))
    prepare(log, tmp_path / "plain", min_count=2)
    other = formats.table(packed, label="click", categorical=["ad"], numeric=["price"])
    prepare(other, tmp_path / "packed", min_count=2)
    plain, gz = contents(tmp_path / "plain"), contents(tmp_path / "packed")
    assert plain.pop("store.json") == gz.pop("store.json").replace(b"log.csv.gz", b"log.csv")
    assert plain == gz


def test_bad_rows_are_an_error_or_left_out(tmp_path, log):
    clean = prepare(log, tmp_path / "clean", min_count=2)
    path = tmp_path / "bad.csv"
    lines = log.paths[0].read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], "too,many,columns,1\n", *lines[3:], '"a",1,7\n']))
    bad = formats.table(path, label="click", categorical=["ad"], numeric=["price"])
    with pytest.raises(InputError, match=r"line 4: has 4 columns, not 3; .*--on-bad-rows skip"):
        prepare(bad, tmp_path / "store", min_count=2)
    assert not (tmp_path / "store").exists()
    summary = prepare(bad, tmp_path / "store", min_count=2, on_bad_rows="skip")
    assert (summary.bad_rows, summary.rows) == (2, clean.rows)
    assert summary.complaint == f"{path}, line 4: has 4 columns, not 3"
    np.testing.assert_array_equal(
        open_store(tmp_path / "store").train.ids, open_store(tmp_path / "clean").train.ids
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,y\n", "holds no rows"),
        ("a,y\n\n\n", "holds no rows"),
        ("a,y\n" + "b,1\n" * 9, "holds 9 usable rows, a split of 80/10/10 needs 10$"),
        ("a,y\n" + "b,2\n" * 30, "holds 0 usable rows.*; 30 were skipped, the first: .*line 2"),
    ],
)
def test_too_few_rows(tmp_path, text, message):
    (tmp_path / "log.csv").write_text(text)
    log = formats.table(tmp_path / "log.csv", label="y", categorical=["a"])
    with pytest.raises(InputError, match=message):
        prepare(log, tmp_path / "store", on_bad_rows="skip")
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]


def test_an_empty_parquet_file(tmp_path):
    pl.DataFrame({"a": [], "y": []}).write_parquet(tmp_path / "log.parquet")
    log = formats.table(tmp_path / "log.parquet", label="y", categorical=["a"])
    with pytest.raises(InputError, match="holds no rows"):
        prepare(log, tmp_path / "store")


def test_nothing_is_overwritten(tmp_path, log):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mine").write_text("keep")
    with pytest.raises(InputError, match="exists"):
        prepare(log, tmp_path / "store")
    assert contents(tmp_path / "store") == {"mine": b"keep"}


def test_min_count_must_be_positive(tmp_path, log):
    with pytest.raises(InputError, match="min_count is 0"):
        prepare(log, tmp_path / "store", min_count=0)


@pytest.mark.parametrize("change", ['"a",1,1\n', '"a",1,1\n' * 40, ""])
def test_a_log_that_changes_meanwhile(tmp_path, log, monkeypatch, change):
    read = ingest.read_log

    def read_and_change(*args):
        read(*args)
        with log.paths[0].open("a") as file:
            file.write(change)
            os.utime(log.paths[0], ns=(0, 0))

    monkeypatch.setattr(ingest, "read_log", read_and_change)
    with pytest.raises(InputError, match="changed while it was being read"):
        prepare(log, tmp_path / "store")
    assert not (tmp_path / "store").exists()


KILLED = """
import sys, time
from pathlib import Path
from ihas_jax.data.raw import formats, ingest

def stop(*args, **kwargs):
    print("here", flush=True)
    time.sleep(60)

owner, name = {"count": (ingest, "assign_splits"), "encode": (ingest.Encoder, "look_up"),
               "end": (Path, "rename")}[sys.argv[1]]
setattr(owner, name, stop)
log = formats.table(Path("log.csv"), label="click", categorical=["ad"], numeric=["price"])
ingest.prepare(log, "store", min_count=2)
"""


@pytest.mark.parametrize("stage", ["count", "encode", "end"])
def test_a_killed_prepare_leaves_no_store(tmp_path, log, stage):
    prepare(log, tmp_path / "whole", min_count=2)
    command = [sys.executable, "-c", KILLED, stage]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        with pytest.raises(InputError, match="Another process"):
            prepare(log, tmp_path / "store", min_count=2)
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / ".store.partial").exists()
    with pytest.raises(InputError, match="no such folder"):
        open_store(tmp_path / "store")
    prepare(log, tmp_path / "store", min_count=2)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.csv", "store", "whole"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("name", ["^a$", "^.*$", "*", "", "a.b", "value", "column_1"])
def test_names_that_polars_takes_for_patterns(tmp_path, kind, name):
    frame = pl.DataFrame({"b": ["1", "2"] * 10, name: ["p", "q"] * 10, "a": ["0", "1"] * 10})
    path = tmp_path / f"log.{kind}"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    log = formats.table(path, label="a", categorical=[name, "b"], time="b")
    assert [guess.column for guess in guess_fields(first_rows(log))] == [name, "b"]
    prepare(log, tmp_path / "store", min_count=1, split="test")
    store = open_store(tmp_path / "store")
    assert store.schema.fields[0].values == ("p", "q")
    assert store.test.ids[:, 0].tolist() == [0, 1] * 10
    assert encode(store.schema, frame)[:, 0].tolist() == [0, 1] * 10


def test_words_for_a_missing_value_are_no_labels(tmp_path):
    path = write_csv(tmp_path / "log.csv", {"x": ["0", "5"] * 10, "click": ["0", "1"] * 10})
    log = formats.table(path, label="click", categorical=["x"], missing=["0"])
    prepare(log, tmp_path / "store", min_count=1, split="test")
    store = open_store(tmp_path / "store")
    assert store.schema.fields[0].values == ("", "5")
    assert store.test.labels.tolist() == [0, 1] * 10


def test_times_beyond_64_bits_keep_their_order(tmp_path):
    times = [str(2**64 - place) for place in range(20)]
    path = write_csv(tmp_path / "log.csv", {"x": times, "t": times, "click": ["0", "1"] * 10})
    log = formats.table(path, label="click", categorical=["x"], time="t")
    prepare(log, tmp_path / "store", min_count=1, split="chronological")
    store = open_store(tmp_path / "store")
    values = store.schema.fields[0].values
    assert {values[i] for i in store.test.ids[:, 0]} == set(times[:2])


def test_edges_are_not_learnt_from_a_missing_number(tmp_path):
    values = ["-999.0"] * 10 + ["1", "2"] * 5
    path = write_csv(tmp_path / "log.csv", {"x": values, "click": ["0", "1"] * 10})
    log = formats.table(path, label="click", quantile=["x"], missing=["-999"])
    prepare(log, tmp_path / "store", min_count=1, split="test")
    (field,) = open_store(tmp_path / "store").schema.fields
    assert (field.edges, field.values) == ((2.0,), ("NULL", "2 or more", "below 2"))
