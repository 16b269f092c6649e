"""Empty parts of a log, numbers, words for missing values, and times."""

from __future__ import annotations

import gzip

import polars as pl
import pytest

from ihas_jax.data.raw import formats
from ihas_jax.data.raw.encoder import encode
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.errors import InputError


def empty_parts(folder, kind):
    """A log of 20 rows in two of six files."""
    frame = pl.DataFrame({"ad": [f"a{i}" for i in range(10)], "y": [0, 1] * 5})
    frame = frame.with_columns(pl.col("y").cast(pl.String) if kind == "text" else pl.col("y"))
    paths = [folder / f"part-{number}" for number in range(6)]
    for number, path in enumerate(paths):
        if number in (0, 3):
            path.touch()
        elif kind == "parquet":
            frame[: 10 * (number in (2, 4))].write_parquet(path)
        else:
            frame[: 10 * (number in (2, 4))].write_csv(path)
    if kind == "csv":
        paths[0].write_bytes(gzip.compress(b""))
        with paths[5].open("a") as file:
            file.write("\n\n")
    return paths


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_empty_parts_are_passed_over_and_counted(tmp_path, kind):
    paths = empty_parts(tmp_path, kind)
    log = formats.table(*paths, label="y", categorical=["ad"])
    summary = prepare(log, tmp_path / "store", min_count=1)
    assert sum(summary.rows) == 20
    assert summary.empty == (paths[0], paths[1], paths[3], paths[5])
    summary = prepare(log, tmp_path / "some", min_count=1, limit_rows=15)
    assert (sum(summary.rows), summary.empty) == (15, (paths[0], paths[1], paths[3]))
    full = formats.table(paths[2], paths[4], label="y", categorical=["ad"])
    assert prepare(full, tmp_path / "full", min_count=1).empty == ()
    assert (tmp_path / "full/train.ids.npy").read_bytes() == (
        tmp_path / "store/train.ids.npy"
    ).read_bytes()


def test_an_empty_part_of_criteo(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").write_text("\t".join(["1"] * 40) + "\n" + "\t".join(["0"] * 40) + "\n" * 9)
    summary = prepare(formats.criteo(tmp_path / "a", tmp_path / "b"), tmp_path / "s", split="test")
    assert (sum(summary.rows), summary.empty) == (2, (tmp_path / "a",))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_log_of_empty_parts_is_none(tmp_path, kind):
    paths = empty_parts(tmp_path, kind)
    with pytest.raises(InputError, match=r"part-0 is empty, and so are the other 1 files"):
        formats.table(paths[0], paths[3], label="y", categorical=["ad"])
    log = formats.table(paths[0], paths[1], label="y", categorical=["ad"])
    with pytest.raises(InputError, match="part-0 and 1 more holds no rows"):
        prepare(log, tmp_path / "store")
    with pytest.raises(InputError, match="part-3 is empty"):
        prepare(formats.criteo(paths[3]), tmp_path / "store")


# --- Numbers, missing words and times ----------------------------------------------------


def test_words_for_a_missing_value_are_kept_for_prediction(tmp_path):
    words = ("-", "\\N", "-1")
    rows = {
        "ad": ["7", "-", "\\N", "7", ""] * 20,
        "price": ["1.5", "-1", "2.5", "-", ""] * 20,
        "n": ["3", "\\N", "-1", "8", ""] * 20,
    }
    frame = pl.DataFrame(rows).with_columns(y=pl.Series([0, 1] * 50))
    frame.write_csv(tmp_path / "log.csv")
    choices = {"label": "y", "categorical": ["ad"], "numeric": ["n"], "quantile": ["price"]}
    log = formats.table(tmp_path / "log.csv", **choices, missing=words)
    schema = prepare(log, tmp_path / "store").schema
    assert [(field.kind, field.values) for field in schema.fields] == [
        ("integer", ("", "7")),
        ("numeric", ("NULL", "1", "4")),
        ("quantile", ("NULL", "2.5 or more", "below 2.5")),
    ]
    assert schema.missing == words
    ids = encode(schema, {"ad": [None, "-", 7, 8], "n": ["-1", "-", 3.0, 8], "price": ["-"] * 4})
    assert ids.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0], [2, 2, 0]]
    assert encode(schema, {"ad": [-1], "n": [-1.0], "price": [-1]}).tolist() == [[0, 0, 0]]
    again = prepare(log, tmp_path / "next", schema=schema, split="test")
    assert again.other_shares == (0.0, 0.0, 0.0)
    plain = formats.table(tmp_path / "log.csv", **choices)
    with pytest.raises(InputError, match="the words for a missing value are"):
        prepare(plain, tmp_path / "wrong", schema=schema)
    with pytest.raises(InputError, match="line 3: n is"):
        prepare(plain, tmp_path / "wrong")


