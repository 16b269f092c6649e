"""A log between its two passes: every chunk is on disk, each column as codes and values.

    job.json       the job of the spool
    chunks.jsonl   a line for each complete chunk: rows, the end of each file, checksums
    rows           labels and codes of all chunks
    values.{f}     the distinct values of column f, chunk by chunk, with their counts

A killed process leaves complete chunks, and perhaps a part of one more, which is cut off when the
spool is opened again.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl

from ihas_jax.data.raw.logs import START, Chunk, Coded, Position
from ihas_jax.errors import InputError


class Read(NamedTuple):
    """How far a log has been read.

    Attributes:
      rows: Usable rows, of which `kept` are in the spool.
      kept: Rows in the spool.
      bad: Rows that could not be used and were skipped.
      complaint: What is wrong with the first of these rows.
      position: Where the next chunk begins.
      share: The share of the log read so far.
    """

    rows: int = 0
    kept: int = 0
    bad: int = 0
    complaint: str | None = None
    position: Position = START
    share: float = 0.0


class Spool:
    """Appends chunks to the files of a folder, and reads them again."""

    def __init__(self, folder: Path, job: Mapping[str, Any], columns: int) -> None:
        """Opens the spool of a job in `folder`; the spool of another job there is deleted."""
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._names = ("rows", *(f"values.{f}" for f in range(columns)))
        self._chunks: list[dict[str, Any]] = []
        self.read = Read()
        about = json.dumps(job, sort_keys=True)
        if _text(folder / "job.json") == about:
            self._resume()
        else:
            remove_spool(folder)
            folder.mkdir()
            (folder / "job.json").write_text(about, encoding="utf-8")
        self._files = {name: (folder / name).open("ab") for name in self._names}
        self._index = (folder / "chunks.jsonl").open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._files.values(), self._index):
            file.close()

    def append(self, chunk: Chunk, read: Read) -> None:
        """Adds the rows of a chunk; `read` says how far the log has been read after it."""
        codes = [chunk.labels, *(c.codes for c in chunk.columns)]
        parts = [b"".join(np.ascontiguousarray(c).tobytes() for c in codes)]
        for column in chunk.columns:
            counts = np.bincount(column.codes, minlength=len(column.values))
            frame = pl.DataFrame({"value": column.values, "count": counts})
            buffer = io.BytesIO()
            frame.write_ipc_stream(buffer, compression="lz4")
            parts.append(buffer.getvalue())
        for name, part in zip(self._names, parts, strict=True):
            self._files[name].write(part)
            self._files[name].flush()
        entry = {
            "rows": len(chunk.labels),
            "types": [c.codes.dtype.str for c in chunk.columns],
            "bytes": [c.values.estimated_size() for c in chunk.columns],
            "ends": [self._files[name].tell() for name in self._names],
            "sums": [zlib.crc32(part) for part in parts],
            "read": read,
        }
        self._index.write(json.dumps(entry) + "\n")
        self._index.flush()
        self._chunks.append(entry)
        self.read = read

    def size(self, number: int) -> int:
        """The memory that all values of a column take, in bytes."""
        return sum(entry["bytes"][number] for entry in self._chunks)

    def files(self) -> set[int]:
        """The numbers of the files of the log that have chunks."""
        return {Position(*entry["read"][4]).file for entry in self._chunks}

    def counts(self, column: int) -> Iterator[pl.DataFrame]:
        """The `value` and `count` of a column's distinct values, chunk by chunk."""
        for number in range(len(self._chunks)):
            yield pl.read_ipc_stream(io.BytesIO(self._part(number, 1 + column)))

    def column(self, number: int) -> Iterator[Coded]:
        """One column, chunk by chunk."""
        for (_, codes), frame in zip(self._rows(), self.counts(number), strict=True):
            yield Coded(codes[number], frame["value"])

    def chunks(self) -> Iterator[tuple[np.ndarray, list[Coded]]]:
        """Labels and columns of each chunk, in order."""
        values = zip(*(self.counts(number) for number in range(len(self._names) - 1)), strict=True)
        for (labels, codes), frames in zip(self._rows(), values, strict=True):
            parts = zip(codes, frames, strict=True)
            yield labels, [Coded(code, frame["value"]) for code, frame in parts]

    def _rows(self) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Labels and codes of each chunk."""
        for number, entry in enumerate(self._chunks):
            data, rows = self._part(number, 0), entry["rows"]
            labels, place = np.frombuffer(data, np.uint8, rows), rows
            codes = []
            for dtype in entry["types"]:
                codes.append(np.frombuffer(data, dtype, rows, place))
                place += codes[-1].nbytes
            yield labels, codes

    def _part(self, number: int, file: int) -> bytes:
        start = self._chunks[number - 1]["ends"][file] if number else 0
        with (self._folder / self._names[file]).open("rb") as stream:
            stream.seek(start)
            data = stream.read(self._chunks[number]["ends"][file] - start)
        if zlib.crc32(data) != self._chunks[number]["sums"][file]:
            raise InputError(
                f"{self._folder / self._names[file]} is damaged; run the same command again, which "
                "will start from the beginning"
            )
        return data

    def _resume(self) -> None:
        """Reads the list of complete chunks, and cuts off what comes after them."""
        index = self._folder / "chunks.jsonl"
        whole = 0
        for line in (_text(index) or "").splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            self._chunks.append(json.loads(line))
            whole += len(line.encode())
        if self._chunks:
            rows, kept, bad, complaint, position, share = self._chunks[-1]["read"]
            self.read = Read(rows, kept, bad, complaint, Position(*position), share)
        ends = self._chunks[-1]["ends"] if self._chunks else [0] * len(self._names)
        for name, end in zip(("chunks.jsonl", *self._names), (whole, *ends), strict=True):
            with (self._folder / name).open("ab") as file:
                if file.tell() < end:
                    raise InputError(
                        f"{self._folder / name} is damaged; run the same command again, which "
                        "will start from the beginning"
                    )
                os.truncate(file.fileno(), end)


def remove_spool(folder: Path) -> None:
    """Deletes the files of a spool, and refuses to delete any other file.

    Raises:
      InputError: The folder holds something else.
    """
    files = list(folder.iterdir()) if folder.exists() else []
    for file in files:
        if file.name not in ("job.json", "chunks.jsonl", "rows") and file.stem != "values":
            raise InputError(f"{folder} holds {file.name}, which no spool has; move it away")
    # job.json first: if the process is killed here, the files that are left belong to no job
    for file in sorted(files, key=lambda file: file.name != "job.json"):
        file.unlink()
    if folder.exists():
        folder.rmdir()


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None
