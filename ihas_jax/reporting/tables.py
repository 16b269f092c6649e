"""Tables that fit a terminal of any width without cutting a number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from ihas_jax.names import terminal

_NARROWEST = 8
_BORDERS = 3  # a line and two blanks per column


def markdown_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], texts: Sequence[int] = (0,)
) -> list[str]:
    """The lines of a table; the columns numbered in `texts` hold text, the others numbers."""
    rules = "".join("---|" if n in texts else "---:|" for n in range(len(headers)))
    first, *others = (f"| {' | '.join(cells)} |" for cells in (headers, *rows))
    return [first, f"|{rules}", *others]


@dataclass(frozen=True)
class Grid:
    """A table for Rich; if its numbers don't fit side by side, each row becomes a paragraph.

    Attributes:
      title: the line above the table.
      headers: one header per column.
      rows: the cells of each row; None is a line between two parts of the table.
      texts: indices of the columns of text, which may wrap; the other columns hold numbers.
    """

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str] | None]
    texts: tuple[int, ...] = (0,)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        columns = range(len(self.headers))
        for headers in ([[h] for h in self.headers], [h.split() for h in self.headers]):
            widths = [*map(self._width, columns, headers)]
            if sum(widths) + _BORDERS * len(widths) < options.max_width:
                yield self._table(widths)
                return
        yield from self._paragraphs()

    def _width(self, column: int, header: Sequence[str]) -> int:
        """The least width of a column whose header is broken into these lines."""
        if column in self.texts:
            return max(_NARROWEST, *map(cell_len, header))
        cells = [row[column] for row in self.rows if row is not None]
        return max(map(cell_len, (*header, *cells)), default=1)

    def _table(self, widths: Sequence[int]) -> Table:
        table = Table(title=terminal(self.title) if self.title else None)
        for number, header in enumerate(self.headers):
            if number in self.texts:
                table.add_column(terminal(header), overflow="fold", min_width=widths[number])
            else:
                table.add_column(terminal(header), justify="right", width=widths[number])
        for row in self.rows:
            if row is None:
                table.add_section()
            else:
                table.add_row(*map(terminal, row))
        return table

    def _paragraphs(self) -> Iterator[Text]:
        if self.title:
            yield terminal(self.title)
        for row in self.rows:
            if row is not None:
                first, *others = map(terminal, row)
                lines = [first] + [
                    Text.assemble("  ", terminal(header), ": ", cell)
                    for header, cell in zip(self.headers[1:], others, strict=True)
                    if cell
                ]
                for line in lines:
                    line.no_wrap, line.overflow = False, "fold"
                    yield line
