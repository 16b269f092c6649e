from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from ihas_jax.data import checks
from ihas_jax.data.checks import as_ids
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.open import open_store
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.store_writer import save_dataset
from ihas_jax.errors import InputError

FIELDS = (Field("site", tuple("abcdef")), Field("ad", ("x", "y")), Field("hour", ("0",)))
SCHEMA = Schema("click", FIELDS)  # of 7, 3 and 2 ids
ROWS = 70


def make_split(rows=ROWS):
    numbers = np.arange(rows)
    ids = np.stack([numbers % field.size for field in FIELDS], axis=1).astype(np.int32)
    return Split(ids, (numbers % 3 == 0).astype(np.uint8))


GOOD = make_split()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of 16 rows, of which 4 are folded, so that all places are visited."""
    monkeypatch.setattr(checks, "_ROWS", 16)
    monkeypatch.setattr(checks, "_FOLD", 4)


def build(**splits):
    return Dataset(SCHEMA, **{"train": GOOD, "valid": GOOD, "test": make_split(0)} | splits)


def changed(value, row=0, column=None):
    """A split with another id, or another label."""
    ids, labels = GOOD.ids.copy(), GOOD.labels.copy()
    if column is None:
        labels[row] = value
    else:
        ids[row, column] = value
    return Split(ids, labels)


def test_a_dataset_that_fits_its_schema_is_built():
    data = build()
    assert data.train.ids is GOOD.ids
    data.check()


@pytest.mark.parametrize("row", [0, 3, 4, 15, 16, 67, 69])
@pytest.mark.parametrize(
    ("column", "value", "ids"), [(0, 7, "7 ids are 0 to 6"), (1, 3, "0 to 2"), (2, -1, "0 to 1")]
)
def test_an_id_that_is_none_is_named(row, column, value, ids):
    with pytest.raises(InputError) as error:
        build(valid=changed(value, row, column))
    place = f"The ids of valid hold {value} in row {row} of field {FIELDS[column].name!r}"
    assert place in str(error.value)
    assert ids in str(error.value)


def test_the_last_id_of_each_field_is_one():
    last = np.array([[6, 2, 1]], np.int32)
    build(train=Split(last, np.ones(1, np.uint8)))


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ((GOOD.ids, GOOD.labels), r"valid is a tuple; give Split\(ids, labels\)"),
        (Split(GOOD.ids.tolist(), GOOD.labels), r"ids of valid are a list; give a NumPy array"),
        (Split(np.ma.masked_array(GOOD.ids), GOOD.labels), "are a MaskedArray; give a NumPy array"),
        (Split(pl.DataFrame(GOOD.ids), GOOD.labels), "are a DataFrame; give a NumPy array"),
        (Split(GOOD.labels, GOOD.ids), r"ids of valid have the shape \[70\]; \[n, N\] is needed"),
        (Split(GOOD.ids[0], GOOD.labels), r"the shape \[3\]; \[n, N\] is needed"),
        (Split(GOOD.ids.astype(np.int64), GOOD.labels), r"are int64, not int32; use \.astype\(np"),
        (Split(GOOD.ids.astype(float), GOOD.labels), "are float64, not int32"),
        (Split(GOOD.ids.astype(">i4"), GOOD.labels), "are >i4, not int32"),
        (Split(GOOD.ids[:, :2], GOOD.labels), "2 columns, the schema has 3 fields: site, ad, hour"),
        (Split(GOOD.ids[:-1], GOOD.labels), "valid has ids of 69 rows, but labels of 70"),
        (Split(GOOD.ids, GOOD.labels[:, None]), r"\[70, 1\]; \[n\] is needed, such as labels\[:,"),
        (Split(GOOD.ids, 2.0 * GOOD.labels - 1), r"float64.*use \(labels > 0\)\.astype\(np\.uint8"),
        (Split(GOOD.ids, GOOD.labels == 1), "labels of valid are bool, not uint8"),
        (changed(5, 18), r"label of valid in row 18 is 5; labels are 0 and 1: use \(labels > 0\)"),
        (changed(255, 69), "label of valid in row 69 is 255"),
    ],
)
def test_a_split_that_is_none_is_refused(split, words):
    with pytest.raises(InputError, match=words):
        build(valid=split)
    with pytest.raises(InputError, match=words):
        dataclasses.replace(build(), valid=split)


def with_site(**changes):
    """The schema with another first field."""
    return dataclasses.replace(
        SCHEMA, fields=(dataclasses.replace(FIELDS[0], **changes), *FIELDS[1:])
    )


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (Schema("click", ()), "no fields"),
        (Schema("click", (*FIELDS[:2], FIELDS[0])), "two columns 'site'"),
        (Schema("ad", FIELDS), "two columns 'ad'"),
        (Schema("click", tuple(field.name for field in FIELDS)), "fields hold a str; give a tuple"),
        (Schema("click", list(FIELDS)), "fields hold a list; give a tuple of Field"),
        (Schema(None, FIELDS), "names hold None in position 0, of the type NoneType; they are"),
        (with_site(name=3), "names hold 3 in position 1, of the type int"),
        (with_site(name="\ud800"), "names hold '.ud800', half a character"),
        (with_site(values=tuple(range(6))), "values of the field 'site' hold 0 in position 0, of"),
        (with_site(values=("a", *range(5))), r"hold 0 in position 1.*use tuple\(map\(str, values"),
        (with_site(values=tuple(np.array(list("abcdef")))), "'site' hold .* of the type str_"),
        (with_site(values=("a", None, *"bcde")), "hold None in position 1"),
        (with_site(values=(*"abcde", "\udcff")), "'site' hold '.udcff', half a character"),
        (with_site(values=tuple("abcdeb")), "'site' has the value 'b' twice"),
        (with_site(values=list("abcdef")), "'site' has a list of values; give a tuple of texts"),
        (with_site(values="abcdef"), "'site' has a str of values"),
        (with_site(values=np.arange(6)), "'site' has a ndarray of values"),
        (with_site(kind="category"), "of the kind 'category'; there are text, integer, float"),
        (with_site(kind="quantile", edges=(1.0, 0.5)), r"edges \(1.0, 0.5\); they are floats that"),
        (with_site(kind="quantile", edges=(np.float32(1),)), "are floats that ascend"),
        (Schema("click", FIELDS, (None,)), "missing values hold None in position 0"),
        ([field.name for field in FIELDS], "The schema is a list"),
    ],
)
def test_a_schema_that_is_none_is_refused(schema, words):
    with pytest.raises(InputError, match=words):
        Dataset(schema, GOOD, GOOD, GOOD)


def test_columns_of_any_order_in_memory_are_read():
    build(train=Split(np.asfortranarray(GOOD.ids), GOOD.labels[::-1]))
    wrong = np.asfortranarray(changed(9, 33, 0).ids)
    with pytest.raises(InputError, match="hold 9 in row 33 of field 'site'"):
        build(train=Split(wrong, GOOD.labels))
    with pytest.raises(InputError, match="hold 9 in row 36 of field 'site'"):
        build(train=Split(wrong[::-1], GOOD.labels))


@pytest.fixture
def store(tmp_path):
    save_dataset(build(), tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("ids", -7, "hold -7 in row 44 of field 'ad'"), ("labels", 2, "in row 44 is 2")],
)
def test_a_store_is_read_when_it_is_checked(store, name, value, words, tmp_path):
    array = np.load(store / f"valid.{name}.npy", mmap_mode="r+")
    array[(44, 1) if name == "ids" else 44] = value
    array.flush()
    data = open_store(store)
    rows = []
    with pytest.raises(InputError, match=words):
        data.check(rows.append)
    assert rows == [16, 16, 16, 16, 6, 16, 16]
    some = Split(data.valid.ids[40:], data.valid.labels[40:])
    dataclasses.replace(data, valid=some)  # still of the file
    with pytest.raises(InputError, match=r"in row 4 "):
        dataclasses.replace(data, valid=Split(*(np.array(part) for part in some)))
    with pytest.raises(InputError, match=words):
        save_dataset(data, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    with pytest.raises(InputError, match="3 fields"):
        dataclasses.replace(data, valid=Split(data.valid.ids[:, 1:], data.valid.labels))


def test_what_was_changed_in_place_is_found_when_it_is_checked():
    data = build(train=Split(GOOD.ids.copy(), GOOD.labels))
    data.train.ids[5, 1] = 100
    with pytest.raises(InputError, match="ids of train hold 100 in row 5 of field 'ad'"):
        data.check()


SIZES = (200, 3, 2)


@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">i8", ">u2"]
)
def test_ids_of_any_integers_are_checked(dtype):
    largest = min(199, np.iinfo(dtype).max)
    ids = np.array([[0, 0, 0], [largest, 2, 1]], dtype)
    np.testing.assert_array_equal(as_ids(ids, SIZES), ids)
    ids[1, 1] = 3
    with pytest.raises(InputError, match=r"The ids hold 3 in row 1 of field 1 \(counted from 0\)"):
        as_ids(ids, SIZES)
    with pytest.raises(InputError, match="hold 3 in row 1 of field 'b'"):
        as_ids(ids, SIZES, ("a", "b", "c"))
    if ids.dtype.kind == "i":
        ids[0, 0] = np.iinfo(dtype).min
        with pytest.raises(InputError, match=rf"hold {np.iinfo(dtype).min} in row 0 of field 0"):
            as_ids(ids, SIZES)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (np.array([1, 2, 1]), r"shape \[3\]; \[n, 3\] is needed.*one row is ids\[None, :\]"),
        (np.zeros((2, 4), int), r"shape \[2, 4\]; \[n, 3\] is needed"),
        (np.zeros((2, 1), int), r"shape \[2, 1\]; \[n, 3\] is needed"),
        (np.zeros((1, 2, 3), int), r"shape \[1, 2, 3\]"),
        (5, r"shape \[\]"),
        ([], r"shape \[0\]"),
        (np.zeros((2, 3)), "are float64; integers are needed"),
        (np.zeros((2, 3), bool), "are bool; integers"),
        (np.zeros((2, 3), object), "are object; integers"),
        (np.zeros((2, 3), "m8[s]"), r"are timedelta64\[s\]; integers"),
        ([["1", "2", "1"]], "integers are needed"),
        ([[1, 2, 1], [1, 2]], "are not an array"),
        (np.ma.masked_array(np.zeros((2, 3), int)), "are a MaskedArray"),
        (pl.DataFrame({"a": [1], "b": [1], "c": [1]}), "are a DataFrame; give a NumPy array"),
        ({"a": [1]}, r"shape \[\]"),
    ],
)
def test_what_is_no_array_of_ids_is_refused(ids, words):
    with pytest.raises(InputError, match=words):
        as_ids(ids, SIZES)


def test_lists_of_rows_are_ids():
    np.testing.assert_array_equal(as_ids([[199, 2, 1], [0, 0, 0]], SIZES), [[199, 2, 1], [0, 0, 0]])
    assert as_ids(np.zeros((0, 3), int), SIZES).shape == (0, 3)
