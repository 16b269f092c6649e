"""Peak memory of a process; `python peak.py SCRIPT ARGUMENTS` prints a script's at its end.

A parent can't read that of a child from `getrusage`: what the parent itself held when it forked
counts there.
"""

from __future__ import annotations

import atexit
import os
import resource
import runpy
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def watch_family() -> Iterator[Callable[[], int]]:
    """Watches the memory of this process and of all that it starts, on Linux.

    Yields:
      A function of the largest sum so far, in bytes; pages that processes share count once.
    """
    largest, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            largest[0] = max(largest[0], sum(map(_own_bytes, _family(os.getpid()))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: largest[0]
    finally:
        done.set()
        watcher.join()


def _family(process: int) -> Iterator[int]:
    """A process and its descendants, as far as they still run."""
    yield process
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text(encoding="utf-8").split():
                yield from _family(int(child))


def _own_bytes(process: int) -> int:
    """The memory of a process, with its part of each page that it shares; 0 if it has ended."""
    with suppress(OSError):
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8")
        return next(int(s.split()[1]) * 1024 for s in rollup.splitlines() if s[:4] == "Pss:")
    return 0


if __name__ == "__main__":
    atexit.register(lambda: print(peak_bytes()))
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
