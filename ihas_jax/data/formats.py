"""The raw click logs that can be read: Criteo, Avazu, MovieLens-1M, and any CSV or Parquet.

Each function returns a small frozen `Log`, ready for `ihas_jax.data.ingest.prepare`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ihas_jax.data.ahead import ahead
from ihas_jax.data.logs import START, Chunk, Fields, Log, Position, screen
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


def criteo(*paths: Path) -> Log:
    """Criteo's `train.txt`: tab separated, no header, a label, I1 to I13, C1 to C26."""
    names = ("label", *(name for name, _ in CRITEO_FIELDS))
    return TextLog(paths, "label", CRITEO_FIELDS, names, separator="\t", quoted=False)


def avazu(*paths: Path) -> Log:
    """Avazu's `train.csv`: a header; `id` is left out, the 22 columns from `hour` are fields."""
    return table(*paths, label="click", categorical=AVAZU_FIELDS, time="hour")


def movielens(path: Path) -> Log:
    """MovieLens-1M as published, `ml-1m.zip`: a rating above 3 is a click."""
    fields: Fields = tuple((name, "categorical") for name in MOVIELENS_FIELDS)
    return MovieLensLog((path,), "liked", fields, time="time")


def table(
    *paths: Path,
    label: str,
    categorical: Iterable[str] = (),
    numeric: Iterable[str] = (),
    time: str | None = None,
) -> Log:
    """Any CSV with a header (plain or gzip) or Parquet; columns not named are left out.

    Args:
      paths: The files, all of one kind; Parquet is recognised by its first bytes.
      label: The column that is 0 or 1 (also 0.0, 1.0, true, false).
      categorical: The columns whose values are categories as they are.
      numeric: The columns of numbers, which become categories by their integer part; see
        `field_text`.
      time: The column that tells when a row was; it may be one of the others.

    Raises:
      InputError: There is no such file, a column is missing or named twice, or the files are of
        different kinds or have other headers.
    """
    fields: Fields = (
        *((name, "categorical") for name in categorical),
        *((name, "integer") for name in numeric),
    )
    path, *others = paths
    parquet, names = _columns(path)
    for other in others:
        if _columns(other) != (parquet, names):
            raise InputError(f"{other} has other columns than {path}; they are not one log")
    wanted = [label, *(name for name, _ in fields)]
    for name in (*wanted, *([time] if time else [])):
        if name not in names:
            raise InputError(f"{path} has no column {name!r}; its columns are {', '.join(names)}")
        if names.count(name) > 1:
            raise InputError(f"{path} has two columns {name!r}; rename one of them")
        if wanted.count(name) > 1:
            raise InputError(f"the column {name!r} is named twice; name every column once")
    if not fields:
        raise InputError(f"no columns to use; name some of {', '.join(names)}")
    if parquet:
        _check_types(paths, [*(name for name, _ in fields), *([time] if time else [])])
        return ParquetLog(paths, label, fields, time=time)
    return TextLog(paths, label, fields, names, separator=",", quoted=True, time=time)


@dataclass(frozen=True)
class TextLog(Log):
    """A log of lines; `columns` are all of a line's columns, in order."""

    columns: tuple[str, ...]
    separator: str
    quoted: bool

    def chunks(self, start: Position = START) -> Iterator[Chunk]:
        """See `Log.chunks`; a file whose values may be quoted begins with a header."""
        places: dict[str, pl.DataType] = {
            f"column_{i}": pl.String() for i in range(1, len(self.columns) + 1)
        }
        wanted = self.used
        used = [f"column_{1 + self.columns.index(name)}" for name in wanted]
        names = dict(zip(used, wanted, strict=True))
        for path in self.paths:
            if not path.is_file():
                raise InputError(f"{path}: no such file")
        sizes = [path.stat().st_size for path in self.paths]
        for file in range(start.file, len(self.paths)):
            blocks = read_blocks(
                self.paths[file],
                columns=len(self.columns),
                separator=self.separator,
                quoted=self.quoted,
                header=self.quoted,
                start=start[1:] if file == start.file else START[1:],
            )
            parsed = ((b, self._parse(self.paths[file], b, places, names)) for b in blocks)
            for block, raw in ahead(parsed):
                share = (sum(sizes[:file]) + block.share * sizes[file]) / sum(sizes)
                end = Position(file, *block.end)
                yield screen(
                    self, raw, block.lines, share, end, bad=block.bad, complaint=block.complaint
                )

    def _parse(
        self, path: Path, block: Block, places: dict[str, pl.DataType], names: dict[str, str]
    ) -> pl.DataFrame:
        if not block.text:
            return pl.DataFrame(schema=dict.fromkeys(names.values(), pl.String))
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
                f"{path}: cannot read the block of lines that starts at {block.lines[0]}, "
                f"look for stray quotes and line ends there ({error})"
            ) from None
        return raw.select(pl.col(place).alias(name) for place, name in names.items())


@dataclass(frozen=True)
class ParquetLog(Log):
    """A log in Parquet files."""

    def chunks(self, start: Position = START) -> Iterator[Chunk]:
        """See `Log.chunks`."""
        totals = [_parquet_rows(path) for path in self.paths]
        for file in range(start.file, len(self.paths)):
            read = start.offset if file == start.file else 0
            try:
                for raw in self._scan(self.paths[file], read):
                    rows = np.arange(read + 1, read + raw.height + 1)
                    read += raw.height
                    share = (sum(totals[:file]) + read) / sum(totals)
                    yield screen(self, raw, rows, share, Position(file, read, read), unit="row")
            except (pl.exceptions.PolarsError, OSError) as error:
                raise _not_parquet(self.paths[file], error) from None

    def _scan(self, path: Path, skipped: int) -> Iterator[pl.DataFrame]:
        # a truth value in a column of numbers is 0 or 1
        scan = pl.scan_parquet(path, glob=False).slice(skipped)
        numbers = [name for name, kind in self.fields if kind == "integer"]
        schema = pl.read_parquet_schema(path)
        truths = [name for name in numbers if schema[name] == pl.Boolean]
        return (
            scan.select(self.used)
            .with_columns(pl.col(truths).cast(pl.UInt8))
            .collect_batches(chunk_size=_PARQUET_ROWS, maintain_order=True)
        )


def _parquet_rows(path: Path) -> int:
    try:
        return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _not_parquet(path, error) from None


def _not_parquet(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as Parquet: {error}")


def _columns(path: Path) -> tuple[bool, tuple[str, ...]]:
    """Whether a file is Parquet, and the names of its columns."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        parquet = file.read(4) == _PARQUET_MAGIC
    return parquet, _parquet_columns(path) if parquet else read_header(path, ",")


def _check_types(paths: tuple[Path, ...], names: list[str]) -> None:
    """Raises: InputError: A column is written in other ways in some part: 1 is not 1.0 as text."""
    kinds: dict[str, str] = {}
    for path in paths:
        schema = pl.read_parquet_schema(path)
        for name in names:
            kind = "integer" if schema[name].is_integer() else str(schema[name])
            if kinds.setdefault(name, kind) != kind:
                raise InputError(
                    f"{path}: {name!r} is {kind}, but {kinds[name]} in {paths[0]}; write all parts "
                    "with one type"
                )


def _parquet_columns(path: Path) -> tuple[str, ...]:
    try:
        schema = pl.read_parquet_schema(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _not_parquet(path, error) from None
    return tuple(name for name, kind in schema.items() if not kind.is_nested())
