"""stdout and stderr of a command line: they take every character, and a lost one ends no work."""

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
    """Spells out what the encodings of stdout and stderr lack, and outlives a full disk there.

    What is written to a stream that takes no more (a full disk, a pipe that nobody reads) is lost;
    one line on stderr says so. Characters are spelt out after the block too.

    Yields:
      The names of the streams that lost something, which grows.
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
    """A stream on the file of another."""
    return io.TextIOWrapper(
        io.BufferedWriter(_SteadyFile(name, stream.fileno(), lost)),
        encoding=stream.encoding,
        errors="ihas_jax",
        line_buffering=stream.line_buffering or stream.write_through,
    )


class _SteadyFile(io.FileIO):
    """A file whose writes never fail; what it can't take is lost."""

    def __init__(self, called: str, descriptor: int, lost: list[str]) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._called, self._lost = called, lost

    def write(self, data: Any, /) -> int:
        """Writes some bytes, and returns how many; waits where the reader of a pipe is slow."""
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            if self._called not in self._lost:
                self._lost.append(self._called)
                line = f"{self._called} can't be written ({error.strerror}); the work goes on.\n"
                with suppress(OSError):
                    os.write(2, line.encode("ascii", "backslashreplace"))
            return len(data)
        return written


def _spell(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding lacks, and where encoding goes on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = printable(error.object[error.start : error.end])
    spelt = "".join(_ASCII.get(character, character) for character in missing)
    return spelt.encode("ascii", "backslashreplace").decode(), error.end
