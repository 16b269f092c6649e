from __future__ import annotations

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import ihas_jax as ihas
from ihas_jax.data import encoded
from ihas_jax.data.encoded import convert_encoded
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.store import verify_store
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
                    "comment": ["not a field"] * len(place),
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
    monkeypatch.setattr(encoded, "_ROWS", 8)
    folder, rows = written
    data = ihas.open_store(folder)
    check(data, rows)
    assert data.schema.names == ("site", "ad")
    assert data.schema.sizes == (8, 4)  # every id has a value, and there is room for others
    assert data.schema.label == "label"


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
    with pytest.raises(InputError, match=r"'ad' has id 2, but schema\.json only 2 ids"):
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
        ({"label": [0, 1], "site": [1, 2]}, "no column 'ad' of integers"),
        ({"label": [0, 1], "site": [1, 2], "ad": ["a", "b"]}, "no column 'ad' of integers"),
        ({"label": [0, 1], "site": [1, 2], "ad": [1, None]}, "'ad' is missing in 1 rows"),
        ({"label": [0, 1], "site": [1, 2], "ad": [1, -1]}, "'ad' holds -1"),
        ({"label": [0, 1], "site": [1, 2], "ad": [1, 2**40]}, "'ad' holds 1099511627776"),
        ({"label": [0, 2], "site": [1, 2], "ad": [1, 1]}, "'label' holds 2, not 0 or 1"),
        ({"label": [0, 1], "site": [1, 2], "ad": [1.0, 2.0]}, "no column 'ad' of integers"),
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
    check_range = encoded.EncodedLog._check_range

    def check_and_change(self):
        found = check_range(self)
        columns = {"label": [1] * rows, "site": [6] * rows, "ad": [2] * rows}
        kinds = pyarrow.schema([(name, pyarrow.int64()) for name in columns])
        parquet.write_table(pyarrow.table(columns, schema=kinds), part)
        return found

    monkeypatch.setattr(encoded.EncodedLog, "_check_range", check_and_change)
    message = r"part-00002\.snappy\.parquet changed while it was being read"
    with pytest.raises(InputError, match=message):
        ihas.open_store(folder)
    with pytest.raises(InputError, match=message):
        convert_encoded(folder, tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["encoded"]


def test_a_column_of_other_numbers_is_not_left_out_silently(written):
    folder, _ = written
    for part in (folder / "train").glob("*.parquet"):
        table = pyarrow.table({"label": [0, 1], "site": [1.0, None], "ad": [0, 1]})
        parquet.write_table(table, part)
    with pytest.raises(InputError, match="no column 'site' of integers"):
        ihas.open_store(folder)
    for part in (folder / "train").glob("*.parquet"):
        parquet.write_table(pyarrow.table({"label": [0, 1]}), part)
    with pytest.raises(InputError, match="has no columns of ids"):
        ihas.open_store(folder)


def test_parts_may_have_more_columns_and_other_integers(written):
    folder, rows = written
    ids, labels = rows["test"]
    for part in (folder / "test").glob("*.parquet"):
        part.unlink()
    columns = {"day": [1] * 11, "ad": ids[:, 1], "label": labels == 1, "site": ids[:, 0]}
    parquet.write_table(pyarrow.table(columns), folder / "test" / "part-9.parquet")
    check(ihas.open_store(folder), rows)
