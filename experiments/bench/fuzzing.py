"""Random raw logs and rows of known values, damaged logs, and the required outcomes.

Two rows must get one id exactly where their values are equal, and the id must decode to the
value's spelling.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.values import (
    TEXTS,
    Column,
    as_container,
    as_words,
    expected,
    random_column,
    reference_spelling,
)
from ihas_jax.data.open import open_store
from ihas_jax.data.raw import formats
from ihas_jax.data.raw.encoder import encode
from ihas_jax.data.raw.frames import read_column
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.schema import Schema
from ihas_jax.errors import InputError

_PIECES = (b'"', b",", b"\n", b"\r\n", b"\x00", b"\xff", b"\xc3\xa9", b"0")


def random_log(
    rng: random.Random, rows: int, columns: Sequence[Column], path: Path
) -> dict[str, Any]:
    """Writes columns and a label as CSV or Parquet; returns the flags to read it with."""
    labels = [rng.random() < 0.5 for _ in range(rows)]
    names = [f"c{i}" for i in range(len(columns))]
    if rng.random() < 0.4:
        frame = {}
        for name, column in zip(names, columns, strict=True):
            made = read_column(name, as_container(rng, column))
            frame[name] = pl.Series(name, as_words(rng, column)) if made.dtype.is_object() else made
        pl.DataFrame(frame).with_columns(y=pl.Series(labels)).write_parquet(path)
        return {"separator": ","}
    separator = rng.choice((",", ";", "|"))
    truth = rng.choice((("0", "1"), ("False", "True"), ("0.0", "1.000"), ("FALSE", "TRUE")))
    text = {n: as_words(rng, column) for n, column in zip(names, columns, strict=True)}
    content = (
        pl.DataFrame(text | {"y": [truth[label] for label in labels]})
        .write_csv(
            separator=separator, quote_style=rng.choice(("necessary", "always", "non_numeric"))
        )
        .encode()
    )
    content = rng.choice((b"", b"\xef\xbb\xbf")) + content
    path.write_bytes(gzip.compress(content) if rng.random() < 0.2 else content)
    return {"separator": separator}


def check_ids(
    columns: Sequence[Column], ids: np.ndarray, schema: Schema, seen: Sequence[Column] | None = None
) -> str:
    """What is wrong with the ids [n, N] of known values, or nothing.

    Args:
      columns: The values.
      ids: Their ids.
      schema: Of a log that kept every value.
      seen: The values of the log that the schema was counted on; None for `columns`.
    """
    for number, (column, field) in enumerate(zip(columns, schema.fields, strict=True)):
        known = set(column.values if seen is None else seen[number].values)
        for value, place in zip(column.values, ids[:, number].tolist(), strict=True):
            spelled = field.values[place] if place < len(field.values) else None
            if spelled != (expected(value, column.idea, field.kind) if value in known else None):
                return f"{field.name} ({column.idea}, {field.kind}): {value!r} became {spelled!r}"
    return ""


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes with a few changed, removed, doubled or put in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(data)) if data else 0
        kind = rng.randrange(5)
        if kind == 0 and data:
            data[place] = rng.randrange(256)
        elif kind == 1 and data:
            del data[place : place + rng.randint(1, 9)]
        elif kind == 2:
            data[place:place] = bytes(data[place : place + rng.randint(1, 30)])
        elif kind == 3:
            data[place:place] = rng.choice(_PIECES)
        else:
            del data[place:]
    return bytes(data)


@dataclass(frozen=True)
class Verdict:
    """The outcome of a case in a word, and what is wrong with it, if anything."""

    outcome: str
    fault: str = ""


def fuzz_log(rng: random.Random, folder: Path) -> Verdict:
    """A log of known values becomes a store in which every row decodes to its values."""
    rows = rng.randint(10, 40)
    columns = [random_column(rng, rows) for _ in range(rng.randint(1, 4))]
    made = _prepared(rng, folder, "log", rows, columns)
    if isinstance(made, Verdict):
        return made
    return Verdict("store", check_ids(columns, *made))


def fuzz_next_day(rng: random.Random, folder: Path) -> Verdict:
    """Another log, written in other ways, gets the ids of the first one's values."""
    rows = rng.randint(10, 40)
    columns = [random_column(rng, rows) for _ in range(rng.randint(1, 4))]
    first = _prepared(rng, folder, "first", rows, columns)
    if isinstance(first, Verdict):
        return first
    order = rng.sample(range(rows), rows)
    again = [Column(c.idea, [c.values[i] for i in order]) for c in columns]
    second = _prepared(rng, folder, "second", rows, again, first[1])
    if isinstance(second, Verdict):
        return second
    return Verdict("store", check_ids(again, second[0], first[1], columns))


