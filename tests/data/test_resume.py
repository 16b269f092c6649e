"""A prepare that was cut short goes on, and its store is the same to the last byte."""

from __future__ import annotations

import gzip

import numpy as np
import polars as pl
import pytest

from ihas_jax.data.raw import formats, records, spool
from ihas_jax.data.raw.formats import parquet
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.raw.spool import Spool
from ihas_jax.errors import InputError

ROWS = 400


def contents(store):
    return {file.name: file.read_bytes() for file in store.iterdir()}


def frame(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "ad": [f"a{v}" for v in rng.zipf(1.5, rows) % 40],
            "price": rng.integers(-2, 90, rows),
            "click": rng.integers(0, 2, rows),
            "day": rng.integers(0, 7, rows),
        }
    )


def write(folder, kind):
    """A log in one or more files; quotes and gzip where it is text."""
    parts = [frame(150, 0), frame(150, 1), frame(100, 2)]
    paths = []
    for number, part in enumerate(parts if kind != "gzip" else [pl.concat(parts)]):
        if kind == "parquet":
            paths.append(folder / f"part-{number}.parquet")
            part.write_parquet(paths[-1], row_group_size=40)
            continue
        text = part.write_csv(quote_style="non_numeric").encode()
        paths.append(folder / f"part-{number}.csv{'.gz' if kind == 'gzip' else ''}")
        paths[-1].write_bytes(gzip.compress(text) if kind == "gzip" else text)
    return paths


def open_log(paths):
    return formats.table(*paths, label="click", categorical=["ad"], numeric=["price"], time="day")


def interrupt(monkeypatch, after):
    """Lets the process end after so many chunks, half way through writing the next."""
    append, left = Spool.append, [after]

    def stop(self, chunk, read):
        if not left[0]:
            for file in self._files.values():
                file.write(b"the beginning of a chunk")
            self._index.write('{"rows": 3')
            raise KeyboardInterrupt
        left[0] -= 1
        append(self, chunk, read)

    monkeypatch.setattr(Spool, "append", stop)
    return append


def cut_short(log, folder, monkeypatch, after, **choices):
    """Prepares a log until it is interrupted."""
    with monkeypatch.context() as patch:
        interrupt(patch, after)
        with pytest.raises(KeyboardInterrupt):
            prepare(log, folder / "store", **choices)


def check(log, folder, **choices):
    """Goes on, and compares with a store that was prepared in one go."""
    prepare(log, folder / "store", **choices)
    prepare(log, folder / "whole", **choices)
    assert contents(folder / "store") == contents(folder / "whole")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(records, "BLOCK_BYTES", 250)
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 40)


@pytest.mark.parametrize("split", ["random", "chronological"])
@pytest.mark.parametrize("kind", ["text", "gzip", "parquet"])
@pytest.mark.parametrize("after", [0, 1, 6])
def test_an_interrupted_prepare_goes_on(tmp_path, monkeypatch, kind, after, split):
    log = open_log(write(tmp_path, kind))
    choices = {"min_count": 3, "split": split, "sample": 0.7, "limit_rows": 390}
    prepare(log, tmp_path / "whole", **choices)
    cut_short(log, tmp_path, monkeypatch, after, **choices)
    assert not (tmp_path / "store").exists()
    starts = []
    chunks = type(log).chunks
    monkeypatch.setattr(
        type(log), "chunks", lambda self, start: starts.append(start) or chunks(self, start)
    )
    prepare(log, tmp_path / "store", **choices)
    (start,) = starts
    assert (start > (0, 0, 0)) == (after > 0)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert not (tmp_path / ".store.partial").exists()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("after", [1, 2])
def test_folders_and_empty_parts_are_resumed(tmp_path, monkeypatch, kind, after):
    paths = []
    for number in range(6):
        folder = tmp_path / f"hour={number}"
        folder.mkdir()
        paths.append(folder / "part")
        part = frame(30 * (number % 3 != 1), number)
        part.write_csv(paths[-1]) if kind == "csv" else part.write_parquet(paths[-1])
    paths[0].write_bytes(b"")
    log = formats.table(*paths, label="click", categorical=["ad", "hour"])
    whole = prepare(log, tmp_path / "whole", min_count=3)
    assert whole.schema.fields[1].values == ("2", "3", "5")
    assert whole.empty == (paths[0], paths[1], paths[4])
    cut_short(log, tmp_path, monkeypatch, after, min_count=3)
    assert prepare(log, tmp_path / "store", min_count=3).empty == whole.empty
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_another_job_starts_anew(tmp_path, monkeypatch):
    paths = write(tmp_path, "text")
    cut_short(open_log(paths), tmp_path, monkeypatch, 3)
    paths[0].write_bytes(paths[0].read_bytes() + b'"a1",5,1,2\n')
    check(open_log(paths), tmp_path)


