"""The raw click logs that can be read: Criteo, Avazu, MovieLens-1M, and any CSV or Parquet.

Each function returns a small frozen `Log`, ready for `ihas_jax.data.ingest.prepare`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ihas_jax.data.logs import Chunk, Fields, Log, screen
from ihas_jax.data.movielens import MOVIELENS_FIELDS, MovieLensLog
from ihas_jax.data.records import Block, read_blocks, read_header
from ihas_jax.errors import InputError

CRITEO_FIELDS: Fields = (
    *((f"I{i}", "integer") for i in range(1, 14)),
    *((f"C{i}", "categorical") for i in range(1, 27)),
)
AVAZU_FIELDS = (
    *("hour", "C1", "banner_pos", "site_id", "site_domain", "site_category"),
    *("app_id", "app_domain", "app_category", "device_id", "device_ip", "device_model"),
    *("device_type", "device_conn_type", *(f"C{i}" for i in range(14, 22))),
)

_PARQUET_MAGIC = b"PAR1"
_PARQUET_ROWS = 1 << 17


def criteo(path: Path) -> Log:
    """Criteo's `train.txt`: tab separated, no header, a label, I1 to I13, C1 to C26."""
    names = ("label", *(name for name, _ in CRITEO_FIELDS))
    return TextLog(path, "label", CRITEO_FIELDS, names, separator="\t", quoted=False)


def avazu(path: Path) -> Log:
    """Avazu's `train.csv`: a header; `id` is left out, the 22 columns from `hour` are fields."""
    return table(path, label="click", categorical=AVAZU_FIELDS)


def movielens(path: Path) -> Log:
    """MovieLens-1M as published, `ml-1m.zip`: a rating above 3 is a click."""
    fields: Fields = tuple((name, "categorical") for name in MOVIELENS_FIELDS)
    return MovieLensLog(path, "liked", fields)


def table(
    path: Path, *, label: str, categorical: Iterable[str] = (), numeric: Iterable[str] = ()
) -> Log:
    """Any CSV with a header (plain or gzip) or Parquet file; columns not named are left out.

    Args:
      path: The file; Parquet is recognised by its first bytes.
      label: The column that is 0 or 1 (also 0.0, 1.0, true, false).
      categorical: The columns whose values are categories as they are.
      numeric: The columns of numbers, which become categories by their integer part; see
        `field_text`.

    Raises:
      InputError: There is no such file, or a column is missing or named twice.
    """
    fields: Fields = (
        *((name, "categorical") for name in categorical),
        *((name, "integer") for name in numeric),
    )
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        parquet = file.read(4) == _PARQUET_MAGIC
    names = _parquet_columns(path) if parquet else read_header(path, ",")
    wanted = [label, *(name for name, _ in fields)]
    for name in wanted:
        if name not in names:
            raise InputError(f"{path} has no column {name!r}; its columns are {', '.join(names)}")
        if names.count(name) > 1:
            raise InputError(f"{path} has two columns {name!r}; rename one of them")
        if wanted.count(name) > 1:
            raise InputError(f"the column {name!r} is named twice; name every column once")
    if not fields:
        raise InputError(f"no columns to use; name some of {', '.join(names)}")
    if parquet:
        return ParquetLog(path, label, fields)
    return TextLog(path, label, fields, names, separator=",", quoted=True)


@dataclass(frozen=True)
class TextLog(Log):
    """A log of lines; `columns` are all of a line's columns, in order."""

    columns: tuple[str, ...]
    separator: str
    quoted: bool

    def chunks(self) -> Iterator[Chunk]:
        """See `Log.chunks`; a file whose values may be quoted begins with a header."""
        places: dict[str, pl.DataType] = {
            f"column_{i}": pl.String() for i in range(1, len(self.columns) + 1)
        }
        wanted = [self.label, *(name for name, _ in self.fields)]
        used = [f"column_{1 + self.columns.index(name)}" for name in wanted]
        blocks = read_blocks(
            self.path,
            columns=len(self.columns),
            separator=self.separator,
            quoted=self.quoted,
            header=self.quoted,
        )
        for block in blocks:
            raw = pl.DataFrame(schema=dict.fromkeys(wanted, pl.String))
            if block.text:
                raw = self._parse(block, places, dict(zip(used, wanted, strict=True)))
            lines = pl.Series(block.lines)
            yield screen(self, raw, lines, block.share, bad=block.bad, complaint=block.complaint)

    def _parse(
        self, block: Block, places: dict[str, pl.DataType], names: dict[str, str]
    ) -> pl.DataFrame:
        try:
            raw = pl.read_csv(
                block.text,
                has_header=False,
                separator=self.separator,
                quote_char='"' if self.quoted else None,
                schema=places,
                columns=list(names),
                empty_string_is_null=False,
            )
            if raw.height != len(block.lines):
                raise ValueError(f"{len(block.lines)} records were read as {raw.height} rows")
        except (pl.exceptions.PolarsError, ValueError) as error:
            raise InputError(
                f"{self.path}: cannot read the block of lines that starts at {block.lines[0]}, "
                f"look for stray quotes and line ends there ({error})"
            ) from None
        return raw.select(pl.col(place).alias(name) for place, name in names.items())


@dataclass(frozen=True)
class ParquetLog(Log):
    """A log in one Parquet file."""

    def chunks(self) -> Iterator[Chunk]:
        """See `Log.chunks`."""
        wanted = [self.label, *(name for name, _ in self.fields)]
        try:
            scan = pl.scan_parquet(self.path, glob=False).select(wanted)
            total = scan.select(pl.len()).collect().item()
            read = 0
            for raw in scan.collect_batches(chunk_size=_PARQUET_ROWS, maintain_order=True):
                rows = pl.int_range(read + 1, read + raw.height + 1, eager=True)
                read += raw.height
                yield screen(self, raw, rows, read / total, unit="row")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{self.path} cannot be read as Parquet: {error}") from None


def _parquet_columns(path: Path) -> tuple[str, ...]:
    try:
        schema = pl.read_parquet_schema(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from None
    return tuple(name for name, kind in schema.items() if not kind.is_nested())