def fuzz_rows(rng: random.Random, folder: Path) -> Verdict:
    """Rows in memory, in any container, get the ids of the log's values."""
    rows = rng.randint(10, 40)
    columns = [random_column(rng, rows) for _ in range(rng.randint(1, 4))]
    made = _prepared(rng, folder, "log", rows, columns)
    if isinstance(made, Verdict):
        return made
    schema = made[1]
    frame = {f"c{i}": as_container(rng, column) for i, column in enumerate(columns)}
    if rng.random() < 0.3:
        lists = {name: list(values) for name, values in frame.items()}
        frame = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]  # type: ignore[assignment]
    try:
        ids = encode(schema, frame)
    except InputError as error:
        return Verdict("refused", f"rows of the log are refused: {error}")
    return Verdict("ids", check_ids(columns, ids, schema))


def fuzz_bytes(rng: random.Random, folder: Path) -> Verdict:
    """A damaged file is refused with one error, or read as Python's own reader reads it."""
    rows = rng.randint(10, 30)
    frame = pl.DataFrame(
        {
            "c": [rng.choice((*TEXTS, "")) for _ in range(rows)],
            "n": [rng.choice(("3", "17", "", "0.5", "-2", "1e3")) for _ in range(rows)],
            "y": [rng.choice("01") for _ in range(rows)],
        }
    )
    path = folder / "log.csv"
    content = frame.write_csv(quote_style=rng.choice(("necessary", "always"))).encode()
    zipped = rng.random() < 0.15
    content = damaged(rng, gzip.compress(content) if zipped else content)
    path.write_bytes(content)
    try:
        log = formats.table(path, label="y", categorical=["c"], numeric=["n"])
        prepare(log, folder / "store", min_count=1, split="test")
    except InputError as error:
        return _refused(folder, error)
    data = open_store(folder / "store")
    wanted = _by_python(gzip.decompress(content) if zipped else content)
    found = [
        [int(label), *(f.values[i] for f, i in zip(data.schema.fields, ids, strict=True))]
        for ids, label in zip(data.test.ids.tolist(), data.test.labels, strict=True)
    ]
    kinds = [field.kind for field in data.schema.fields]
    spelled = [
        [
            int(float(y)) if y[:1].isdigit() else int(y.lower() == "true"),
            *(reference_spelling(text, kind) for text, kind in zip((c, n), kinds, strict=True)),
        ]
        for c, n, y in wanted
    ]
    return Verdict("store", "" if found == spelled else f"{content!r} became {found}")


FUZZES = {
    "raw log of known values": fuzz_log,
    "the next day's log under --schema": fuzz_next_day,
    "rows at prediction": fuzz_rows,
    "damaged raw log": fuzz_bytes,
}


def _by_python(content: bytes) -> list[list[str]]:
    """The rows of a CSV as Python's reader sees them, its header and empty lines left out."""
    text = content.decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    return [row for row in rows[1:] if row]


def _prepared(
    rng: random.Random,
    folder: Path,
    name: str,
    rows: int,
    columns: Sequence[Column],
    schema: Schema | None = None,
) -> tuple[np.ndarray, Schema] | Verdict:
    """The ids and the schema of a log of known values; a refusal is a fault."""
    path = folder / name
    flags = random_log(rng, rows, columns, path)
    try:
        log = formats.table(
            path, label="y", categorical=[f"c{i}" for i in range(len(columns))], **flags
        )
        prepare(log, folder / f"{name}.store", min_count=1, split="test", schema=schema)
    except InputError as error:
        return Verdict("refused", f"a good log is refused: {error}")
    data = open_store(folder / f"{name}.store")
    return np.asarray(data.test.ids), data.schema


def _refused(folder: Path, error: InputError) -> Verdict:
    """A refusal names the file and leaves no store."""
    left = {str(path.relative_to(folder)) for path in (*folder.iterdir(), *folder.glob(".*/*"))}
    left -= {"log.csv", ".store.partial", ".store.partial/spool"}
    fault = f"{left} were left" if left else ""
    if "log.csv" not in str(error) or "\n" in str(error):
        fault = f"not one clear error: {error}"
    return Verdict("refused", fault)
