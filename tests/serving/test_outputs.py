"""A file of rows is there as a whole, or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from ihas_jax.errors import InputError
from ihas_jax.serving import outputs
from ihas_jax.serving.outputs import csv_writer, new_file

KINDS = {"id": pl.String(), "p": pl.Float32()}
PARTS = [
    pl.DataFrame({"id": ["a", ""], "p": [0.1, 1e-9]}, schema=KINDS),
    pl.DataFrame({"id": ['b "c", d', "two\nlines"], "p": [1 / 3, 1.0]}, schema=KINDS),
]
READ = {
    ".csv": lambda path: pl.read_csv(path.read_bytes(), schema=KINDS, empty_string_is_null=False),
    ".parquet": lambda path: pl.read_parquet(path.read_bytes()),
}
each_format = pytest.mark.parametrize("suffix", READ)


@each_format
@pytest.mark.parametrize("parts", [0, 1, 2])
def test_what_is_written_is_read(tmp_path, suffix, parts):
    path = tmp_path / f"a[b]*{suffix}"
    with new_file(path, KINDS) as add:
        for part in PARTS[:parts]:
            add(part)
            assert not path.exists()
    assert READ[suffix](path).equals(pl.concat([pl.DataFrame(schema=KINDS), *PARTS[:parts]]))
    assert list(tmp_path.iterdir()) == [path]


@each_format
def test_a_block_that_fails_leaves_what_was_there(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    path.write_text("before")
    with pytest.raises(KeyError), new_file(path, KINDS, overwrite=True) as add:
        add(PARTS[0])
        raise KeyError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    with new_file(path, KINDS, overwrite=True) as add:
        add(PARTS[0])
        assert path.read_text() == "before"
    assert READ[suffix](path).equals(PARTS[0])


KILLED = """
import sys, time
import polars as pl
from pathlib import Path
from ihas_jax.serving.outputs import new_file
with new_file(Path(sys.argv[1]), {"p": pl.Float32()}) as add:
    while True:
        add(pl.DataFrame({"p": [0.5]}, schema={"p": pl.Float32()}))
        print("written", flush=True)
        time.sleep(0.01)
"""


@each_format
def test_a_killed_process_leaves_nothing_under_the_name(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    command = [sys.executable, "-c", KILLED, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        for _ in range(3):
            process.stdout.readline()
        with pytest.raises(InputError, match="Another process is at work"), new_file(path, KINDS):
            pass
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not path.exists()
    with new_file(path, KINDS) as add:
        add(PARTS[0])
    assert READ[suffix](path).equals(PARTS[0])
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "there.csv").touch()
    (tmp_path / "link.csv").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.csv").mkdir()
    for name, message in (
        ("rows.txt", "must end in .parquet or .csv"),
        ("none/rows.csv", "there is no folder .*none; make it first"),
        ("there.csv", "there.csv exists, and nothing is overwritten.*--overwrite"),
        ("link.csv", "link.csv exists"),
        ("folder.csv", "is a folder; name a file"),
        (f"{'x' * 300}.csv", "xx.csv can't be written: File name too long. Choose another place"),
    ):
        with pytest.raises(InputError, match=message), new_file(tmp_path / name, KINDS):
            raise AssertionError("the block began")
    lists = {"tags": pl.List(pl.String())}
    with pytest.raises(InputError, match=r"'tags' is List\(String\), which CSV can't hold"):
        csv_writer(1, lists, "stdout")
    with new_file(tmp_path / "lists.parquet", lists) as add:
        add(pl.DataFrame({"tags": [["a"], []]}, schema=lists))
    assert len(pl.read_parquet(tmp_path / "lists.parquet")) == 2


@each_format
def test_what_appears_meanwhile_is_not_overwritten(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    with pytest.raises(InputError, match="exists"), new_file(path, KINDS) as add:
        add(PARTS[0])
        path.write_text("another one's")
    assert path.read_text() == "another one's"


@each_format
def test_a_full_disk_is_named(tmp_path, suffix, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    path = tmp_path / f"rows{suffix}"
    message = r"rows\.\w+ can't be used: No space left on device\. Free some space and try again\."
    with pytest.raises(InputError, match=message), new_file(path, KINDS) as add:
        monkeypatch.setattr(pl.DataFrame, f"write_{suffix[1:]}", full)
        add(PARTS[0])
    assert list(tmp_path.iterdir()) == []


@each_format
def test_what_is_in_the_way_of_the_parts_is_named_and_left_alone(tmp_path, suffix):
    path, partial = tmp_path / f"rows{suffix}", tmp_path / f".rows{suffix}.partial"
    partial.write_text("mine")
    message = rf"\.rows{suffix}\.partial can't be used: File exists\. Move away what stands there"
    with pytest.raises(InputError, match=message), new_file(path, KINDS):
        raise AssertionError("the block began")
    assert partial.read_text() == "mine"
    partial.unlink()
    (partial / "folder").mkdir(parents=True)
    message = rf"\.rows{suffix}\.partial/folder can't be used: .* Move away the folder"
    for _ in range(2):  # the lock of the first try is gone
        with pytest.raises(InputError, match=message), new_file(path, KINDS):
            raise AssertionError("the block began")


def test_a_pipe_gets_all_rows_and_its_end_is_seen():
    reader, writer = os.pipe()
    add = csv_writer(writer, KINDS, "the pipe")
    add(PARTS[0])
    assert os.read(reader, 1000) == b'id,p\na,0.1\n"",1e-9\n'
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        add(PARTS[0])
    os.close(writer)
    with (
        Path("/dev/full").open("wb") as file,
        pytest.raises(InputError, match="disk cannot be written"),
    ):
        csv_writer(file.fileno(), KINDS, "disk")


def test_a_slow_reader_is_waited_for(monkeypatch):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    found, waited = [], []

    def wait(*_):
        waited.append(len(found))
        found.append(os.read(reader, 1 << 20))

    monkeypatch.setattr(outputs.select, "select", wait)
    rows = pl.DataFrame({"id": ["x" * 100] * 5000, "p": [0.5] * 5000}, schema=KINDS)
    csv_writer(writer, KINDS, "pipe")(rows)
    os.close(writer)
    found.append(os.read(reader, 1 << 20))
    assert waited
    assert b"".join(found).decode() == rows.write_csv()
    os.close(reader)
