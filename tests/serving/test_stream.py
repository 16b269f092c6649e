"""Raw rows that come one after the other, in any container."""

from __future__ import annotations

import csv
import io
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ihas_jax.data.drift import OtherShareWarning
from ihas_jax.data.raw.encoder import encode
from ihas_jax.data.schema import Field, Schema
from ihas_jax.errors import InputError
from ihas_jax.serving.stream import predict_stream

SCHEMA = Schema(
    "click",
    (
        Field("ad", ("a", "b", "c"), other_share=0.1),
        Field("user", ("1", "2", "3", "4"), "integer", other_share=0.0),
    ),
)
ROWS = 1000
DRAW = np.random.default_rng(0)
FRAME = pl.DataFrame(
    {"more": np.arange(ROWS), "user": DRAW.integers(1, 5, ROWS), "ad": DRAW.choice([*"abcd"], ROWS)}
)


@pytest.fixture(scope="module")
def bundle(bundle_of):
    return bundle_of(SCHEMA, models=2)


@pytest.fixture(scope="module")
def want(bundle):
    ids = encode(SCHEMA, FRAME)
    return bundle.predict_ids(ids), bundle.assign(ids)


def sliced(make, size=300):
    return lambda: (make(FRAME[n : n + size]) for n in range(0, ROWS, size))


STREAMS = {
    "dicts": (lambda: iter(FRAME.to_dicts()), 128),
    "dicts of pandas": (lambda: (dict(row) for _, row in FRAME.to_pandas().iterrows()), 128),
    "csv.DictReader": (lambda: csv.DictReader(io.StringIO(FRAME.write_csv())), 128),
    "polars": (sliced(lambda frame: frame), 300),
    "lazy": (sliced(pl.DataFrame.lazy), 300),
    "pandas": (sliced(pl.DataFrame.to_pandas), 300),
    "pandas.read_csv": (lambda: pd.read_csv(io.StringIO(FRAME.write_csv()), chunksize=300), 300),
    "arrow": (sliced(pl.DataFrame.to_arrow), 300),
    "arrow reader": (lambda: pa.RecordBatchReader.from_stream(FRAME), None),
    "columns": (sliced(lambda frame: frame.to_dict(as_series=False)), 300),
    "lists": (sliced(pl.DataFrame.to_dicts), 300),
    "one polars": (lambda: FRAME, ROWS),
    "one lazy": (FRAME.lazy, ROWS),
    "one pandas": (FRAME.to_pandas, ROWS),
    "one arrow": (FRAME.to_arrow, ROWS),
    "one dict": (lambda: FRAME.to_dict(as_series=False), ROWS),
    "a list": (FRAME.to_dicts, 128),
}


@pytest.mark.parametrize("name", STREAMS)
def test_rows_are_predicted_in_their_order(bundle, want, name):
    make, size = STREAMS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(predict_stream(bundle, make(), batch_rows=128))
    if size:
        assert [len(part.probability) for part in found[:-1]] == [size] * (len(found) - 1)
    probability, cluster = (np.concatenate(parts) for parts in zip(*found, strict=True))
    np.testing.assert_allclose(probability, want[0], rtol=1e-6)
    np.testing.assert_array_equal(cluster, want[1])
    assert set(cluster) == {0, 1}


def test_rows_and_batches_may_follow_each_other(bundle, want):
    first, second, third = FRAME[:10].to_dicts(), FRAME[10:30], FRAME[30:45].to_dicts()
    found = list(predict_stream(bundle, [*first, second, *third], batch_rows=8))
    assert [len(part.probability) for part in found] == [8, 2, 20, 8, 7]
    probability = np.concatenate([part.probability for part in found])
    np.testing.assert_allclose(probability, want[0][:45], rtol=1e-6)


@pytest.mark.parametrize("ignored", [[[1], [1, 2]], np.zeros(3), (1, 2), {"a": [1]}])
def test_a_column_that_is_ignored_does_not_make_a_batch_of_a_row(bundle, want, ignored):
    rows = [row | {"ignored": ignored} for row in FRAME[:9].to_dicts()]
    (found,) = predict_stream(bundle, rows)
    np.testing.assert_allclose(found.probability, want[0][:9], rtol=1e-6)


def test_no_row_is_asked_for_before_its_time(bundle):
    asked = []

    def rows():
        for row in FRAME.to_dicts():
            asked.append(row)
            yield row

    stream = predict_stream(bundle, rows(), batch_rows=10)
    next(stream)
    assert len(asked) <= 11
    assert list(predict_stream(bundle, [])) == []


def test_one_model_has_no_clusters(bundle_of):
    (part,) = predict_stream(bundle_of(SCHEMA), [FRAME])
    assert part.cluster is None


def test_drift_is_judged_once_over_all_rows(bundle):
    def parts(unknown):
        number = pl.int_range(pl.len())
        frame = FRAME.with_columns(user=pl.when(number < unknown).then(9).otherwise("user"))
        return (frame[n : n + 200] for n in range(0, ROWS, 200))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(predict_stream(bundle, parts(300)))  # all of the first batch, 30 % of all
    assert caught == []
    with pytest.warns(OtherShareWarning, match="user: 60.0% of the rows are other") as caught:
        list(predict_stream(bundle, parts(600)))
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"ad": "a"}], "row 0: no column 'user'; the columns are ad"),
        ([FRAME, {"ad": "a", "user": [1]}], "row 1000: 'ad' is one value of the type str"),
        ([{"ad": "a", "user": {1}}], r"row 0: 'user' holds \{1\} of the type set; a"),
        ([FRAME, 3], "row 1000: raw rows of the type int cannot be read"),
    ],
)
def test_a_wrong_batch_is_named(bundle, rows, message):
    with pytest.raises(InputError, match=f"in the batch that begins with {message}"):
        list(predict_stream(bundle, rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({"batch_rows": n}, f"batch_rows is {n!r}; it must be a whole") for n in (0, 1.5, None)),
        ({"bundle": "runs/first"}, "must be a Bundle, not a str. Read one with ihas.load_bundle"),
        ({"rows": None}, "row 0: raw rows of the type NoneType cannot be read; give a data frame"),
        ({"rows": "a.csv"}, "row 0: raw rows of the type str cannot be read"),
    ],
)
def test_arguments_that_are_something_else_are_named(bundle, change, message):
    with pytest.raises(InputError, match=message):
        list(predict_stream(**{"bundle": bundle, "rows": [FRAME]} | change))
