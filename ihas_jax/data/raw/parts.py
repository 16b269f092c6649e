"""The files of a log, given as files, patterns or folders, and the columns that folders name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from ihas_jax.errors import InputError

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def find_parts(inputs: Iterable[Path]) -> tuple[Path, ...]:
    """Finds the files of a log; a pattern stands for its matches, a folder for all files below it.

    The matches of a pattern and the files of a folder are sorted by their paths. Names that begin
    with a dot or an underscore are ignored, such as Spark's `_SUCCESS`.

    Raises:
      InputError: A folder holds no files, or a file is found twice.
    """
    found: list[Path] = []
    for path in inputs:
        matches = [path]
        if any(sign in str(path) for sign in "*?[") and not path.exists():
            start = Path(path.anchor)
            matches = sorted(start.glob(str(path.relative_to(start)))) or [path]
        for match in matches:
            files = list(_files_below(match, ())) if match.is_dir() else [match]
            if not files:
                raise InputError(f"--input {match} holds no files")
            found += files
    twice = next((path for number, path in enumerate(found) if path in set(found[:number])), None)
    if twice:
        raise InputError(f"--input holds {twice} twice; its rows would count twice")
    return tuple(found)


def folder_columns(path: Path) -> dict[str, str]:
    """The columns that the folders above a file name, as in `dt=2014-10-21/part-0.parquet`.

    These are the folders directly above the file whose names hold an equals sign, the outermost
    first, as Hive and Spark write them. A value is text; a missing value is the empty text.

    Raises:
      InputError: A folder's name is not UTF-8.
    """
    found: list[tuple[str, str]] = []
    for folder in path.parents:
        name, equals, value = folder.name.partition("=")
        if not (name and equals):
            break
        try:
            pair = unquote(name, errors="strict"), unquote(value, errors="strict")
            "".join(pair).encode()
        except UnicodeError:
            raise InputError(f"the name of the folder {str(folder)!r} is not UTF-8") from None
        found.append((pair[0], "" if value == _NO_VALUE else pair[1]))
    return dict(reversed(found))


def folder_values(path: Path, own: Iterable[str]) -> list[pl.Expr]:
    """The columns that the folders of a file name and the file itself lacks."""
    folders = folder_columns(path).items()
    return [pl.lit(value, pl.String).alias(name) for name, value in folders if name not in own]


def part_name(path: Path) -> str:
    """The name of a file with the folders that are columns, such as `dt=1/part-0.parquet`."""
    return "/".join(path.parts[-1 - len(folder_columns(path)) :])


def all_empty(paths: tuple[Path, ...]) -> InputError:
    """The error that no file of a log holds anything."""
    more = f", and so are the other {len(paths) - 1} files" if len(paths) > 1 else ""
    return InputError(f"{paths[0]} is empty{more}")


def _files_below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """The files of a folder and of the folders in it, sorted by their paths."""
    here = folder.resolve()
    if here in above:
        raise InputError(f"--input: the link {folder} leads back to a folder that it lies in")
    for path in sorted(folder.iterdir()):
        hidden = path.name[0] == "." or (path.name[0] == "_" and "=" not in path.name)
        if path.is_dir() and not hidden:
            yield from _files_below(path, (*above, here))
        elif not hidden:
            yield path