def test_a_damaged_spool_is_an_error_and_then_gone(tmp_path, monkeypatch):
    log = open_log(write(tmp_path, "text"))
    cut_short(log, tmp_path, monkeypatch, 3)
    rows = tmp_path / ".store.partial" / "spool" / "rows"
    rows.write_bytes(b"\1" + rows.read_bytes()[1:])
    with pytest.raises(InputError, match="rows is damaged"):
        prepare(log, tmp_path / "store")
    check(log, tmp_path)


def test_a_spool_holds_nothing_else(tmp_path):
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "mine").write_text("keep")
    with pytest.raises(InputError, match="mine, which no spool has"):
        Spool(tmp_path / "spool", {}, 1)
    assert (tmp_path / "spool" / "mine").read_text() == "keep"


def test_a_full_disk_can_be_freed_and_the_work_goes_on(tmp_path, monkeypatch):
    log = open_log(write(tmp_path, "text"))
    prepare(log, tmp_path / "whole")
    with monkeypatch.context() as patch:
        append, left = Spool.append, [5]

        def full(self, chunk, read):
            if not left[0]:
                raise OSError(28, "No space left on device")
            left[0] -= 1
            append(self, chunk, read)

        patch.setattr(spool.Spool, "append", full)
        with pytest.raises(InputError, match="No space left on device"):
            prepare(log, tmp_path / "store")
    assert (tmp_path / ".store.partial" / "spool" / "rows").stat().st_size
    prepare(log, tmp_path / "store")
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


@pytest.mark.parametrize("limit", [300, 306, 320])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_bad_rows_behind_the_limit_do_not_count(tmp_path, monkeypatch, after, limit):
    lines = [f"a{i % 7},{i % 2}" for i in range(500)]
    for row in (40, 298, 303, 310, 311, 330):
        lines[row] = "broken"
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["ad,y", *lines]) + "\n")
    log = formats.table(path, label="y", categorical=["ad"])
    choices = {"limit_rows": limit, "on_bad_rows": "skip"}
    whole = prepare(log, tmp_path / "whole", **choices)
    usable = np.flatnonzero([line != "broken" for line in lines])[:limit]
    assert whole.bad_rows == sum(line == "broken" for line in lines[: usable[-1]])
    assert sum(whole.rows) == limit
    cut_short(log, tmp_path, monkeypatch, after, **choices)
    prepare(log, tmp_path / "store", **choices)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_what_was_read_before_a_bad_row_is_not_read_again(tmp_path, monkeypatch):
    paths = write(tmp_path, "text")
    with paths[2].open("a") as file:
        file.write('"a1",5,maybe,2\n')
    log = open_log(paths)
    with pytest.raises(InputError, match="is 'maybe', not 0 or 1"):
        prepare(log, tmp_path / "store")
    starts = []
    chunks = type(log).chunks
    monkeypatch.setattr(
        type(log), "chunks", lambda self, start: starts.append(start) or chunks(self, start)
    )
    summary = prepare(log, tmp_path / "store", on_bad_rows="skip")
    assert starts[0].file == 2
    assert (summary.bad_rows, sum(summary.rows)) == (1, ROWS)
    prepare(log, tmp_path / "whole", on_bad_rows="skip")
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_a_spool_killed_while_it_was_deleted_starts_anew(tmp_path, monkeypatch):
    log = open_log(write(tmp_path, "text"))
    cut_short(log, tmp_path, monkeypatch, 3)
    folder = tmp_path / ".store.partial" / "spool"
    deleted = []
    unlink = type(folder).unlink

    def die(self):
        if len(deleted) == 2:
            raise KeyboardInterrupt
        deleted.append(self.name)
        unlink(self)

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            spool.remove_spool(folder)
    check(log, tmp_path)
