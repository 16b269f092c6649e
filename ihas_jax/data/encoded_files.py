"""The files of an encoded log, see `ihas_jax.data.encoded`: parts, schema.json and checksums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from ihas_jax import checksums
from ihas_jax.data.schema import Schema
from ihas_jax.data.schema_checks import check_schema
from ihas_jax.errors import InputError
from ihas_jax.progress import track

LABEL = "label"


def find_parts(path: Path, split: str) -> list[Path]:
    """The Parquet files of a split, in the order of their rows.

    Raises:
      InputError: There are none.
    """
    single = path / f"{split}.parquet"
    parts = [single] if single.is_file() else sorted((path / split).glob("*.parquet"))
    if not parts:
        raise InputError(f"{path} holds no {split}.parquet, and no {split}/*.parquet")
    return parts


def load_schema(path: Path, fields: Sequence[str]) -> Schema | None:
    """The schema of the folder, or None; only the named fields are kept, if any are named.

    Raises:
      InputError: The schema cannot be used, or lacks a named field.
    """
    if isinstance(fields, str):
        raise InputError(f"fields is the text {fields!r}; give a list of names, [{fields!r}]")
    if len(set(fields)) < len(fields):
        raise InputError(f"--fields names a column twice: {', '.join(fields)}")
    file = path / "schema.json"
    if not file.exists():
        if LABEL in fields:
            raise InputError(f"--fields names {LABEL!r}, which is the label")
        return None
    schema = Schema.load(file)
    try:
        check_schema(schema)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if strange := [name for name in fields if name not in schema.names]:
        raise InputError(
            f"--fields names {strange[0]!r}, which {file} does not have; its fields are "
            f"{', '.join(schema.names)}"
        )
    known = dict(zip(schema.names, schema.fields, strict=True))
    kept = tuple(known[name] for name in fields or schema.names)
    return Schema(schema.label, kept, schema.missing)


def column_types(part: Path) -> dict[str, pl.DataType]:
    """The types of the columns of a part, by their names.

    Raises:
      InputError: The part cannot be read.
    """
    with readable(part):
        return dict(pl.read_parquet_schema(part))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns errors of reading in the block into an InputError that names the path."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from None


def check_sums(path: Path, parts: Sequence[Path]) -> None:
    """Compares all files with their checksums, if the folder has checksums.

    Raises:
      InputError: A file is missing or has another checksum, or a part has none.
    """
    remedy = f"prepare the log again; or delete {checksums.FILE} there if you trust the files"
    known = set()
    with track("Comparing checksums", len(parts) + 1, "files") as progress:
        for name, whole in checksums.compare(path):
            if not whole:
                problem = "is damaged or was exchanged" if (path / name).is_file() else "is missing"
                raise InputError(f"{path / name} {problem}, says {checksums.FILE}; {remedy}")
            known.add(path / name)
            progress.advance(1)
    if known and (strange := [part for part in parts if part not in known]):
        raise InputError(f"{strange[0]} has no checksum, unlike its neighbours; {remedy}")
