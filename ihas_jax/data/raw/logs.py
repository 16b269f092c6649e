"""The interface of raw click logs: chunks of clean text columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from ihas_jax.data.raw.canonical import read_times, spell
from ihas_jax.data.raw.records import Complaint
from ihas_jax.data.raw.texts import as_text
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


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a log as they were read, in its order.

    Attributes:
      frame: The columns that were asked for, of n rows.
      places: [n], the line or row number of each row.
      bad: [m], the places of rows that were skipped, since they have no columns.
      complaint: What is wrong with the first of these rows.
      share: The share of the log read so far, in (0, 1].
      end: Where the next rows begin.
      file: The name of the file in messages.
      unit: What `places` counts: "line" or "row".
    """

    frame: pl.DataFrame
    places: np.ndarray
    bad: np.ndarray
    complaint: Complaint | None
    share: float
    end: Position
    file: str
    unit: str = "line"


@dataclass(frozen=True, eq=False)
class Usable:
    """The rows among some `Rows` that can be used.

    Attributes:
      rows: [n] bool, which of the rows they are.
      columns: The columns of the usable rows, by name, coded by their distinct values.
      meanings: The meaning of each of these values, by column; 0 or 1 for the label.
      bad: [m], for each other row the number of usable rows before it, ascending.
      complaint: What is wrong with the first other row, with its file and line.
    """

    rows: np.ndarray
    columns: Mapping[str, Coded]
    meanings: Mapping[str, pl.Series]
    bad: np.ndarray
    complaint: str | None

    def labels(self, name: str) -> np.ndarray:
        """The labels [n] uint8 of the usable rows."""
        return self.meanings[name].fill_null(0).to_numpy()[self.columns[name].codes]

    def texts(self, fields: Fields) -> tuple[Coded, ...]:
        """The columns of fields as text; numeric fields are spelled."""
        return tuple(
            Coded(self.columns[name].codes, self.meanings[name])
            if rule == "numeric"
            else self.columns[name]
            for name, rule in fields
        )


START = Position()


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

    def chunks(self, start: Position = START, stop: Position | None = None) -> Iterator[Chunk]:
        """Reads the log from its start, or from the end of a chunk.

        Args:
          start: The place before the first row.
          stop: The place after the last row, between two records; None for the end of the log.

        Raises:
          InputError: A file cannot be read, is empty or damaged, or lacks a column.
        """
        for rows in self.read(self.used, start, stop):
            found = screen(self, rows, self.used)
            texts = found.texts(self.fields)
            if self.time is not None:
                texts = (*texts, found.columns[self.time])
            labels = found.labels(self.label)
            yield Chunk(labels, texts, found.bad, found.complaint, rows.share, rows.end)

    @abstractmethod
    def read(
        self, names: Sequence[str], start: Position = START, stop: Position | None = None
    ) -> Iterator[Rows]:
        """Reads some columns as they are, between two places as `chunks`.

        Raises:
          InputError: As `chunks`.
        """


def screen(log: Log, rows: Rows, names: Sequence[str]) -> Usable:
    """Interprets columns of a log, each distinct value once, and finds the rows that can be used.

    Args:
      log: The log.
      rows: Rows as they were read.
      names: The columns to interpret.
    """
    columns = encode_columns(rows.frame, names)
    meanings = {name: _meaning(log, name, columns[name].values) for name in names}
    usable = np.ones(rows.frame.height, bool)
    for name, meaning in meanings.items():
        if meaning.null_count():
            usable &= meaning.is_not_null().to_numpy()[columns[name].codes]
    bad, complaint = rows.bad, rows.complaint
    if not usable.all():
        wrong = np.flatnonzero(~usable)
        row = int(wrong[0])
        name = next(n for n in names if meanings[n][int(columns[n].codes[row])] is None)
        first = Complaint(int(rows.places[row]), _reason(log, name, rows.frame[name][row]))
        complaint = min(complaint, first) if complaint else first
        bad = np.concatenate([bad, rows.places[wrong]])
        columns = {name: Coded(codes[usable], values) for name, (codes, values) in columns.items()}
    where = None
    if complaint:
        where = f"{rows.file}, {rows.unit} {complaint.line}: {complaint.reason}"
    before = np.searchsorted(rows.places[usable], np.sort(bad))
    return Usable(usable, columns, meanings, before, where)


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


def _reason(log: Log, name: str, value: object) -> str:
    """Says what is wrong with a value that has no meaning in its column."""
    if name == log.label:
        return f"the label {log.label} is {_shown(value)}, not 0 or 1"
    numbers, times = read_times(as_text(pl.Series([value])), log.time_format)
    if name == log.time and numbers[0] is None and times[0] is None:
        expected = "a number or a time such as 2014-10-21 23:00 (--time-format is for other times)"
        if log.time_format:
            expected = f"a time written as {log.time_format}"
        return f"{name} is {_shown(value)}, not {expected}"
    return f"{name} is {_shown(value)}, not a number"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
