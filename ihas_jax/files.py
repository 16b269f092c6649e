"""Files that are written all or nothing, JSON without nan, the lock of a folder, fingerprints."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ihas_jax import checksums
from ihas_jax.errors import InputError

_DELETE = "Delete it: the same command makes it again from the checkpoints."


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON as `write_text` writes text, with null for nan and infinity."""
    write_text(path, json.dumps(nan_to_null(content), indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Writes a file of UTF-8, all or nothing, and its checksum if the folder has checksums.

    A `durable` one is on the disk before it gets its name, so that it outlives a power cut.
    """
    checksums.replace(path, text.encode(), durable=durable)


def read_json(path: Path, remedy: str = _DELETE) -> dict[str, Any]:
    """Reads an object that `write_json` wrote.

    Args:
      path: The file.
      remedy: A sentence for the error message that says what the user can do.

    Raises:
      InputError: The file can't be read, or is not what was written.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            problem = "it holds no object"
        elif not checksums.intact(path):
            problem = "it has another checksum than when it was written"
        else:
            return content
    except (OSError, ValueError) as error:
        problem = str(error)
    raise InputError(f"{path} can't be read ({problem}). {remedy}")


def nan_to_null(content: Any) -> Any:
    """Content with null for nan (the AUC of one class, say) and infinity, which JSON lacks."""
    if isinstance(content, dict):
        return {name: nan_to_null(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [nan_to_null(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def null_to_nan(content: Any) -> Any:
    """Content of numbers as it was before `nan_to_null`: nan for each null."""
    if isinstance(content, dict):
        return {name: null_to_nan(value) for name, value in content.items()}
    if isinstance(content, list):
        return [null_to_nan(value) for value in content]
    return math.nan if content is None else content


def lock_folder(folder: Path) -> int:
    """Keeps other processes out of a folder until its handle is closed, or the process ends.

    Returns:
      The handle of the folder, for `os.close`.

    Raises:
      InputError: Another process has the lock.
      OSError: The folder can't be opened or locked.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # the process that had the lock until now may have renamed or removed the folder
        if os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(handle)
        raise
    os.close(handle)
    raise InputError(
        f"Another process is at work in {folder}. Wait until it has ended, or choose another "
        "--output."
    )


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprints(paths: Iterable[Path]) -> list[tuple[int, ...] | None]:
    """Size, time of change and inode of each file, which tell whether a file was changed.

    A missing file has None, so that its reader can name it.
    """
    stats = [path.stat() if path.exists() else None for path in paths]
    return [stat and (stat.st_size, stat.st_mtime_ns, stat.st_ino) for stat in stats]
