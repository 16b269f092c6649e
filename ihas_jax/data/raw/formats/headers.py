"""The columns that the files of a table have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ihas_jax.data.raw.formats.parquet import is_parquet, parquet_columns
from ihas_jax.data.raw.parts import all_empty, folder_columns
from ihas_jax.data.raw.text_files import read_header, require_file
from ihas_jax.errors import InputError


class Header(NamedTuple):
    """The columns of a table.

    Attributes:
      parquet: Whether its files are Parquet.
      own: The columns in the files.
      folders: The columns that the folders of the files name.
    """

    parquet: bool
    own: tuple[str, ...]
    folders: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns in the files, then those that only the folders name."""
        return (*self.own, *(name for name in self.folders if name not in self.own))

    @property
    def kind(self) -> tuple[bool, list[str], tuple[str, ...]]:
        """What all files of a table share; the columns of each may have an order of their own."""
        return self.parquet, sorted(self.own), self.folders


def require_columns(
    path: Path, found: Sequence[str], wanted: Iterable[str], hint: str = ""
) -> None:
    """Raises: InputError: a file lacks some of the wanted columns, or has one of them twice."""
    wanted = dict.fromkeys(wanted)
    if lacking := [repr(name) for name in wanted if name not in found]:
        columns = "columns" if len(lacking) > 1 else "column"
        raise InputError(
            f"{path} has no {columns} {', '.join(lacking)}; its columns are {', '.join(found)}"
            f"{hint}"
        )
    if twice := next((name for name in wanted if found.count(name) > 1), None):
        raise InputError(f"{path} has two columns {twice!r}; rename one of them")


def columns_of(*paths: Path, separator: str = ",") -> tuple[str, ...]:
    """The columns that `table` finds: the columns in the files, then the names of their folders.

    Raises:
      InputError: As `table`.
    """
    return shared_header(paths, separator).names


def shared_header(paths: tuple[Path, ...], separator: str) -> Header:
    """The columns that all files of a table have, except those of 0 bytes.

    Raises:
      InputError: As `table`.
    """
    if len(separator) != 1 or not separator.isascii() or separator in '"\r\n':
        raise InputError(
            f"--separator is {separator!r}; it must be one character of ASCII, not a double quote "
            "or a line end"
        )
    first = None
    for path in paths:
        if (found := _header(path, separator)) is None:
            continue
        first = first or (path, found)
        if found.kind != first[1].kind:
            raise InputError(_difference(path, found, *first))
    if first is None:
        raise all_empty(paths)
    return first[1]


def _header(path: Path, separator: str) -> Header | None:
    """The columns of a file; None if it is empty."""
    require_file(path)
    parquet = is_parquet(path)
    own = parquet_columns(path) if parquet else read_header(path, separator)
    return Header(parquet, own, tuple(folder_columns(path))) if own else None


def _difference(path: Path, found: Header, other: Path, of_other: Header) -> str:
    """What is wrong with two files that are not read together."""
    if found.folders != of_other.folders:
        return (
            f"{path} and {other} lie in folders that name other columns "
            f"({', '.join(found.folders) or 'none'}, and {', '.join(of_other.folders) or 'none'}); "
            "they are not one log"
        )
    if found.parquet != of_other.parquet:
        return f"one of {path} and {other} is Parquet and the other is text; give each in a call"
    return f"{path} has other columns than {other}; they are not one log"
