"""Whether files stay as they were while they are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def file_versions(paths: Iterable[Path]) -> list[tuple[int, ...] | None]:
    """What tells two states of files apart; None for a missing one, for its reader to name."""
    stats = [path.stat() if path.exists() else None for path in paths]
    return [stat and (stat.st_size, stat.st_mtime_ns, stat.st_ino) for stat in stats]
