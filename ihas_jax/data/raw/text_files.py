"""Plain and gzip text files: how they are opened, and their first lines."""

from __future__ import annotations

import csv
import gzip
import io
import os
import shlex
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ihas_jax.data.raw.signatures import HEAD_BYTES, explain_foreign
from ihas_jax.errors import InputError

_LONGEST_HEADER_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"


def read_header(path: Path, separator: str) -> tuple[str, ...]:
    """Returns the column names in the first line; an empty file has none.

    Raises:
      InputError: The file cannot be read, or its first line is not a header.
    """
    with open_text(path) as (stream, _):
        line = stream.readline(_LONGEST_HEADER_BYTES)
    if not line:
        return ()
    if not line.strip():
        raise InputError(f"{path}: the first line is empty, column names were expected there")
    try:
        (names,) = csv.reader([line.decode()], delimiter=separator, strict=True)
    except (UnicodeDecodeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}, line 1: not a header of column names ({error})") from None
    return tuple(names)


def first_record(path: Path) -> bytes:
    """The first line of a file that is not empty, or no bytes.

    Raises:
      InputError: The file cannot be read.
    """
    with open_text(path) as (stream, _):
        while line := stream.readline(_LONGEST_HEADER_BYTES):
            if text := line.strip(b"\r\n"):
                return text
    return b""


def require_file(path: Path) -> None:
    """Raises: InputError: there is no file, or it is a pipe."""
    if path.is_fifo() or path.is_char_device():
        raise InputError(
            f"{path} is a pipe, and files are read more than once; write what comes to a file first"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file")


@contextmanager
def open_text(
    path: Path,
) -> Iterator[tuple[gzip.GzipFile | io.BufferedReader, Callable[[], float]]]:
    """Yields a stream of text without byte-order mark, and a function of the share read.

    Raises:
      InputError: There is no such file, or it cannot be read, is no text, or is a damaged gzip
        file, which may show only as it is read.
    """
    require_file(path)
    try:
        with path.open("rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            zipped = raw.peek(2)[:2] == _GZIP_MAGIC
            if path.suffix == ".gz" and size and not zipped:
                raise InputError(f"{path} is not a gzip file, although its name ends in .gz")
            stream: gzip.GzipFile | io.BufferedReader = raw
            if zipped:
                stream = gzip.GzipFile(fileobj=raw)
            head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
            if foreign := explain_foreign(path.with_suffix("") if zipped else path, head):
                packed = f"{path}, unpacked by gunzip -k {shlex.quote(str(path))}: "
                raise InputError(f"{packed if zipped else ''}{foreign}")
            if head.startswith(_BYTE_ORDER_MARK):
                stream.read(len(_BYTE_ORDER_MARK))
            yield stream, lambda: raw.tell() / size
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path} is a truncated or damaged gzip file ({error}); fetch or compress it again"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
