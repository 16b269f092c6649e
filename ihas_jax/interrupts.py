"""Ctrl-C: one line and exit code 130, whatever the program is doing."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

GO_ON = "run the same command again to go on from here"
_EXIT = 130
_GRACE = 3.0
"""Seconds that a program has to tidy up."""
_SHOW_CURSOR = b"\x1b[?25h"


def catch_interrupts(remedy: str = GO_ON) -> None:
    """Ctrl-C ends the process at once: for the seconds in which a script imports its modules."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: _end(remedy))


@contextmanager
def interruptible(remedy: str = GO_ON) -> Iterator[None]:
    """Ctrl-C in the block unwinds it, so that it tidies up, and then ends the process.

    A block that has not ended three seconds later (inside a compilation, say) and one that is
    interrupted again are ended where they are. Nothing is torn down then, and no thread is left
    to print a traceback or to crash.
    """
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:  # as under nohup
        yield
        return
    interrupted = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            _end(remedy)
        interrupted.set()
        logging.disable()
        threading.excepthook = lambda problem: None
        sys.unraisablehook = lambda problem: None
        raise KeyboardInterrupt

    def watch() -> None:
        while written := os.read(reader, 1):  # nothing once the block has ended
            if written == bytes([signal.SIGINT]):
                time.sleep(_GRACE)
                _end(remedy)
        os.close(reader)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # written to by the C code of Python, though the main thread may be inside other C code
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, handle)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except BaseException:
        if interrupted.is_set():  # whatever the interrupt has been turned into
            _end(remedy)
        raise
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGINT, before)
        os.close(writer)


def _end(remedy: str) -> NoReturn:
    """Ends the process after a last line on stderr, without tearing anything down."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    with suppress(Exception):
        if os.isatty(1):
            os.write(1, _SHOW_CURSOR)
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        os.write(2, f"interrupted: {remedy}\n".encode(encoding, "backslashreplace"))
    os._exit(_EXIT)
