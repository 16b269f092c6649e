"""Runs a script as `python peak.py SCRIPT ARGUMENTS` and prints its peak resident bytes at the end.

A parent can't read that from `getrusage`: what the parent itself held when it forked counts there.
"""

from __future__ import annotations

import atexit
import runpy
import sys
from pathlib import Path


def print_peak() -> None:
    """Prints the largest resident memory of this process so far (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    print(int(peak) * 1024)


if __name__ == "__main__":
    atexit.register(print_peak)
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
