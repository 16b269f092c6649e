from __future__ import annotations

import json
from functools import partial

import numpy as np
import polars as pl
import pyarrow
import pytest
from pyarrow import parquet

import ihas_jax as ihas
from ihas_jax import checksums
from ihas_jax.data import encoded, encoded_log
from ihas_jax.data.checks import is_mapped
from ihas_jax.data.encoded import convert_encoded, open_encoded, verify_encoded
from ihas_jax.data.open import read_schema
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.store import map_store, verify_store
from ihas_jax.data.store_writer import save_dataset
from ihas_jax.errors import InputError

SIZES = (7, 3)


@pytest.fixture
def written(tmp_path):
    """A folder of parts as Spark writes them, and its ids and labels."""
    rng = np.random.default_rng(0)
    folder, rows = tmp_path / "encoded", {}
    for split, count in (("train", 90), ("valid", 20), ("test", 11)):
        ids = np.stack([rng.integers(size, size=count) for size in SIZES], axis=1)
        labels = rng.integers(0, 2, count)
        rows[split] = ids, labels
        (folder / split).mkdir(parents=True)
        (folder / split / "_SUCCESS").touch()
        for part, place in enumerate(np.array_split(np.arange(count), 3)):
            table = pyarrow.table(
                {
                    "site": pyarrow.array(ids[place, 0], pyarrow.int64()),
                    "label": pyarrow.array(labels[place], pyarrow.int8()),
                    "ad": pyarrow.array(ids[place, 1], pyarrow.int32()),
                }
            )
            path = folder / split / f"part-{part:05}.snappy.parquet"
            parquet.write_table(table, path, row_group_size=4)
    return folder, rows


def check(data, rows):
    for name, (ids, labels) in rows.items():
        split = getattr(data, name)
        np.testing.assert_array_equal(split.ids, ids)
        np.testing.assert_array_equal(split.labels, labels)
        assert split.ids.dtype == np.int32
        assert split.labels.dtype == np.uint8


def test_a_folder_of_parts_opens_as_a_store(written, monkeypatch):
    monkeypatch.setattr(encoded_log, "_ROWS", 8)
    folder, rows = written
    data = ihas.open_store(folder)
    check(data, rows)
    assert data.schema.names == ("site", "ad")
    assert data.schema.sizes == (8, 4)  # every id has a value, and there is room for others
    assert data.schema.label == "label"


def test_a_large_folder_is_mapped(written, monkeypatch):
    folder, rows = written
    Schema("label", (Field("ad", ("x", "y")), Field("site", tuple("abcdef"))), ("-",)).save(
        folder / "schema.json"
    )
    rows = {name: (ids[:, ::-1], labels) for name, (ids, labels) in rows.items()}
    size = 4 * len(SIZES) * sum(len(labels) for _, labels in rows.values())
    monkeypatch.setattr(encoded, "_MEMORY_BYTES", size)
    assert not is_mapped(ihas.open_store(folder).train.ids)
    monkeypatch.setattr(encoded, "_MEMORY_BYTES", size - 1)
    data = ihas.open_store(folder)
    check(data, rows)
    assert all(is_mapped(split.ids) for split in (data.train, data.valid, data.test))
    assert data.schema.missing == ("-",)
    verify_store(folder / "mapped")
    # the second time nothing is read
    with monkeypatch.context() as patch:
        patch.setattr(encoded, "EncodedLog", None)
        check(ihas.open_store(folder), rows)
    part = next((folder / "valid").glob("*.parquet"))
    table = parquet.read_table(part)
    parquet.write_table(table.slice(1), part)
    found = ihas.open_store(folder)
    assert len(found.valid.labels) == 19
    check(data, rows)  # the files that it maps are gone only by name


@pytest.fixture
def summed(written):
    """The folder with checksums, and a part of it."""
    folder, _ = written
    checksums.seal(folder)
    return folder, folder / "train" / "part-00002.snappy.parquet"


