from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

from ihas_jax.data import store_writer
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.open import open_store
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.store import verify_store
from ihas_jax.data.store_writer import StoreWriter, new_store, save_dataset
from ihas_jax.errors import InputError

SCHEMA = Schema("click", (Field("site", ("a", "b")), Field("ad", ("x",))))


def make_split(rows):
    ids = np.stack([np.arange(rows) % 3, np.arange(rows) % 2], 1).astype(np.int32)
    return Split(ids, (np.arange(rows) % 2).astype(np.uint8))


@pytest.fixture
def dataset():
    return Dataset(SCHEMA, make_split(8), make_split(2), make_split(0))


@pytest.fixture
def store(tmp_path, dataset):
    save_dataset(dataset, tmp_path / "store", {"seed": 0})
    return tmp_path / "store"


def test_what_is_saved_is_opened(store, dataset):
    opened = open_store(str(store))
    assert opened.schema == SCHEMA
    for name in ("train", "valid", "test"):
        got, want = getattr(opened, name), getattr(dataset, name)
        np.testing.assert_array_equal(got.ids, want.ids)
        np.testing.assert_array_equal(got.labels, want.labels)
        assert (got.ids.dtype, got.labels.dtype) == (np.int32, np.uint8)
    assert not opened.train.ids.flags.writeable
    verify_store(store)


def test_equal_data_give_equal_bytes(tmp_path, store, dataset):
    save_dataset(dataset, tmp_path / "again", {"seed": 0})
    for file in store.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_an_existing_folder_is_not_touched(store, dataset):
    before = {file: file.read_bytes() for file in store.iterdir()}
    with pytest.raises(InputError, match="exists, and nothing is overwritten"):
        save_dataset(dataset, store)
    assert {file: file.read_bytes() for file in store.iterdir()} == before


def rewrite(store, **changes):
    about = json.loads((store / "store.json").read_text())
    (store / "store.json").write_text(json.dumps(about | changes))


def outlined(store, **changes):
    """Changes what store.json says of the schema."""
    about = json.loads((store / "store.json").read_text())
    rewrite(store, schema=about["schema"] | changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: (s / "store.json").unlink(), "not a complete store"),
        (lambda s: (s / "store.json").write_text("{"), "not a complete store"),
        (lambda s: (s / "store.json").write_text("[]"), "not a complete store"),
        (lambda s: (s / "schema.json").unlink(), "no such file"),
        (lambda s: (s / "test.ids.npy").unlink(), r"test\.ids\.npy cannot be opened"),
        (lambda s: os.truncate(s / "train.ids.npy", 150), r"train\.ids\.npy cannot be opened"),
        (lambda s: np.save(s / "train.labels.npy", np.zeros(3, np.uint8)), r"store\.json says"),
        (lambda s: np.save(s / "valid.ids.npy", np.zeros((2, 2))), "float64"),
        (lambda s: rewrite(s, version=1), "version 1, this program reads version 2"),
        (lambda s: outlined(s, fields=[{"name": "site"}]), r"store\.json is damaged"),
        (lambda s: outlined(s, fields=None), r"store\.json is damaged"),
        (lambda s: rewrite(s, schema=[]), r"store\.json is damaged"),
    ],
)
def test_a_store_that_is_not_whole_does_not_open(store, damage, message):
    damage(store)
    with pytest.raises(InputError, match=message):
        open_store(store)


def test_vocabularies_are_read_when_they_are_asked_for(store, monkeypatch):
    read = []
    load = Schema.load
    monkeypatch.setattr(Schema, "load", lambda path: read.append(path.name) or load(path))
    monkeypatch.chdir(store.parent)
    schema = open_store("store").schema
    monkeypatch.chdir(store)
    assert (schema.label, schema.names, schema.sizes) == ("click", ("site", "ad"), (3, 2))
    assert read == []
    assert [list(field.values) for field in schema.fields] == [["a", "b"], ["x"]]
    assert read == ["schema.json"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: (s / "schema.json").write_text('{"version":1,"fie'), "not a readable schema"),
        (
            lambda s: Schema("click", ()).save(s / "schema.json"),
            "other fields than its description",
        ),
        (lambda s: outlined(s, label="y"), "other fields than its description"),
        (lambda s: outlined(s, missing=["-"]), "other fields than its description"),
    ],
)
def test_vocabularies_that_are_not_the_stores_are_named(store, damage, message):
    damage(store)
    schema = open_store(store).schema
    with pytest.raises(InputError, match=message):
        schema.fields[0].values[0]


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        open_store(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["train.labels.npy", "valid.ids.npy", "schema.json"])
def test_a_changed_byte_is_found(store, name):
    with (store / name).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x20")
    open_store(store)
    with pytest.raises(InputError, match=rf"{name} is damaged"):
        verify_store(store)


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), new_store(tmp_path / "a" / "store") as folder:
        (folder / "train.ids.npy").write_bytes(b"half")
        raise RuntimeError
    assert list((tmp_path / "a").iterdir()) == []


def test_a_full_disk_is_an_error_of_one_line(tmp_path, dataset, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match="store cannot be written: No space left"):
        save_dataset(dataset, tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_removed_and_strange_files_are_not(tmp_path, dataset):
    partial = tmp_path / ".store.partial"
    partial.mkdir()
    (partial / "train.ids.npy").write_bytes(b"half")
    (partial / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        save_dataset(dataset, tmp_path / "store")
    assert (partial / "thesis.tex").exists()
    (partial / "thesis.tex").unlink()
    save_dataset(dataset, tmp_path / "store")
    assert [file.name for file in tmp_path.iterdir()] == ["store"]


def test_a_process_that_still_writes_hides_no_error(tmp_path):
    def leave(**more):
        with new_store(tmp_path / "store", folders=("work",), **more) as folder:
            (folder / "work").mkdir(exist_ok=True)
            (folder / "sums").touch()
            raise RuntimeError("the reason")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_writer.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(RuntimeError, match="the reason"):
            leave(files=("sums",))
        assert [path.name for path in (tmp_path / ".store.partial").iterdir()] == ["work"]
    with pytest.raises(InputError, match="holds sums, which no store has"):
        leave()
    (tmp_path / ".store.partial" / "sums").unlink()
    with pytest.raises(RuntimeError, match="the reason"):
        leave(files=("sums",))
    assert not any(tmp_path.iterdir())


def test_two_writers_of_one_store(tmp_path, dataset):
    with new_store(tmp_path / "store") as folder:
        with pytest.raises(InputError, match="Another process is at work in"):
            save_dataset(dataset, tmp_path / "store")
        with StoreWriter(folder, SCHEMA, (0, 0, 0), {}):
            pass
    assert len(open_store(tmp_path / "store").train.labels) == 0


def test_a_writer_counts_its_rows(tmp_path):
    with (
        pytest.raises(ValueError, match="rows were written"),
        new_store(tmp_path / "store") as folder,
        StoreWriter(folder, SCHEMA, (3, 0, 0), {}) as writer,
    ):
        writer.append(0, *make_split(2))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path, dataset):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        save_dataset(dataset, tmp_path / "file" / "store")
