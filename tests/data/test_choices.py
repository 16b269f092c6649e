"""Which rows of a log a store takes, and whose vocabularies it uses."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ihas_jax.data.open import open_store
from ihas_jax.data.raw import formats, records
from ihas_jax.data.raw.encoder import encode
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.split import chronological_splits, hash_rows
from ihas_jax.data.store import verify_store
from ihas_jax.errors import InputError

ROWS = 300


def write_parts(folder, days, rows=ROWS):
    """A log in three files whose field `row` numbers the rows."""
    frame = pl.DataFrame(
        {"row": [f"r{i}" for i in range(rows)], "click": [i % 3 == 0 for i in range(rows)]}
    ).with_columns(day=pl.Series(days, dtype=pl.String))
    paths = [folder / f"{name}.csv" for name in "abc"]
    for number, path in enumerate(paths):
        frame[number * rows // 3 : (number + 1) * rows // 3].write_csv(path)
    return paths


def rows_of(store):
    """The row numbers of each split."""
    data = open_store(store)
    values = np.array([*(int(v[1:]) for v in data.schema.fields[0].values), -1])
    return [values[np.asarray(split.ids)[:, 0]] for split in (data.train, data.valid, data.test)]


@pytest.fixture
def open_log(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "BLOCK_BYTES", 200)

    def make(days=None, **choices):
        days = days or ["x"] * ROWS
        return formats.table(
            *write_parts(tmp_path, days), label="click", categorical=["row"], **choices
        )

    return make


def test_several_files_are_one_log(tmp_path, open_log):
    log = open_log()
    prepare(log, tmp_path / "store", min_count=1)
    assert sorted(np.concatenate(rows_of(tmp_path / "store"))) == list(range(ROWS))
    whole = tmp_path / "whole.csv"
    whole.write_text(
        "".join(
            p.read_text() if i == 0 else p.read_text().split("\n", 1)[1]
            for i, p in enumerate(log.paths)
        )
    )
    prepare(formats.table(whole, label="click", categorical=["row"]), tmp_path / "one", min_count=1)
    for one, several in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "store"), strict=True):
        np.testing.assert_array_equal(one, several)


def test_files_of_other_columns_are_no_log(tmp_path, open_log):
    paths = open_log().paths
    paths[1].write_text("row,click,hour\nr1,1,2\n")
    with pytest.raises(InputError, match=r"b\.csv has other columns than .*a\.csv"):
        formats.table(*paths, label="click", categorical=["row"])


def test_text_and_parquet_are_told_apart(tmp_path):
    rows = pl.DataFrame({"click": [0, 1], "row": ["r1", "r2"]})
    rows.write_csv(tmp_path / "a.csv")
    rows.write_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match="is Parquet and the other is text"):
        formats.table(*sorted(tmp_path.iterdir()), label="click", categorical=["row"])


def test_files_with_their_columns_in_other_orders_are_one_log(tmp_path, open_log):
    log = open_log()
    prepare(log, tmp_path / "store", min_count=1)
    for path, order in zip(
        log.paths[1:], (("day", "row", "click"), ("click", "day", "row")), strict=True
    ):
        pl.read_csv(path, infer_schema=False).select(order).write_csv(path)
    log = formats.table(*log.paths, label="click", categorical=["row"])
    prepare(log, tmp_path / "other", min_count=1)
    for one, other in zip(rows_of(tmp_path / "store"), rows_of(tmp_path / "other"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_bad_row_names_its_own_file(tmp_path, open_log):
    log = open_log()
    with log.paths[1].open("a") as file:
        file.write("r7,maybe,x\n")
    with pytest.raises(InputError, match=r"b\.csv, line 102: the label click is 'maybe'"):
        prepare(log, tmp_path / "store")


def test_a_folder_of_parquet_parts(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for part in range(3):
        table = arrow.table({"ad": [f"a{i % 4}" for i in range(20)], "y": [0, 1] * 10})
        parquet.write_table(table, tmp_path / f"part-{part}.parquet", row_group_size=7)
    paths = sorted(tmp_path.glob("*.parquet"))
    prepare(formats.table(*paths, label="y", categorical=["ad"]), tmp_path / "store")
    data = open_store(tmp_path / "store")
    assert sum(len(s.labels) for s in (data.train, data.valid, data.test)) == 60
    assert data.schema.fields[0].values == ("a0", "a1", "a2", "a3")


def test_parquet_parts_of_several_types_are_one_log(tmp_path):
    parts = {
        "a": pl.Series([1, 2] * 5),
        "b": pl.Series([1.0, None] * 5),
        "c": pl.Series([1, 2] * 5, dtype=pl.Int8),
        "d": pl.Series(["1", "2.0"] * 5, dtype=pl.Categorical),
    }
    for name, ads in parts.items():
        pl.DataFrame({"ad": ads, "y": [0, 1] * 5}).write_parquet(tmp_path / f"{name}.parquet")
    paths = [tmp_path / f"{name}.parquet" for name in parts]
    log = formats.table(*paths, label="y", categorical=["ad"])
    (field,) = prepare(log, tmp_path / "store", min_count=5).schema.fields
    assert (field.kind, field.values) == ("integer", ("1", "2", ""))


def test_a_missing_file_is_named_before_the_others_are_read(tmp_path):
    (tmp_path / "day_0").write_text("not Criteo\n")
    with pytest.raises(InputError, match="day_1: no such file"):
        next(formats.criteo(tmp_path / "day_0", tmp_path / "day_1").chunks())


def test_the_first_rows(tmp_path, open_log):
    prepare(open_log(), tmp_path / "store", min_count=1, limit_rows=130)
    assert sorted(np.concatenate(rows_of(tmp_path / "store"))) == list(range(130))


def test_a_sample_is_a_share_of_the_rows_and_of_the_seed_alone(tmp_path, open_log, monkeypatch):
    prepare(open_log(), tmp_path / "a", min_count=1, sample=0.5)
    found = sorted(np.concatenate(rows_of(tmp_path / "a")))
    want = np.flatnonzero(hash_rows(0, ROWS, ~0) <= np.uint64(2**63))
    np.testing.assert_array_equal(found, want)
    assert 0.4 < len(found) / ROWS < 0.6
    monkeypatch.setattr(records, "BLOCK_BYTES", 5000)
    prepare(open_log(), tmp_path / "b", min_count=1, sample=0.5)
    for a, b in zip(rows_of(tmp_path / "a"), rows_of(tmp_path / "b"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("sample", [0.0, -1.0, 1.5, float("nan")])
def test_a_sample_is_a_share(tmp_path, open_log, sample):
    with pytest.raises(InputError, match="sample is"):
        prepare(open_log(), tmp_path / "store", sample=sample)


def test_a_limit_is_positive(tmp_path, open_log):
    with pytest.raises(InputError, match="limit_rows is 0"):
        prepare(open_log(), tmp_path / "store", limit_rows=0)


def test_a_chronological_split_sorts_numbers_as_numbers(tmp_path, open_log):
    times = np.random.default_rng(0).permutation(ROWS) // 2
    log = open_log([str(t) for t in times], time="day")
    prepare(log, tmp_path / "store", min_count=1, split="chronological")
    order = np.argsort(times, kind="stable")
    wanted = (order[:240], order[240:270], order[270:])
    for want, found in zip(wanted, rows_of(tmp_path / "store"), strict=True):
        np.testing.assert_array_equal(np.sort(want), found)


def test_a_chronological_split_sorts_dates_as_text(tmp_path, open_log):
    days = [f"2014-10-{1 + i % 28:02}" for i in range(ROWS)]
    log = open_log(days, time="day")
    prepare(log, tmp_path / "store", min_count=1, split="chronological")
    train, valid, test = rows_of(tmp_path / "store")
    assert max(i % 28 for i in train) <= min(i % 28 for i in valid)
    assert max(i % 28 for i in valid) <= min(i % 28 for i in test)


def test_values_that_no_row_has_do_not_change_the_order(tmp_path, open_log):
    log = open_log([str(day) for day in range(ROWS)], time="day")
    with log.paths[1].open("a") as file:
        file.write("row,click,day\n")  # a header in the middle
    prepare(log, tmp_path / "store", min_count=1, split="chronological", on_bad_rows="skip")
    np.testing.assert_array_equal(np.concatenate(rows_of(tmp_path / "store")), np.arange(ROWS))


@pytest.mark.parametrize("odd", ["", "noon", "nan", "2014-10-21"])
def test_times_of_two_kinds_have_no_order(tmp_path, open_log, odd):
    log = open_log([*map(str, range(ROWS - 1)), odd], time="day")
    message = f"line 101: day is '{odd}', not a number or a time"
    if odd[:1] == "2":
        message = f"holds numbers, such as '\\d+', and times, such as '{odd}'"
    with pytest.raises(InputError, match=message):
        prepare(log, tmp_path / "store", split="chronological")
    prepare(log, tmp_path / "store", split="random")


def test_times_keep_all_their_digits(tmp_path, open_log):
    times = 1_700_000_000_000_000_000 + np.random.default_rng(0).permutation(ROWS)
    log = open_log([str(time) for time in times], time="day")
    prepare(log, tmp_path / "store", min_count=1, split="chronological")
    test = rows_of(tmp_path / "store")[2]
    np.testing.assert_array_equal(test, np.sort(np.argsort(times)[270:]))


def test_without_a_time_the_order_of_the_log_counts(tmp_path, open_log):
    prepare(open_log(), tmp_path / "store", min_count=1, split="chronological")
    np.testing.assert_array_equal(np.concatenate(rows_of(tmp_path / "store")), np.arange(ROWS))


def test_equal_times_keep_their_order():
    assert chronological_splits(np.zeros(10)).tolist() == [0] * 8 + [1, 2]
    assert chronological_splits(np.arange(10)[::-1]).tolist() == [2, 1] + [0] * 8


def test_the_next_days_log_takes_the_old_vocabularies(tmp_path, open_log):
    prepare(open_log(), tmp_path / "old", min_count=1, limit_rows=200)
    schema = open_store(tmp_path / "old").schema
    summary = prepare(open_log(), tmp_path / "new", schema=schema, split="test")
    data = open_store(tmp_path / "new")
    assert data.schema == schema
    assert summary.rows == (0, 0, ROWS)
    verify_store(tmp_path / "new")
    wanted = encode(schema, {"row": [f"r{i}" for i in range(ROWS)]})
    np.testing.assert_array_equal(data.test.ids, wanted)
    assert summary.other_shares == (1 / 3,)


def test_another_logs_vocabularies_are_no_use(tmp_path, open_log):
    schema = prepare(open_log(), tmp_path / "old").schema
    other = formats.table(*open_log().paths, label="click", categorical=["day"])
    with pytest.raises(InputError, match="the log's fields are day, those of the schema row"):
        prepare(other, tmp_path / "new", schema=schema)
