"""Streams for a command line that take every character and never fail."""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ihas_jax.names import printable

_ASCII = {"±": "+-", "µ": "u", "…": "..."}


@contextmanager
def steady_streams() -> Iterator[list[str]]:
    """Makes stdout and stderr take all characters, and survive a full disk, while the block runs.

    Characters that the encoding of a stream lacks are spelt out (after the block too). Output to a
    stream that takes no more (a full disk, a pipe that nobody reads) is lost; one line on stderr
    says so.

    Yields:
      The names of the streams that have lost output so far.
    """
    codecs.register_error("ihas_jax", _spell)
    before, lost = (sys.stdout, sys.stderr), list[str]()
    for name, stream in zip(("stdout", "stderr"), before, strict=True):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="ihas_jax")
        if isinstance(getattr(stream.buffer, "raw", stream.buffer), io.FileIO):
            setattr(sys, name, _steady(name, stream, lost))
    try:
        yield lost
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before


def _steady(name: str, stream: io.TextIOWrapper, lost: list[str]) -> io.TextIOWrapper:
    """Makes a stream on the file of another stream whose writes never fail."""
    return io.TextIOWrapper(
        io.BufferedWriter(_SteadyFile(name, stream.fileno(), lost)),
        encoding=stream.encoding,
        errors="ihas_jax",
        line_buffering=stream.line_buffering or stream.write_through,
    )


class _SteadyFile(io.FileIO):
    """A file whose writes never fail; output that it can't take is lost."""

    def __init__(self, called: str, descriptor: int, lost: list[str]) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._called, self._lost = called, lost

    def write(self, data: Any, /) -> int:
        """Writes some bytes, and returns their number; waits for a slow reader of a pipe."""
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            if self._called not in self._lost:
                self._lost.append(self._called)
                line = f"{self._called} can't be written ({error.strerror}); the work continues.\n"
                with suppress(OSError):
                    os.write(2, line.encode("ascii", "backslashreplace"))
            return len(data)
        return written


def _spell(error: UnicodeError) -> tuple[str, int]:
    """The spelling of characters that an encoding lacks, and the position after them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = printable(error.object[error.start : error.end])
    spelt = "".join(_ASCII.get(character, character) for character in missing)
    return spelt.encode("ascii", "backslashreplace").decode(), error.end
