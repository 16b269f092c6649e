"""A log of lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
import polars.selectors as cs

from ihas_jax.data.raw.logs import START, Log, Position, Rows
from ihas_jax.data.raw.parts import all_empty, folder_values
from ihas_jax.data.raw.prefetch import prefetch
from ihas_jax.data.raw.records import Block, read_blocks
from ihas_jax.data.raw.text_files import read_header, require_file
from ihas_jax.errors import InputError


@dataclass(frozen=True)
class TextLog(Log):
    """A log of lines; `columns` are the names of all columns of a line.

    Lines have them in this order, or, in a quoted file, in the order of its header.
    """

    columns: tuple[str, ...]
    separator: str
    quoted: bool

    def read(
        self, names: Sequence[str], start: Position = START, stop: Position | None = None
    ) -> Iterator[Rows]:
        """Reads the log, see `Log.read`; a quoted file begins with a header."""
        for path in self.paths:
            require_file(path)
        sizes = [path.stat().st_size for path in self.paths]
        if not any(sizes):
            raise all_empty(self.paths)
        stop = stop or Position(len(self.paths))
        for file in range(start.file, min(stop.file + 1, len(self.paths))):
            if file == stop.file and not stop.offset:
                break
            path = self.paths[file]
            columns = read_header(path, self.separator) if self.quoted else self.columns
            blocks = read_blocks(
                path,
                columns=len(columns),
                separator=self.separator,
                quoted=self.quoted,
                header=self.quoted,
                start=start[1:] if file == start.file else START[1:],
                stop=stop.offset if file == stop.file else None,
            )
            parse = partial(self._parse, path, columns, names)
            parsed = ((block, parse(block)) for block in blocks)
            for block, frame in prefetch(parsed):
                if not (block.lines.size or block.bad.size):
                    continue
                share = (sum(sizes[:file]) + block.share * sizes[file]) / sum(sizes)
                end = Position(file, *block.end)
                yield Rows(frame, block.lines, block.bad, block.complaint, share, end, str(path))

    def _parse(
        self, path: Path, columns: Sequence[str], names: Sequence[str], block: Block
    ) -> pl.DataFrame:
        """Some columns of a block, including the columns that its folders name."""
        read = {f"column_{i}": name for i, name in enumerate(columns, 1) if name in names}
        read = read or {"column_1": columns[0]}
        places = {f"column_{i}": pl.String for i in range(1, len(columns) + 1)}
        if not block.text:
            return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
        try:
            raw = pl.read_csv(
                block.text,
                has_header=False,
                separator=self.separator,
                quote_char='"' if self.quoted else None,
                schema=places,
                columns=list(read),
                empty_string_is_null=False,
            )
            if raw.height != len(block.lines):
                raise ValueError(f"{len(block.lines)} records were read as {raw.height} rows")
        except (pl.exceptions.PolarsError, ValueError) as error:
            raise InputError(
                f"{path}: cannot read the block of lines that starts at {block.lines[0]}, "
                f"look for stray quotes and line ends there ({error})"
            ) from None
        raw = raw.rename(read).with_columns(folder_values(path, columns))
        return raw.select(cs.by_name(*names))
