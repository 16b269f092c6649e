"""A prepare that was cut short goes on, and its store is the same to the last byte."""

from __future__ import annotations

import gzip

import numpy as np
import polars as pl
import pytest

from ihas_jax.data import formats, records, spool
from ihas_jax.data.ingest import prepare
from ihas_jax.data.spool import Spool
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


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(records, "BLOCK_BYTES", 300)
    monkeypatch.setattr(formats, "_PARQUET_ROWS", 40)


@pytest.mark.parametrize("split", ["random", "chronological"])
@pytest.mark.parametrize("kind", ["text", "gzip", "parquet"])
@pytest.mark.parametrize("after", [0, 1, 6])
def test_an_interrupted_prepare_goes_on(tmp_path, monkeypatch, kind, after, split):
    log = open_log(write(tmp_path, kind))
    choices = {"min_count": 3, "split": split, "sample": 0.7, "limit_rows": 390}
    prepare(log, tmp_path / "whole", **choices)
    with monkeypatch.context() as patch:
        interrupt(patch, after)
        with pytest.raises(KeyboardInterrupt):
            prepare(log, tmp_path / "store", **choices)
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


def test_another_job_starts_anew(tmp_path, monkeypatch):
    paths = write(tmp_path, "text")
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            prepare(open_log(paths), tmp_path / "store")
    paths[0].write_bytes(paths[0].read_bytes() + b'"a1",5,1,2\n')
    prepare(open_log(paths), tmp_path / "store")
    prepare(open_log(paths), tmp_path / "whole")
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_a_damaged_spool_is_an_error_and_then_gone(tmp_path, monkeypatch):
    log = open_log(write(tmp_path, "text"))
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            prepare(log, tmp_path / "store")
    rows = tmp_path / ".store.partial" / "spool" / "rows"
    rows.write_bytes(b"\1" + rows.read_bytes()[1:])
    with pytest.raises(InputError, match="rows is damaged"):
        prepare(log, tmp_path / "store")
    prepare(log, tmp_path / "store")
    prepare(log, tmp_path / "whole")
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


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
