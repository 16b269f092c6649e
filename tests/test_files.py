"""Files that are written whole or not at all, and folders with one writer."""

import hashlib
import math
import os

import pytest

from ihas_jax import checksums
from ihas_jax.errors import InputError
from ihas_jax.files import (
    digest,
    fingerprints,
    lock_folder,
    null_to_nan,
    read_json,
    write_json,
    write_text,
)


def test_json_has_null_for_what_it_lacks(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"auc": math.nan, "scores": (1.5, -math.inf), "ö": 1})
    assert file.read_text() == (
        '{\n  "auc": null,\n  "scores": [\n    1.5,\n    null\n  ],\n  "\\u00f6": 1\n}\n'
    )
    assert read_json(file) == {"auc": None, "scores": [1.5, None], "ö": 1}
    assert math.isnan(null_to_nan(read_json(file))["scores"][1])


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    write_text(tmp_path / "a.md", "before\n")

    def fail(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a.md", "after\n", durable=True)
    assert (tmp_path / "a.md").read_text() == "before\n"


@pytest.mark.parametrize("content", [b'{"a": ', b'{"a": 2}\n', b"[]", None])
def test_what_was_not_written_is_an_error_that_names_the_file_and_the_remedy(tmp_path, content):
    checksums.start(tmp_path)
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json can't be read \(.*\)\. Mend it\."):
        read_json(file, "Mend it.")


def test_a_folder_has_one_lock(tmp_path):
    first = lock_folder(tmp_path)
    with pytest.raises(InputError, match="Another process is at work in"):
        lock_folder(tmp_path)
    os.close(first)
    os.close(lock_folder(tmp_path))


def test_a_folder_that_was_removed_before_the_lock_is_not_locked(tmp_path, monkeypatch):
    folder = tmp_path / "store"
    folder.mkdir()
    opened = os.open

    def open_and_remove(path, flags):
        handle = opened(path, flags)
        path.rmdir()
        return handle

    monkeypatch.setattr(os, "open", open_and_remove)
    with pytest.raises(InputError, match="Another process is at work in"):
        lock_folder(folder)


def test_digests_and_fingerprints_tell_files_apart(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"one")
    before = fingerprints([file, tmp_path / "missing"])
    assert before == fingerprints([file, tmp_path / "missing"])
    assert before[1] is None
    assert digest(file) == hashlib.sha256(b"one").hexdigest()
    file.write_bytes(b"other")
    assert fingerprints([file])[0] != before[0]
