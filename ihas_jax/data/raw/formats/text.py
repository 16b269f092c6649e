"""A log of lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import polars.selectors as cs

from ihas_jax.data.raw.logs import START, Log, Position, Rows
from ihas_jax.data.raw.parts import all_empty, folder_values
from ihas_jax.data.raw.prefetch import prefetch
from ihas_jax.data.raw.records import Block, read_blocks
from ihas_jax.data.raw.text_files import require_file
from ihas_jax.errors import InputError


@dataclass(frozen=True)
class TextLog(Log):
    """A log of lines; `columns` are the names of all columns of a line, in order."""

    columns: tuple[str, ...]
    separator: str
    quoted: bool

    def read(self, names: Sequence[str], start: Position = START) -> Iterator[Rows]:
        """Reads the log, see `Log.read`; a quoted file begins with a header."""
        for path in self.paths:
            require_file(path)
        sizes = [path.stat().st_size for path in self.paths]
        if not any(sizes):
            raise all_empty(self.paths)
        for file in range(start.file, len(self.paths)):
            blocks = read_blocks(
                self.paths[file],
                columns=len(self.columns),
                separator=self.separator,
                quoted=self.quoted,
                header=self.quoted,
                start=start[1:] if file == start.file else START[1:],
            )
            path = self.paths[file]
            parsed = ((b, self._parse(path, b, names)) for b in blocks)
            for block, frame in prefetch(parsed):
                if not (block.lines.size or block.bad.size):
                    continue
                share = (sum(sizes[:file]) + block.share * sizes[file]) / sum(sizes)
                end = Position(file, *block.end)
                yield Rows(frame, block.lines, block.bad, block.complaint, share, end, str(path))

    def _parse(self, path: Path, block: Block, names: Sequence[str]) -> pl.DataFrame:
        """Columns of a block, including the columns that its folders name."""
        read = {f"column_{i}": name for i, name in enumerate(self.columns, 1) if name in names}
        read = read or {"column_1": self.columns[0]}
        places = {f"column_{i}": pl.String for i in range(1, len(self.columns) + 1)}
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
        raw = raw.rename(read).with_columns(folder_values(path, self.columns))
        return raw.select(cs.by_name(*names))