def test_a_part_that_was_cut_short_exchanged_added_or_lost_is_named(summed, tmp_path):
    folder, part = summed
    whole, other = part.read_bytes(), (folder / "train" / "part-00001.snappy.parquet").read_bytes()
    assert len(ihas.open_store(folder).train.labels)
    verify_encoded(folder)
    part.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"part-00002\.snappy\.parquet is damaged or was exch"):
        ihas.open_store(folder)
    part.write_bytes(other)
    for look in (ihas.open_store, verify_encoded, partial(convert_encoded, output=tmp_path / "s")):
        with pytest.raises(InputError, match=r"part-00002\.snappy\.parquet is damaged or was exch"):
            look(folder)
    part.unlink()
    with pytest.raises(InputError, match=r"part-00002\.snappy\.parquet is missing"):
        ihas.open_store(folder)
    part.write_bytes(whole)
    part.with_name("part-9.parquet").write_bytes(other)
    with pytest.raises(InputError, match=r"part-9\.parquet has no checksum.*delete checksums"):
        ihas.open_store(folder)
    (folder / "checksums.json").unlink()
    assert len(ihas.open_store(folder).train.labels)
    with pytest.raises(InputError, match="encoded Parquet without checksums"):
        verify_encoded(folder)


def test_the_schema_is_read_without_the_rows(written, monkeypatch):
    folder, _ = written
    assert read_schema(folder) == ihas.open_store(folder).schema
    Schema("label", (Field("ad", ("x", "y")), Field("site", tuple("abcdef")))).save(
        folder / "schema.json"
    )
    monkeypatch.setattr(encoded, "EncodedLog", None)
    assert read_schema(folder).sizes == (3, 7)
    save_dataset(ihas.synthetic(), folder / "store")
    assert read_schema(folder / "store") == map_store(folder / "store").schema


def test_a_part_that_was_exchanged_is_seen_in_a_mapped_folder(summed, monkeypatch):
    folder, part = summed
    monkeypatch.setattr(encoded, "_MEMORY_BYTES", 0)
    ihas.open_store(folder)
    ihas.open_store(folder)
    part.write_bytes((folder / "train" / "part-00001.snappy.parquet").read_bytes())
    with pytest.raises(InputError, match=r"part-00002\.snappy\.parquet is damaged or was exch"):
        ihas.open_store(folder)


def test_a_folder_that_is_in_the_way_is_left_alone(written, monkeypatch):
    folder, _ = written
    monkeypatch.setattr(encoded, "_MEMORY_BYTES", 0)
    (folder / ".mapped.partial").touch()
    with pytest.raises(InputError, match=r"mapped cannot be made.*prepare\.py encoded --input"):
        ihas.open_store(folder)
    (folder / ".mapped.partial").unlink()
    save_dataset(ihas.synthetic(), folder / "mapped")
    with pytest.raises(InputError, match="mapped is a store of another log; move it away"):
        ihas.open_store(folder)
    assert len(map_store(folder / "mapped").train.labels)


def test_it_can_be_made_a_store(written, tmp_path):
    folder, rows = written
    data = convert_encoded(folder, tmp_path / "store")
    check(data, rows)
    verify_store(tmp_path / "store")
    assert data.schema == ihas.open_store(folder).schema


def test_the_vocabularies_may_be_there(written):
    folder, rows = written
    schema = Schema("label", (Field("ad", ("x", "y")), Field("site", tuple("abcdef"))))
    schema.save(folder / "schema.json")
    data = ihas.open_store(folder)
    assert data.schema == schema
    check(data, {name: (ids[:, ::-1], labels) for name, (ids, labels) in rows.items()})
    Schema("label", (Field("ad", ("x",)),)).save(folder / "schema.json")
    with pytest.raises(
        InputError,
        match=r"'ad' holds 2 in row \d of train/part-0.*; 2 ids, of 0 to 1, are in schema\.json",
    ):
        ihas.open_store(folder)


