"""Small disks that are full or read-only while a run is in one of its stages."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.trials import Lab, one_paragraph


def starve(lab: Lab, disk: Path, stage: str) -> str:
    """Begins a stage on a disk without any space; returns what is wrong with its end."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    code, _, stderr = lab.run("ihas", disk / "run", "--stage", stage)
    filler.unlink()
    return "" if one_paragraph(code, stderr) else f"exit code {code}: {stderr[-500:]}"


@contextlib.contextmanager
def tmpfs(place: Path, options: str) -> Iterator[str]:
    """Mounts a file system in memory; yields why that is impossible, or nothing."""
    place.mkdir(exist_ok=True)
    refused = mount("-t", "tmpfs", "-o", options, "tmpfs", str(place))
    try:
        yield refused and f"a tmpfs can't be mounted here ({refused})"
    finally:
        if not refused:
            subprocess.run(["umount", str(place)], check=True)


def mount(*arguments: str) -> str:
    """Calls `mount`; returns why it failed, or nothing."""
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip()
