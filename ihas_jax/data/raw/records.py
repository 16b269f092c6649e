"""Blocks of whole, well-formed records of a plain or gzip text file of any size.

Polars fills up a short line with empty values. Here the columns of every record are counted before
it is parsed, so that a wrong line is named and never becomes a wrong row. (The CSV reader of
PyArrow can skip wrong lines, but it is another 100 MB and cannot resume at a byte offset.)
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from gzip import GzipFile
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ihas_jax.data.raw.text_files import open_text
from ihas_jax.errors import InputError

BLOCK_BYTES = 32 << 20
_LONGEST_RECORD_BYTES = 64 << 20
_NEWLINE, _RETURN, _QUOTE = (ord(c) for c in '\n\r"')


class Complaint(NamedTuple):
    """The reason why a record cannot be used, and the line at which it starts."""

    line: int
    reason: str


@dataclass(frozen=True)
class Block:
    """Some records of a file, without those that have a wrong number of columns.

    Attributes:
      text: The n well-formed records.
      lines: [n] int64, the line, from 1, at which each of them starts.
      bad: [m] int64, the line at which each skipped record starts.
      complaint: What is wrong with the first skipped record.
      share: The share of the file read so far, in (0, 1].
      end: Bytes of unpacked text up to the end of the block, and the line that begins there.
    """

    text: bytes
    lines: np.ndarray
    bad: np.ndarray
    complaint: Complaint | None
    share: float
    end: tuple[int, int]


def read_blocks(
    path: Path,
    *,
    columns: int,
    separator: str,
    quoted: bool,
    header: bool,
    start: tuple[int, int] = (0, 0),
    stop: int | None = None,
) -> Iterator[Block]:
    """Yields the records of a file in blocks of about `BLOCK_BYTES`.

    Empty lines are no records. A byte-order mark is removed; Polars removes Windows line ends.

    Args:
      path: Plain text or gzip.
      columns: The number of columns of a record.
      separator: The character between the columns.
      quoted: Whether a value in double quotes may hold separators and line ends.
      header: Whether the first line holds names and is skipped.
      start: The `end` of the block after which to resume; (0, 0) is the start of the file.
      stop: The bytes of unpacked text after which to stop, at the end of a record; None for all.

    Raises:
      InputError: The file cannot be read, is truncated, compressed by other means than gzip or not
        UTF-8, or its quotes do not match.
    """
    layout = _Layout(path, columns, ord(separator), quoted)
    with open_text(path) as (stream, share):
        offset, line = start
        if line:
            stream.seek(offset)
        else:
            if header:
                stream.readline()
            offset, line = stream.tell(), 2 if header else 1
        carry = b""
        while data := _lines(stream, stop):
            text = carry + data
            end = layout.last_end(text)
            text, carry = text[:end], text[end:]
            if text:
                after = offset + len(text), line + text.count(b"\n")
                yield layout.block(text, line, share(), after)
                offset, line = after
            if len(carry) > _LONGEST_RECORD_BYTES:
                raise InputError(
                    f"{path}, line {line}: a record of more than {_LONGEST_RECORD_BYTES >> 20} "
                    "MiB begins here; is a double quote never closed, or is this not a text file?"
                )
        if carry:
            if layout.last_end(carry + b"\n") == 0:
                raise InputError(f"{path}, line {line}: a double quote is never closed")
            yield layout.block(carry + b"\n", line, share(), (offset + len(carry), line + 1))


@dataclass(frozen=True)
class _Layout:
    """The layout of the records of one file."""

    path: Path
    columns: int
    separator: int
    quoted: bool

    def last_end(self, text: bytes) -> int:
        """The end of the last complete record of `text`, which begins with a record."""
        if not self.quoted or b'"' not in text:
            return text.rfind(b"\n") + 1
        data = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero((data == _NEWLINE) & ~_inside_quotes(data))
        return int(ends[-1]) + 1 if ends.size else 0

    def block(self, text: bytes, line: int, share: float, end: tuple[int, int]) -> Block:
        """Checks complete records, the first of which starts at `line`."""
        self._check_characters(text, line)
        data = np.frombuffer(text, np.uint8)
        newline, separator = data == _NEWLINE, data == self.separator
        newlines = np.flatnonzero(newline)
        ends = newlines
        if self.quoted and b'"' in text:
            inside = _inside_quotes(data)
            self._check_quotes(data, line)
            separator &= ~inside
            ends = np.flatnonzero(newline & ~inside)
        starts = np.concatenate(([0], ends[:-1] + 1))
        lines = line + np.searchsorted(newlines, starts)
        found = _sums(separator, starts) + 1
        lengths = ends + 1 - starts
        empty = (lengths == 1) | ((lengths == 2) & (data[starts] == _RETURN))
        good = (found == self.columns) & ~empty
        if good.all():
            return Block(text, lines, lines[:0], None, share, end)
        wrong = np.flatnonzero(~good & ~empty)
        complaint = None
        if wrong.size:
            reason = f"has {found[wrong[0]]} columns, not {self.columns}"
            complaint = Complaint(int(lines[wrong[0]]), reason)
        kept = data[np.repeat(good, lengths)].tobytes()
        return Block(kept, lines[good], lines[wrong], complaint, share, end)

    def _check_characters(self, text: bytes, line: int) -> None:
        if text.isascii():
            return
        try:
            text.decode()
        except UnicodeDecodeError as error:
            line += text.count(b"\n", 0, error.start)
            raise InputError(
                f"{self.path}, line {line}: not UTF-8 text; convert the file, such as by "
                f"iconv -f LATIN1 -t UTF-8 {shlex.quote(str(self.path))}"
            ) from None

    def _check_quotes(self, data: np.ndarray, line: int) -> None:
        """Checks that quotes enclose values or are doubled; otherwise columns can't be counted."""
        quotes = np.flatnonzero(data == _QUOTE)
        opening, closing = quotes[::2], quotes[1::2]
        before = np.where(opening > 0, data[opening - 1], _NEWLINE)
        around = (self.separator, _NEWLINE, _RETURN, _QUOTE)
        wrong = ~np.isin(before, around) | ~np.isin(data[closing + 1], around)
        if wrong.any():
            line += int((data[: opening[wrong][0]] == _NEWLINE).sum())
            raise InputError(
                f"{self.path}, line {line}: a double quote in the middle of a value; "
                "put the whole value in quotes and double the quotes inside it"
            )


def _lines(stream: GzipFile | BufferedReader, stop: int | None) -> bytes:
    """About `BLOCK_BYTES` that end with a line, so that they need not be copied to be cut."""
    left = BLOCK_BYTES if stop is None else min(BLOCK_BYTES, stop - stream.tell())
    data = stream.read(left)
    if stop is None or stream.tell() < stop:
        data += stream.readline(_LONGEST_RECORD_BYTES)
    return data


def _sums(marks: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The number of `marks` [n] bool that are set from each of `starts` to the next."""
    # sums in bytes are ten times as fast; none has overflowed if the total is right
    found = np.add.reduceat(marks.view(np.uint8), starts, dtype=np.uint8).astype(np.int32)
    if found.sum() == np.count_nonzero(marks):
        return found
    return np.add.reduceat(marks, starts, dtype=np.int32)


def _inside_quotes(data: np.ndarray) -> np.ndarray:
    """Whether each byte comes after an odd number of quotes, [n] bool."""
    return np.logical_xor.accumulate(data == _QUOTE)
