"""The interface of raw click logs: chunks of clean text columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from ihas_jax.data.raw.canonical import as_text, read_times, spell
from ihas_jax.data.raw.records import Complaint
from ihas_jax.data.schema import Rule, Schema

Fields = tuple[tuple[str, Rule], ...]

_LABELS = {"false": 0, "true": 1}


class Position(NamedTuple):
    """A place between two rows of a log.

    Attributes:
      file: Number of files before the place.
      offset: Bytes (of text) or rows (of Parquet) of the next file that lie before the place.
      line: Lines or rows of that file that lie before the place.
    """

    file: int = 0
    offset: int = 0
    line: int = 0


class Coded(NamedTuple):
    """A column as codes and the values that they stand for.

    Attributes:
      codes: [n] uint8, uint16 or uint32, an index into `values` for each row.
      values: [m] text; a value may occur twice.
    """

    codes: np.ndarray
    values: pl.Series


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some usable rows of a log, in its order.

    Attributes:
      labels: [n] uint8, 0 or 1.
      columns: A column of text per field; after them the column of the time, if the log has one.
        Numeric fields are spelled; other fields are not, since only the whole log shows their kind.
      bad: [m], for each skipped row the number of usable rows of the chunk before it, ascending.
      complaint: What is wrong with the first skipped row, with its file and line.
      share: The share of the log read so far, in (0, 1].
      end: Where the next chunk begins.
    """

    labels: np.ndarray
    columns: tuple[Coded, ...]
    bad: np.ndarray
    complaint: str | None
    share: float
    end: Position


START = Position()
_NOWHERE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Log(ABC):
    """A raw log.

    Attributes:
      paths: The files, in order.
      label: The name of the label.
      fields: The columns to encode, and the rules by which their values become categories.
      time: The column with the time of a row, for a chronological split.
      time_format: The format of times, in the letters of strftime; None for numbers and ISO 8601.
      missing: Words that mean a missing value of a field, in addition to the empty text.
    """

    paths: tuple[Path, ...]
    label: str
    fields: Fields
    time: str | None = field(default=None, kw_only=True)
    time_format: str | None = field(default=None, kw_only=True)
    missing: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def name(self) -> str:
        """The name of the log in messages."""
        more = len(self.paths) - 1
        return f"{self.paths[0]} and {more} more" if more else str(self.paths[0])

    @property
    def used(self) -> tuple[str, ...]:
        """The columns to read: the label, the fields, and the time unless it is one of them."""
        names = (self.label, *(name for name, _ in self.fields))
        return names if self.time is None or self.time in names else (*names, self.time)

    def check(self, schema: Schema) -> None:
        """Checks that the types of the columns can hold the fields of a schema; text always can.

        Raises:
          InputError: The type of a column cannot, such as numbers for values with leading zeros.
        """
        return

    @abstractmethod
    def chunks(self, start: Position = START) -> Iterator[Chunk]:
        """Reads the log from its start, or from the end of a chunk.

        Raises:
          InputError: A file cannot be read, is empty or damaged, or lacks a column.
        """