def test_large_numbers_are_numbers(tmp_path):
    numbers = ["1e30", str(2**63), "-1e30", "1e300", "0"] * 20
    frame = pl.DataFrame({"n": numbers, "q": numbers, "y": [0, 1] * 50})
    frame.write_csv(tmp_path / "log.csv")
    log = formats.table(tmp_path / "log.csv", label="y", numeric=["n"], quantile=["q"])
    summary = prepare(log, tmp_path / "store", on_bad_rows="error")
    n, q = summary.schema.fields
    assert set(n.values) == {"4771", "1906", "-1e+30", "-2", "477170"}
    assert q.edges == (0.0, 2.0**63, 1e30, 1e300)
    assert summary.other_shares == (0.0, 0.0)
    frame.with_columns(n=pl.lit("inf")).write_csv(tmp_path / "log.csv")
    with pytest.raises(InputError, match="line 2: n is 'inf', not a number"):
        prepare(log, tmp_path / "wrong")


def test_one_value_makes_a_column_text(tmp_path):
    rows = [f"{i},{i % 2}\n" for i in range(200)]
    for odd in ("x", "1.50", "0200"):
        (tmp_path / "log.csv").write_text("n,y\n" + "".join(rows) + f"{odd},1\n")
        log = formats.table(tmp_path / "log.csv", label="y", categorical=["n"])
        (field,) = prepare(log, tmp_path / odd, min_count=1).schema.fields
        assert field.kind == ("float" if odd == "1.50" else "text")
        assert ("1.5" if odd == "1.50" else odd) in field.values


def test_bins_hold_enough_rows_and_are_never_rare(tmp_path):
    def prepared(name, prices, **choices):
        frame = pl.DataFrame({"price": prices, "y": [0, 1] * 200})
        frame.write_csv(tmp_path / "log.csv")
        log = formats.table(tmp_path / "log.csv", label="y", quantile=["price"])
        summary = prepare(log, tmp_path / name, split="chronological", **choices)
        assert summary.other_shares == (0.0,)
        return summary.schema.fields[0]

    # 320 rows for training are 32 bins of 10 rows
    field = prepared("all", [*range(320), *[0] * 80])
    assert field.edges == tuple(range(10, 320, 10))
    assert len(field.values) == 32
    assert prepared("few", [*range(320), *[0] * 80], min_count=100).edges == (106, 213)
    assert prepared("two", [*range(320), *[0] * 80], bins=2).edges == (160,)
    # a bin between two frequent numbers is kept, however few rows it holds
    field = prepared("ties", [0] * 159 + [1] * 2 + [2] * 239)
    assert field.values == ("2 or more", "below 1", "1 to below 2")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_without_a_time_are_bad_rows(tmp_path, kind):
    times = [f"2014-10-{1 + i // 10:02} 23:00" for i in range(200)]
    times[3], times[150] = None, "noon"
    frame = pl.DataFrame({"ad": ["a"] * 200, "t": times, "y": [0, 1] * 100})
    path = tmp_path / "log"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    log = formats.table(path, label="y", categorical=["ad"], time="t")
    place, shown = ("line 5", "''") if kind == "csv" else ("row 4", "None")
    with pytest.raises(InputError, match=f"{place}: t is {shown}, not a number or a time"):
        prepare(log, tmp_path / "store", split="chronological")
    summary = prepare(log, tmp_path / "store", split="chronological", on_bad_rows="skip")
    assert (summary.bad_rows, sum(summary.rows)) == (2, 198)
    assert f"{place}: t is {shown}" in summary.complaint
