"""One log, prepared once, and its rows in every container: the ids are those of the store."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ihas_jax.data.drift import OtherShareWarning
from ihas_jax.data.open import open_store
from ihas_jax.data.raw import formats
from ihas_jax.data.raw.encoder import Encoder, encode
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.schema import Field, Schema
from ihas_jax.errors import InputError

ROWS = 240
WORDS = ["yes", "no", "True", "NA"]
WORDED = ("user", "word")
CATEGORIES = ["user", "zip", "price", "member", "day", "word"]


def raw_log():
    rng = np.random.default_rng(0)
    users = rng.integers(1, 12, ROWS)
    gaps = rng.random(ROWS) < 0.1
    return pl.DataFrame(
        {
            "user": pl.Series(users).set(pl.Series(gaps), None),
            "zip": [f"0{z}" for z in rng.integers(1000, 1006, ROWS)],
            "price": (rng.integers(1, 5, ROWS) / 10).tolist(),
            "member": [None if g else bool(u % 2) for g, u in zip(gaps, users, strict=True)],
            "day": pl.Series(rng.integers(0, 5, ROWS)).cast(pl.Int32).cast(pl.Date),
            "word": rng.choice(WORDS, ROWS),
            "n": rng.integers(0, 200, ROWS),
            "share": rng.random(ROWS),
            "click": rng.random(ROWS) < 0.4,
        }
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    raw_log().with_columns(pl.col("member").cast(pl.String).str.to_titlecase()).write_csv(
        folder / "log.csv"
    )
    choices = {"label": "click", "categorical": CATEGORIES, "numeric": ["n"]}
    log = formats.table(folder / "log.csv", quantile=["share"], **choices)
    prepare(log, folder / "store", min_count=5, split="test")
    return open_store(folder / "store")


def arrow_file(frame):
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    buffer.seek(0)
    return buffer


CONTAINERS = {
    "polars": lambda frame: frame,
    "lazy": lambda frame: frame.lazy(),
    "categorical": lambda frame: frame.with_columns(pl.col("zip", "word").cast(pl.Categorical)),
    "enum": lambda frame: frame.with_columns(
        pl.col("word").cast(pl.Enum(["yes", "no", "True", "NA"]))
    ),
    "narrow": lambda frame: frame.with_columns(
        pl.col("price").cast(pl.Float32), pl.col("user").cast(pl.Int8)
    ),
    "times": lambda frame: frame.with_columns(pl.col("day").cast(pl.Datetime("ns"))),
    "decimals": lambda frame: frame.with_columns(pl.col("price").cast(pl.Decimal(10, 3))),
    "text": lambda frame: frame.select(
        pl.all().exclude("day").cast(pl.String), pl.col("day").dt.to_string("%Y-%m-%dT00:00:00Z")
    ),
    "lists": lambda frame: frame.to_dict(as_series=False),
    "rows": lambda frame: frame.to_dicts(),
    "arrow": lambda frame: frame.to_arrow(),
    "dictionaries": lambda frame: pa.table(
        {
            name: column.dictionary_encode() if name in WORDED else column
            for name, column in zip(frame.columns, frame.to_arrow().columns, strict=True)
        }
    ),
    "pandas": lambda frame: pq.read_table(arrow_file(frame)).to_pandas(),
    "pandas_csv": lambda frame: pd.read_csv(
        io.StringIO(frame.write_csv()), dtype={"zip": str}, keep_default_na=False, na_values=[""]
    ),
    "pandas_lists": lambda frame: pq.read_table(arrow_file(frame)).to_pandas().to_dict("list"),
    "pandas_rows": lambda frame: pq.read_table(arrow_file(frame)).to_pandas().to_dict("records"),
    "pandas_nullable": lambda frame: pd.read_parquet(
        arrow_file(frame), dtype_backend="numpy_nullable"
    ),
    "pandas_arrow": lambda frame: pd.read_parquet(arrow_file(frame), dtype_backend="pyarrow"),
    "pandas_categories": lambda frame: (
        pq.read_table(arrow_file(frame))
        .to_pandas()
        .astype({"user": "category", "word": "category"})
    ),
}


def test_the_schema_remembers_the_kinds(store):
    kinds = {field.name: field.kind for field in store.schema.fields}
    assert kinds == {
        "user": "integer", "zip": "text", "price": "float", "member": "boolean", "day": "time",
        "word": "text", "n": "numeric", "share": "quantile",
    }  # fmt: skip
    assert "" in store.schema.fields[0].values
    assert sorted(store.schema.fields[5].values) == ["NA", "no", "true", "yes"]


@pytest.mark.parametrize("container", CONTAINERS)
def test_rows_of_the_log_get_their_ids_in_every_container(store, container):
    rows = CONTAINERS[container](raw_log())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(encode(store.schema, rows), store.test.ids)


@pytest.mark.parametrize("container", ["pandas", "text", "narrow", "arrow"])
def test_the_next_days_log_in_any_container(store, container, tmp_path):
    frame = CONTAINERS[container](raw_log())
    frame = pl.DataFrame(frame) if not isinstance(frame, pl.DataFrame) else frame
    frame.write_parquet(tmp_path / "next.parquet")
    choices = {"label": "click", "categorical": CATEGORIES, "numeric": ["n"]}
    log = formats.table(tmp_path / "next.parquet", quantile=["share"], **choices)
    summary = prepare(log, tmp_path / "store", schema=store.schema, split="test")
    np.testing.assert_array_equal(open_store(tmp_path / "store").test.ids, store.test.ids)
    assert summary.schema == store.schema


def test_a_log_in_parquet_has_the_store_of_its_csv(store, tmp_path):
    raw_log().write_parquet(tmp_path / "log.parquet")
    choices = {"label": "click", "categorical": CATEGORIES, "numeric": ["n"]}
    log = formats.table(tmp_path / "log.parquet", quantile=["share"], **choices)
    prepare(log, tmp_path / "store", min_count=5, split="test")
    data = open_store(tmp_path / "store")
    assert data.schema == store.schema
    np.testing.assert_array_equal(data.test.ids, store.test.ids)


def test_lost_zeros_are_named(store):
    rows = raw_log().with_columns(pl.col("zip").cast(pl.Int64))
    with pytest.raises(InputError, match=r"'zip' has the value '0.*' and came as Int64"):
        encode(store.schema, rows)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n", "many", "'n' is 'many' in row 1, counted from 0, which is not a number"),
        ("share", "inf", "'share' is 'inf' in row 1, .* not a number"),
        ("user", 2.0**60, r"'user' is '1\.15.*' in row 1, .* too large to tell the integer"),
        ("word", ["a"], "'word' holds lists"),
        ("word", 1j, "'word' holds 1j of the type complex"),
    ],
)
def test_a_value_without_a_spelling_is_named(store, name, value, message):
    rows = raw_log().head(3).to_dicts()
    rows[1][name] = value
    with pytest.raises(InputError, match=message):
        encode(store.schema, rows)


def test_a_field_that_is_spelled_in_another_way_is_said():
    schema = Schema(
        "y",
        (Field("a", ("u", "v"), other_share=0.1), Field("b", ("1",), "integer", other_share=0.5)),
    )
    encoder = Encoder(schema)
    rows = {"a": ["U"] * 100, "b": [1] * 100}
    with pytest.warns(OtherShareWarning, match=r"a: 100\.0% of the rows are other, 10\.0% exp"):
        encoder(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder({"a": ["U"] * 99, "b": [1] * 99})
        encoder({"a": ["u"] * 100, "b": [1] * 100})


def test_versions_are_not_merged(tmp_path):
    versions = ["1.1", "1.10", "1.0", "1"] * 5
    frame = pl.DataFrame({"v": versions, "y": [0, 1] * 10})
    frame.write_csv(tmp_path / "log.csv")
    log = formats.table(tmp_path / "log.csv", label="y", categorical=["v"])
    (field,) = prepare(log, tmp_path / "store", min_count=1).schema.fields
    assert (field.kind, field.values) == ("text", ("1", "1.1", "1.10"))


def test_bins_hold_equally_many_training_rows(tmp_path):
    rng = np.random.default_rng(0)
    values = np.where(rng.random(4000) < 0.3, 0.5, rng.random(4000))
    frame = pl.DataFrame({"v": values, "t": range(4000), "y": [0, 1] * 2000})
    frame = frame.with_columns(v=pl.when(pl.col("t") >= 3200).then(99.0).otherwise("v"))
    frame.write_csv(tmp_path / "log.csv")
    log = formats.table(tmp_path / "log.csv", label="y", quantile=["v"], time="t")
    prepare(log, tmp_path / "store", bins=10, split="chronological")
    data = open_store(tmp_path / "store")
    (field,) = data.schema.fields
    assert max(field.edges) < 1  # later rows move no edge
    train = values[:3200]
    want = np.unique(np.quantile(train, np.arange(1, 10) / 10, method="higher"))
    np.testing.assert_allclose(field.edges, want, atol=2e-3)
    counts = np.bincount(np.searchsorted(field.edges, train, side="right"))
    assert 0.5 in field.edges and counts.max() < 0.41 * len(train)
    last = field.values.index(f"{field.edges[-1]} or more")
    assert set(np.unique(data.test.ids)) == {last}


def test_gaps_among_text_are_no_numbers():
    schema = Schema("y", (Field("v", ("1.10", "007", "")),))
    rows = {"v": ["1.10", float("nan"), "007", np.float64("nan"), None]}
    assert encode(schema, rows).ravel().tolist() == [0, 2, 1, 2, 2]


def test_zero_has_no_sign(tmp_path):
    pl.DataFrame({"v": ["0.0", "-0.0", "0.5"] * 10, "y": [0, 1] * 15}).write_csv(
        tmp_path / "log.csv"
    )
    log = formats.table(tmp_path / "log.csv", label="y", categorical=["v"])
    (field,) = prepare(log, tmp_path / "store").schema.fields
    assert (field.kind, field.values) == ("float", ("0", "0.5"))