def test_single_files(written):
    folder, rows = written
    for split in rows:
        table = parquet.read_table(sorted((folder / split).glob("*.parquet")))
        parquet.write_table(table, folder / f"{split}.parquet")
    check(ihas.open_store(folder), rows)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0, 1], "site": [1, 2]}, r"'ad' is not in test/part-0\.parquet"),
        ({"label": [0, 1], "site": [1, 2], "ad": ["a", "b"]}, "'ad' holds text in test/part-0"),
        (
            {"label": [0, 1], "site": [1, 2], "ad": [1, None]},
            "'ad' is missing in 1 rows, the first of them row 1 of test/part-0",
        ),
        ({"label": [0, 1], "site": [1, 2], "ad": [1, -1]}, "'ad' holds -1 in row 1 of test/part-0"),
        ({"label": [0, 1], "site": [1, 2], "ad": [2**40, 1]}, "'ad' holds 1099511627776 in row 0"),
        ({"label": [0, 2], "site": [1, 2], "ad": [1, 1]}, "'label' holds 2 in row 1 .*0 or 1"),
        ({"label": [-1, 1], "site": [1, 2], "ad": [1, 1]}, "'label' holds -1 in row 0 .*0 or 1"),
        ({"label": ["a", "b"], "site": [1, 2], "ad": [1, 1]}, "'label' holds text"),
        ({"site": [1, 2], "ad": [1, 1]}, "'label' is not in test/part-0"),
        (
            {"label": [0, 1], "site": [1, 2], "ad": [1.0, None]},
            r"'ad' holds whole numbers as floats .*\.fillna\(ID\)",
        ),
        ({"label": [0, 1], "site": [1, 2], "ad": [1.0, 0.5]}, "'ad' holds fractions"),
        ({"label": [0, 1], "site": [1, 2], "ad": [True, False]}, "'ad' holds booleans"),
        ({"label": [0, 1], "site": [1, 2], "ad": [[1], [2]]}, "'ad' holds lists"),
        ({"label": [0, 1], "site": [1, 2], "ad": [None, None]}, "'ad' holds nulls alone"),
        ({"label": [0, 1], "site": [1, 2], "ad": [1, 1], "day": [1, 1]}, "'day' is not in train/p"),
    ],
)
def test_a_bad_part_is_an_error(written, columns, message):
    folder, _ = written
    for part in (folder / "test").glob("*.parquet"):
        part.unlink()
    parquet.write_table(pyarrow.table(columns), folder / "test" / "part-0.parquet")
    with pytest.raises(InputError, match=message):
        ihas.open_store(folder)


def test_a_damaged_or_missing_part_is_named(written):
    folder, _ = written
    (folder / "valid" / "part-00001.snappy.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"part-00001\.snappy\.parquet cannot be read as Parquet"):
        ihas.open_store(folder)
    for part in (folder / "valid").glob("*.parquet"):
        part.unlink()
    with pytest.raises(InputError, match=r"holds no valid\.parquet"):
        ihas.open_store(folder)


@pytest.mark.parametrize("rows", [0, 2, 30, 31])
def test_a_part_that_changes_meanwhile(written, tmp_path, monkeypatch, rows):
    """Also by rows that look good, and as many as there were."""
    folder, _ = written
    part = folder / "train" / "part-00002.snappy.parquet"
    check_range = encoded_log.EncodedLog._check_range

    def check_and_change(self, sizes):
        found = check_range(self, sizes)
        columns = {"label": [1] * rows, "site": [6] * rows, "ad": [2] * rows}
        kinds = pyarrow.schema([(name, pyarrow.int64()) for name in columns])
        parquet.write_table(pyarrow.table(columns, schema=kinds), part)
        return found

    monkeypatch.setattr(encoded_log.EncodedLog, "_check_range", check_and_change)
    message = r"part-00002\.snappy\.parquet changed while it was being read"
    with pytest.raises(InputError, match=message):
        ihas.open_store(folder)
    with pytest.raises(InputError, match=message):
        convert_encoded(folder, tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["encoded"]


def test_no_columns_are_no_log(written):
    folder, _ = written
    for part in folder.glob("*/*.parquet"):
        parquet.write_table(pyarrow.table({"label": [0, 1]}), part)
    with pytest.raises(InputError, match="has no columns of ids"):
        ihas.open_store(folder)


def test_the_largest_of_integers_is_named(written):
    folder, _ = written
    part = folder / "train" / "part-00000.snappy.parquet"
    ids = pyarrow.array([1, 2**64 - 1], pyarrow.uint64())
    parquet.write_table(pyarrow.table({"label": [0, 1], "site": ids, "ad": [0, 1]}), part)
    with pytest.raises(InputError, match="'site' holds 18446744073709551615 in row 1 of train"):
        ihas.open_store(folder)


@pytest.mark.parametrize("way", ["fields", "schema"])
def test_parts_may_have_more_columns_where_the_fields_are_named(written, way, tmp_path):
    folder, rows = written
    ids, labels = rows["test"]
    for part in (folder / "test").glob("*.parquet"):
        part.unlink()
    columns = {
        "comment": ["no field"] * 11, "ad": ids[:, 1], "label": labels == 1, "site": ids[:, 0]
    }  # fmt: skip
    parquet.write_table(pyarrow.table(columns), folder / "test" / "part-9.parquet")
    with pytest.raises(InputError, match=r"'comment' holds text in test/part-9.* --fields site ad"):
        ihas.open_store(folder)
    if way == "schema":
        fields = (Field("site", tuple("abcdef")), Field("ad", ("x", "y")))
        Schema("label", fields).save(folder / "schema.json")
        check(ihas.open_store(folder), rows)
    else:
        check(open_encoded(folder, ["site", "ad"]), rows)
    data = convert_encoded(folder, tmp_path / "store", ["ad"])
    assert data.schema.names == ("ad",)
    check(data, {name: (ids[:, 1:], labels) for name, (ids, labels) in rows.items()})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("site", r"fields is the text 'site'; give a list of names, \['site'\]"),
        (["site", "ad", "site"], "--fields names a column twice"),
        (["site", "label"], "--fields names 'label', which is the label"),
        (["site", "aid"], "'aid' is not in train/part-00000"),
    ],
)
def test_fields_that_are_none_are_named(written, fields, words):
    folder, _ = written
    with pytest.raises(InputError, match=words):
        open_encoded(folder, fields)


