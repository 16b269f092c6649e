"""Checksums of the files of a folder, stored in the folder, by which damaged files are found.

A folder is sealed once when it is complete, or it has checksums of files that are replaced from
time to time. `checksums.json` has the CRC-32 of each file by its name. For a file that is being
replaced it has the sums of both contents, so that a process may be killed at any moment.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ihas_jax.errors import InputError

FILE = "checksums.json"
Sums = dict[str, list[int]]


def seal(folder: Path) -> None:
    """Writes the checksums of all files below a folder that is complete."""
    write(folder, {name: _sum(folder / name) for name in _names(folder)})


def write(folder: Path, sums: Mapping[str, int]) -> None:
    """Writes checksums of files below a folder, the CRC-32 of each by its name."""
    _write(folder, {name: [known] for name, known in sums.items()})


def start(folder: Path) -> None:
    """Makes a folder in which `replace` stores the checksums of the files that it writes."""
    if not (folder / FILE).exists():
        _write(folder, {})


def replace(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Writes a file, all or nothing, and its checksum if the folder has checksums.

    A `durable` one is on the disk before it gets its name, so that it outlives a power cut.
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    sums = _read(path.parent)
    if sums is not None:
        before = [_sum(path)] if path.exists() else []
        _write(path.parent, sums | {path.name: [*before, zlib.crc32(content)]})
    partial.replace(path)


def record(folder: Path, names: Iterable[str]) -> None:
    """Stores the present checksums of files, and removes those of missing files."""
    sums = _read(folder)
    if sums is None:
        return
    for name in names:
        sums.pop(name, None)
        if (folder / name).is_file():
            sums[name] = [_sum(folder / name)]
    _write(folder, sums)


def forget(folder: Path, names: Iterable[str]) -> None:
    """Removes the checksums of files that are about to be written by other means."""
    sums = _read(folder) or {}
    left = {name: known for name, known in sums.items() if name not in set(names)}
    if left != sums:
        _write(folder, left)


def intact(path: Path) -> bool:
    """Whether a file agrees with its checksum, or has none.

    Raises:
      InputError: the checksums can't be read.
    """
    sums = _read(path.parent) or {}
    return path.name not in sums or _sum(path) in sums[path.name]


def damaged(folder: Path) -> list[str] | None:
    """The names of damaged or missing files of a folder; None if it has no checksums.

    Raises:
      InputError: the checksums can't be read.
    """
    if _read(folder) is None:
        return None
    return [name for name, whole in compare(folder) if not whole]


def compare(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yields the name of each file that has a checksum, and whether it is there and agrees.

    Raises:
      InputError: the checksums can't be read.
    """
    for name, known in (_read(folder) or {}).items():
        yield name, (folder / name).is_file() and _sum(folder / name) in known


def _names(folder: Path) -> list[str]:
    """All files below a folder except checksums and the content of folders with checksums."""
    names: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not (path / FILE).exists():
            names += [f"{path.name}/{name}" for name in _names(path)]
        elif path.is_file() and FILE not in path.name:
            names.append(path.name)
    return names


def _sum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while part := file.read(1 << 24):
            total = zlib.crc32(part, total)
    return total


def _read(folder: Path) -> Sums | None:
    path = folder / FILE
    try:
        found = json.loads(path.read_bytes())
        # checkpoints of earlier versions have a number in place of a list
        return {n: [s] if isinstance(s, int) else [*map(int, s)] for n, s in found.items()}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged ({error}), so the files beside it can't be checked. Delete it if "
            "you trust them."
        ) from None


def _write(folder: Path, sums: Mapping[str, list[int]]) -> None:
    partial = folder / f".{FILE}.partial"
    partial.write_text(json.dumps(sums), encoding="utf-8")
    partial.replace(folder / FILE)
