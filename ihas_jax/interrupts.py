"""Ctrl-C: one line and exit code 130, whatever the program is doing."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

RESUME = "run the same command again to resume"
_EXIT = 130
_GRACE = 3.0
"""Seconds that an interrupted program has to tidy up."""
_SHOW_CURSOR = b"\x1b[?25h"


class _Goodbyes:
    """What an interrupted process does before it ends at once."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []


_goodbyes = _Goodbyes()


@contextmanager
def before_ending(goodbye: Callable[[], object]) -> Iterator[None]:
    """Calls a function before Ctrl-C ends the process, while the block runs; never twice."""
    _goodbyes.waiting.append(goodbye)
    try:
        yield
    finally:
        with suppress(ValueError):  # it was called
            _goodbyes.waiting.remove(goodbye)


def catch_interrupts(remedy: str = RESUME) -> None:
    """Lets Ctrl-C end the process at once, while a script imports its modules."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: _end(remedy))


@contextmanager
def interruptible(remedy: str = RESUME) -> Iterator[None]:
    """Lets Ctrl-C unwind the block, so that it tidies up, and then end the process.

    If the block has not ended after three seconds (because of a compilation, say), or is
    interrupted again, the process ends at once. It is not torn down then, so that no thread prints
    a traceback or crashes.
    """
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:  # as under nohup
        yield
        return
    interrupted = threading.Event()
    stderr = stderr_copy()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            _end(remedy, stderr)
        interrupted.set()
        logging.disable()
        threading.excepthook = lambda problem: None
        sys.unraisablehook = lambda problem: None
        raise KeyboardInterrupt

    def watch() -> None:
        while written := os.read(reader, 1):  # nothing once the block has ended
            if written == bytes([signal.SIGINT]):
                time.sleep(_GRACE)
                _end(remedy, stderr)
        os.close(reader)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # the C code of Python writes to it even if the main thread is inside other C code
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, handle)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except BaseException:
        if interrupted.is_set():  # other code may have turned the interrupt into another error
            _end(remedy, stderr)
        raise
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGINT, before)
        os.close(writer)
        if stderr != 2:
            os.close(stderr)


def stderr_copy() -> int:
    """A descriptor of stderr that stays where it is while code of the block redirects stderr."""
    try:
        return os.dup(2)
    except OSError:  # there is none
        return 2


def _end(remedy: str, stderr: int = 2) -> NoReturn:
    """Ends the process after a last line on stderr, without tearing anything down."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    with suppress(Exception):
        if os.isatty(1):
            os.write(1, _SHOW_CURSOR)
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        os.write(stderr, f"interrupted: {remedy}\n".encode(encoding, "backslashreplace"))
    while _goodbyes.waiting:
        with suppress(Exception):
            _goodbyes.waiting.pop()()
    os._exit(_EXIT)