def test_fields_that_the_schema_does_not_have_are_named(written):
    folder, _ = written
    Schema("label", (Field("site", tuple("abcdef")),)).save(folder / "schema.json")
    with pytest.raises(
        InputError, match=r"names 'ad', which .*schema\.json does not have; .* site"
    ):
        open_encoded(folder, ["ad"])


def write_filtered(folder, index, named):
    """Rows of 300 out of 1000, shuffled and split, with the numbers that they had."""
    rng = np.random.default_rng(0)
    order = rng.permutation(1000)[:300]
    about = {"index_columns": [index if named else {"kind": "range", "name": None}]}
    folder.mkdir()
    for name, rows in zip(("train", "valid", "test"), np.split(order, [200, 230]), strict=True):
        columns = {"label": rows % 2, "site": rows % 9, index: rows}
        table = pyarrow.table(columns).replace_schema_metadata({"pandas": json.dumps(about)})
        parquet.write_table(table, folder / f"{name}.parquet")


INDEX = "is the index of a pandas frame in train.parquet, an id for each row: write it with index=F"


@pytest.mark.parametrize(
    ("index", "named", "words"),
    [
        ("__index_level_0__", True, INDEX),
        ("__index_level_0__", False, INDEX),
        ("row", True, INDEX),
        ("Unnamed: 0", False, "has another id in each of the 200 training rows, as an index has"),
    ],
)
def test_an_index_is_no_field(tmp_path, index, named, words):
    write_filtered(tmp_path / "encoded", index, named)
    with pytest.raises(InputError, match=rf"'{index}' {words}.* --fields site "):
        ihas.open_store(tmp_path / "encoded")
    assert open_encoded(tmp_path / "encoded", ["site"]).schema.names == ("site",)
    assert open_encoded(tmp_path / "encoded", ["site", index]).schema.sizes[0] == 10


def test_a_schema_that_encodes_nothing_is_named(written, tmp_path):
    folder, _ = written
    fields = (Field("site", tuple(range(6))), Field("ad", ("x", "y", "z")))
    Schema("label", fields).save(folder / "schema.json")
    with pytest.raises(InputError, match=r"schema\.json: The values of the field 'site' hold 0"):
        convert_encoded(folder, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_names_that_polars_takes_for_patterns_are_names(tmp_path):
    names = ["a", "^a$", "*", "^.*$"]
    for split, rows in (("train", 300), ("valid", 20), ("test", 20)):
        ids = {name: np.arange(rows) % (2 + n) for n, name in enumerate(names)}
        pl.DataFrame(ids | {"label": np.arange(rows) % 2}).write_parquet(
            tmp_path / f"{split}.parquet"
        )
    for data in (ihas.open_store(tmp_path), open_encoded(tmp_path, names[::-1])):
        assert data.schema.sizes == tuple(3 + names.index(name) for name in data.schema.names)
        for name, column in zip(data.schema.names, data.train.ids.T, strict=True):
            np.testing.assert_array_equal(column, np.arange(300) % (2 + names.index(name)))
