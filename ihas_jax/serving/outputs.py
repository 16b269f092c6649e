"""Files of rows that are written part by part, all or nothing: Parquet, CSV, and CSV on a pipe."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from ihas_jax.errors import InputError, unwritable
from ihas_jax.files import lock_folder

Write = Callable[[pl.DataFrame], None]
Kinds = Mapping[str, pl.DataType]


@contextmanager
def new_file(path: Path, kinds: Kinds, *, overwrite: bool = False) -> Iterator[Write]:
    """Yields a function that adds rows to a file, which gets its name when the block ends.

    A block that fails, or a process that is killed, leaves under the name what stood there. Until
    the end the rows are in a hidden folder beside it, which the next process empties.

    Args:
      path: The file, whose name says in which format it is written.
      kinds: The columns of all frames, in order, and their types.
      overwrite: Whether the file may take the place of another one.

    Raises:
      InputError: The name has another ending, the folder is missing, something stands there, a
        column has a type that CSV lacks, the file can't be written, or another process is writing
        it.
    """
    with _named(path):
        _check_place(path, overwrite)
    if path.suffix == ".csv":
        check_csv(kinds)
    partial = path.with_name(f".{path.name}.partial")
    whole, parts = partial / path.name, list[Path]()
    with _locked(path, partial):

        def add(frame: pl.DataFrame) -> None:
            with _named(path):
                if path.suffix == ".csv":
                    with whole.open("ab") as file:
                        frame.write_csv(file, include_header=not file.tell())
                else:  # Polars can't add to a file of Parquet
                    parts.append(partial / f"part-{len(parts)}")
                    frame.write_parquet(parts[-1])

        add(pl.DataFrame(schema=dict(kinds)))
        yield add
        with _named(path):
            if parts:
                pl.scan_parquet(parts, glob=False).sink_parquet(whole)
            with whole.open("rb") as file:
                os.fsync(file.fileno())
            _check_place(path, overwrite)
            whole.replace(path)


def csv_writer(descriptor: int, kinds: Kinds, name: str) -> Write:
    """A function that adds rows to an open file as CSV, whose header is written at once.

    Raises:
      InputError: As `check_csv`; or the file, which has this name in the message, takes no more.
      BrokenPipeError: Nobody reads the pipe any more.
    """
    check_csv(kinds)

    def send(text: str) -> None:
        data = memoryview(text.encode())
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:  # the reader of a pipe is slow
                select.select([], [descriptor], [])
            except BrokenPipeError:
                raise
            except OSError as error:
                raise InputError(f"{name} cannot be written: {error.strerror}") from None

    send(pl.DataFrame(schema=dict(kinds)).write_csv())
    return lambda frame: send(frame.write_csv(include_header=False))


def check_csv(kinds: Kinds) -> None:
    """Raises: InputError: a column has a type that CSV lacks."""
    for name, kind in kinds.items():
        if kind.is_nested() or kind in (pl.Binary, pl.Object):
            raise InputError(f"{name!r} is {kind}, which CSV can't hold; keep it in .parquet")


def _check_place(path: Path, overwrite: bool) -> None:
    """Raises: InputError: no file can be made there."""
    if path.suffix not in (".parquet", ".csv"):
        raise InputError(f"--output {path} must end in .parquet or .csv, or be - for CSV on stdout")
    if not path.parent.is_dir():
        raise InputError(f"--output {path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise InputError(f"--output {path} is a folder; name a file")
    if os.path.lexists(path) and not overwrite:
        raise InputError(
            f"{path} exists, and nothing is overwritten; choose another output, or allow it by "
            "--overwrite"
        )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turns errors of the disk into one that names a file."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise unwritable(error, path) from None


@contextmanager
def _locked(path: Path, partial: Path) -> Iterator[None]:
    """Makes the folder of the parts of a file, empty; other processes can't while the block runs.

    Raises:
      InputError: The folder can't be made or emptied, or another process has it.
    """
    with _named(path):
        partial.mkdir(exist_ok=True)
        handle = lock_folder(partial)
    try:
        with _named(path):
            _empty(partial)
        try:
            yield
        finally:
            with _named(path):
                _empty(partial)
                partial.rmdir()
    finally:
        os.close(handle)


def _empty(partial: Path) -> None:
    """Deletes the parts of an unfinished file."""
    for file in partial.iterdir():
        file.unlink()
