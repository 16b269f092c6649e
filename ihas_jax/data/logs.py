"""What a raw click log is to the rest of the package: chunks of clean text columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from ihas_jax.data.records import Complaint
from ihas_jax.data.schema import FieldKind

Fields = tuple[tuple[str, FieldKind], ...]

_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


class Position(NamedTuple):
    """A place between two rows of a log: how much lies before it.

    Attributes:
      file: Files read to their end.
      offset: Bytes (of text) or rows (of Parquet) of the next file.
      line: Lines or rows of that file.
    """

    file: int = 0
    offset: int = 0
    line: int = 0


class Coded(NamedTuple):
    """A column as codes into its own values.

    Attributes:
      codes: [n] uint8, uint16 or uint32, an index into `values` for each row.
      values: [m] text, not always distinct.
    """

    codes: np.ndarray
    values: pl.Series


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some rows of a log, in its order, those that cannot be used left out.

    Attributes:
      labels: [n] uint8, 0 or 1.
      columns: A column of clean text per field, as they are counted and looked up; and the
        column that tells the time, if the log has one, behind them.
      bad: [m], for each row that was left out, ascending, how many of the n stood before it.
      complaint: About the first of these: the file, the line and what is wrong.
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
      paths: Its files, in order.
      label: The name of its label.
      fields: The names and kinds of the columns to encode.
      time: The column that tells when a row was, for a chronological split.
    """

    paths: tuple[Path, ...]
    label: str
    fields: Fields
    time: str | None = field(default=None, kw_only=True)

    @property
    def name(self) -> str:
        """What messages call it."""
        more = len(self.paths) - 1
        return f"{self.paths[0]} and {more} more" if more else str(self.paths[0])

    @property
    def used(self) -> tuple[str, ...]:
        """The columns that are read: the label, the fields, and the time if it is neither."""
        names = (self.label, *(name for name, _ in self.fields))
        return names if self.time is None or self.time in names else (*names, self.time)

    @abstractmethod
    def chunks(self, start: Position = START) -> Iterator[Chunk]:
        """Reads the log from its start, or from where a chunk ended.

        Raises:
          InputError: A file cannot be read, is empty or damaged, or lacks a column.
        """


def field_text(name: str, kind: FieldKind) -> pl.Expr:
    """A raw column as the text that vocabularies hold; null where it cannot be understood.

    Categorical: the value as text, a null as the empty string. Integer: the rule of Criteo's
    winning entry, as in pytorch-fm. Missing (null, empty, NaN) is "NULL"; of anything else the
    integer part v counts: `int(ln(v)^2)` where v > 2, v - 2 elsewhere. No ln(v)^2 of an integer
    below 2^31 comes within 1e-11 of an integer, so every machine truncates alike.
    """
    raw = pl.col(name)
    if kind == "categorical":
        return raw.cast(pl.String).fill_null("")
    number = raw.cast(pl.Float64, strict=False)
    missing = raw.is_null() | (raw.cast(pl.String) == "") | number.is_nan()
    v = number.fill_nan(None).cast(pl.Int64, strict=False)
    squashed = (v.cast(pl.Float64).log() ** 2).cast(pl.Int64, strict=False)
    code = pl.when(v > 2).then(squashed).otherwise(v - 2).cast(pl.String)
    return pl.when(missing).then(pl.lit("NULL")).otherwise(code).alias(name)


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
    """Turns raw columns into labels and coded text, and leaves out rows that cannot be used.

    What a value means is found once for each distinct value, not for each row.

    Args:
      log: The log; the columns it uses are in `raw`.
      raw: The columns as they were read.
      places: [n], the line or row number of each row.
      share: The share of the log read so far.
      end: Where the next chunk begins.
      unit: What `places` counts: "line" or "row".
      bad: [m], the places of rows that the reader has left out already.
      complaint: About the first of these.
    """
    coded = encode_columns(raw, log.used)
    label, *columns = (coded[name] for name in (log.label, *(name for name, _ in log.fields)))
    lowered = label.values.replace_strict(_LABELS, default=None, return_dtype=pl.UInt8)
    meanings = [lowered] + [
        values.to_frame(name).select(field_text(name, kind)).to_series()
        for (name, kind), (_, values) in zip(log.fields, columns, strict=True)
    ]
    usable = np.ones(raw.height, bool)
    for (codes, _), meaning in zip((label, *columns), meanings, strict=True):
        if meaning.null_count():
            usable &= meaning.is_not_null().to_numpy()[codes]
    if not usable.all():
        wrong = np.flatnonzero(~usable)
        row = int(wrong[0])
        means = [m[int(c.codes[row])] for c, m in zip((label, *columns), meanings, strict=True)]
        first = Complaint(int(places[row]), _reason(log, raw.row(row, named=True), means))
        complaint = min(complaint, first) if complaint else first
        bad = np.concatenate([bad, places[wrong]])
        label = Coded(label.codes[usable], label.values)
        columns = [Coded(codes[usable], values) for codes, values in columns]
    where = None
    if complaint:
        where = f"{log.paths[end.file]}, {unit} {complaint.line}: {complaint.reason}"
    labels = meanings[0].fill_null(0).to_numpy()[label.codes]
    texts = [Coded(c.codes, m) for c, m in zip(columns, meanings[1:], strict=True)]
    if log.time is not None:
        codes, values = coded[log.time]
        texts.append(Coded(codes[usable], values))
    before = np.searchsorted(places[usable], np.sort(bad))
    return Chunk(labels, tuple(texts), before, where, share, end)


def encode_columns(frame: pl.DataFrame, names: Iterable[str]) -> dict[str, Coded]:
    """Columns as text, nulls as the empty string, coded by their distinct values."""
    categories = {name: pl.Categories.random() for name in names}
    coded = (
        frame.lazy()
        .select(
            pl.col(name).cast(pl.String).fill_null("").cast(pl.Categorical(own))
            for name, own in categories.items()
        )
        .collect()
    )
    columns = {}
    for name, own in categories.items():
        values = own.to_series() if frame.height else pl.Series([], dtype=pl.String)
        codes = coded[name].to_physical().to_numpy()
        columns[name] = Coded(codes.astype(np.min_scalar_type(max(len(values) - 1, 0))), values)
    return columns


def _reason(log: Log, raw: dict[str, object], means: list[object]) -> str:
    """Says what is wrong with a row: its values as read, and what they mean, one of them None."""
    if means[0] is None:
        return f"the label {log.label} is {_shown(raw[log.label])}, not 0 or 1"
    name = next(n for (n, _), mean in zip(log.fields, means[1:], strict=True) if mean is None)
    return f"{name} is {_shown(raw[name])}, not a number"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
