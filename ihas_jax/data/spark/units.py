"""Cuts a raw log into units between two of its rows, each of which one process reads.

A plain text file may be cut anywhere between two records. Whether a line end lies inside quotes
depends on all quotes before it, so ranges of bytes are scanned first, independently of each other,
for both cases; the sums of the quotes before a range then tell which of them holds.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ihas_jax.data.raw.formats import ParquetLog, TextLog
from ihas_jax.data.raw.formats.parquet import count_rows
from ihas_jax.data.raw.logs import START, Chunk, Log, Position
from ihas_jax.data.raw.text_files import open_text

_BLOCK_BYTES = 8 << 20
_NEWLINE, _QUOTE = ord("\n"), ord('"')


class Unit(NamedTuple):
    """The rows of a log between two places.

    Attributes:
      number: The place of the unit among all units.
      start: Where the rows begin.
      stop: Where they end; None at the end of the log.
      place: Where they begin, for messages.
    """

    number: int
    start: Position
    stop: Position | None
    place: str

    def chunks(self, log: Log) -> Iterator[Chunk]:
        """Reads the rows; only the files that they are in are opened."""
        first, stop = self.start.file, self.stop
        own = log.paths[first : None if stop is None else stop.file + 1]
        stop = stop and stop._replace(file=stop.file - first)
        for chunk in replace(log, paths=own).chunks(self.start._replace(file=0), stop):
            yield replace(chunk, end=chunk.end._replace(file=chunk.end.file + first))


class Range(NamedTuple):
    """The bytes of a text file from `first` to `stop`."""

    path: Path
    first: int
    stop: int
    quoted: bool


class Scan(NamedTuple):
    """What a range of bytes holds.

    Attributes:
      lines: The number of line ends.
      quotes: The number of double quotes; 0 in a file without quoted values.
      starts: The offset after the first line end outside quotes, and the lines before it, if the
        range begins outside quotes, and if it begins inside; None where there is no such line end.
    """

    lines: int
    quotes: int
    starts: tuple[tuple[int, int] | None, tuple[int, int] | None]


Scanner = Callable[[Sequence[Range]], Sequence[Scan]]
"""Returns `scan_range` of each range."""


def cut_log(log: Log, unit_bytes: int, scan: Scanner) -> list[Unit]:
    """Cuts a log into units of about `unit_bytes` of its files.

    A compressed file is one unit, and so is a log of another format than text or Parquet.

    Raises:
      InputError: A file cannot be read.
    """
    sizes = [path.stat().st_size for path in log.paths]
    before = np.concatenate([[0], np.cumsum(sizes)])
    cuts = [(int(before[file]), Position(file)) for file in range(1, len(sizes))]
    if isinstance(log, TextLog):
        cuts += [(int(before[cut.file]) + cut.offset, cut) for cut in _lines(log, unit_bytes, scan)]
    elif isinstance(log, ParquetLog):
        for file, path in enumerate(log.paths):
            rows = count_rows(path)
            step = max(rows * unit_bytes // max(sizes[file], 1), 1)
            cuts += [
                (int(before[file]) + sizes[file] * row // rows, Position(file, row, row))
                for row in range(step, rows, step)
            ]
    places, last = [START], 0
    for done, cut in sorted(cuts):
        if done - last >= unit_bytes // 2 and done < before[-1]:
            places.append(cut)
            last = done
    word = "row" if isinstance(log, ParquetLog) else "line"
    return [
        Unit(n, start, stop, f"{log.paths[start.file]} from {word} {max(start.line, 1)} on")
        for n, (start, stop) in enumerate(zip(places, (*places[1:], None), strict=True))
    ]


def scan_range(part: Range) -> Scan:
    """Counts line ends and quotes in a range of bytes."""
    lines = quotes = 0
    starts: list[tuple[int, int] | None] = [None, None]
    with part.path.open("rb") as file:
        file.seek(part.first)
        while (place := file.tell()) < part.stop:
            data = np.frombuffer(file.read(min(_BLOCK_BYTES, part.stop - place)), np.uint8)
            if not len(data):
                break
            newline, quote = data == _NEWLINE, data == _QUOTE
            odd = np.zeros(len(data), bool)
            if part.quoted:
                odd = np.logical_xor.accumulate(quote) ^ bool(quotes % 2)
                quotes += int(np.count_nonzero(quote))
            for inside, ends in enumerate((newline & ~odd, newline & odd)):
                if starts[inside] is None and ends.any():
                    end = int(ends.argmax())
                    before = lines + int(np.count_nonzero(newline[: end + 1]))
                    starts[inside] = place + end + 1, before
            lines += int(np.count_nonzero(newline))
    return Scan(lines, quotes, (starts[0], starts[1]))


def _lines(log: TextLog, unit_bytes: int, scan: Scanner) -> list[Position]:
    """The places between records at which the plain files of a log may be cut."""
    ranges: list[tuple[int, int, Range]] = []
    for file, path in enumerate(log.paths):
        size = path.stat().st_size
        if size <= unit_bytes:
            continue
        with open_text(path) as (stream, _):
            if isinstance(stream, gzip.GzipFile):
                continue
            if log.quoted:
                stream.readline()
            begin, line = stream.tell(), 2 if log.quoted else 1
        for first in range(begin, size, unit_bytes):
            part = Range(path, first, min(first + unit_bytes, size), log.quoted)
            ranges.append((file, line, part))
    cuts = []
    last, inside, line = -1, 0, 0
    scans = scan([part for _, _, part in ranges])
    for (file, begin_line, _), found in zip(ranges, scans, strict=True):
        if file != last:
            last, inside, line = file, 0, begin_line
        elif start := found.starts[inside]:
            cuts.append(Position(file, start[0], line + start[1]))
        inside ^= found.quotes % 2
        line += found.lines
    return cuts