def screen(
    log: Log,
    raw: pl.DataFrame,
    places: np.ndarray,
    share: float,
    end: Position,
    *,
    unit: str = "line",
    bad: np.ndarray = _NOWHERE,
    complaint: Complaint | None = None,
) -> Chunk:
    """Turns raw columns into labels and coded text, and skips rows that cannot be used.

    Each distinct value is interpreted once.

    Args:
      log: The log.
      raw: The columns that the log uses, as they were read.
      places: [n], the line or row number of each row.
      share: The share of the log read so far.
      end: Where the next chunk begins.
      unit: What `places` counts: "line" or "row".
      bad: [m], the places of rows that the reader has skipped already.
      complaint: What is wrong with the first of these rows.
    """
    coded = encode_columns(raw, log.used)
    columns = [coded[name] for name in log.used]
    meanings = [_meaning(log, name, coded[name].values) for name in log.used]
    usable = np.ones(raw.height, bool)
    for (codes, _), meaning in zip(columns, meanings, strict=True):
        if meaning.null_count():
            usable &= meaning.is_not_null().to_numpy()[codes]
    if not usable.all():
        wrong = np.flatnonzero(~usable)
        row = int(wrong[0])
        means = [m[int(c.codes[row])] for c, m in zip(columns, meanings, strict=True)]
        first = Complaint(int(places[row]), _reason(log, raw.row(row, named=True), means))
        complaint = min(complaint, first) if complaint else first
        bad = np.concatenate([bad, places[wrong]])
        columns = [Coded(codes[usable], values) for codes, values in columns]
    where = None
    if complaint:
        where = f"{log.paths[end.file]}, {unit} {complaint.line}: {complaint.reason}"
    labels = meanings[0].fill_null(0).to_numpy()[columns[0].codes]
    clean = dict(zip(log.used, columns, strict=True))
    spelled = dict(zip(log.used, meanings, strict=True))
    texts = [
        Coded(clean[name].codes, spelled[name]) if rule == "numeric" else clean[name]
        for name, rule in log.fields
    ]
    if log.time is not None:
        texts.append(clean[log.time])
    before = np.searchsorted(places[usable], np.sort(bad))
    return Chunk(labels, tuple(texts), before, where, share, end)


def _meaning(log: Log, name: str, values: pl.Series) -> pl.Series:
    """The meaning of the values of a column, null if they can't be used; 0 or 1 for the label."""
    if name == log.label:
        truths = spell(values, "boolean")
        return truths.replace_strict(_LABELS, default=None, return_dtype=pl.UInt8)
    usable, nothing = values, pl.Series([None], dtype=pl.String)
    if dict(log.fields).get(name, "category") != "category":
        usable = spell(values, "numeric", missing=log.missing)
    if name == log.time:
        counted, times = read_times(values, log.time_format)
        usable = usable.zip_with(counted.is_not_null() | times.is_not_null(), nothing)
    return usable


def encode_columns(frame: pl.DataFrame, names: Sequence[str]) -> dict[str, Coded]:
    """Turns columns into text (null into the empty text), coded by their distinct values.

    Raises:
      InputError: The values of a column are no categories.
    """
    # columns by their places: names such as "*" and "^a$" are patterns in Polars
    texts = {str(place): as_text(frame[name]) for place, name in enumerate(names)}
    categories = {place: pl.Categories.random() for place in texts}
    coded = (
        pl.LazyFrame(texts)
        .select(
            pl.col(place).fill_null("").cast(pl.Categorical(own))
            for place, own in categories.items()
        )
        .collect()
    )
    columns = {}
    for name, (place, own) in zip(names, categories.items(), strict=True):
        values = own.to_series() if frame.height else pl.Series([], dtype=pl.String)
        codes = coded[place].to_physical().to_numpy()
        columns[name] = Coded(codes.astype(np.min_scalar_type(max(len(values) - 1, 0))), values)
    return columns


def _reason(log: Log, raw: dict[str, object], means: list[object]) -> str:
    """Says what is wrong with a row, given its raw values and their meanings, one of them None."""
    if means[0] is None:
        return f"the label {log.label} is {_shown(raw[log.label])}, not 0 or 1"
    name = next(n for n, mean in zip(log.used, means, strict=True) if mean is None)
    numbers, times = read_times(as_text(pl.Series([raw[name]])), log.time_format)
    if name == log.time and numbers[0] is None and times[0] is None:
        expected = "a number or a time such as 2014-10-21 23:00 (--time-format is for other times)"
        if log.time_format:
            expected = f"a time written as {log.time_format}"
        return f"{name} is {_shown(raw[name])}, not {expected}"
    return f"{name} is {_shown(raw[name])}, not a number"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
