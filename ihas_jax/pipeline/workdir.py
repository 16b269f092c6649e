"""The folder of a run, which belongs to one config and one data set."""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ihas_jax import checksums
from ihas_jax.config import Config, ModelConfig, differences
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, as_path, disk_error
from ihas_jax.files import lock_folder
from ihas_jax.interrupts import RESUME
from ihas_jax.pipeline.about import (
    ABOUT,
    About,
    Kind,
    differences_that_matter,
    read_about,
    write_about,
)
from ihas_jax.processes import agreed, by_first, every, in_job, is_first, odd_one
from ihas_jax.programs import kept_programs
from ihas_jax.stages.run import Run
from ihas_jax.training.checkpoint import require_utf8

_UNFINISHED = {
    name if whole else f".{name}.partial"
    for name in (checksums.FILE, ABOUT)
    for whole in (True, False)
}
"""Files that a run may leave if it is killed while it makes its folder."""
_SEEN_SECONDS = 60.0
"""How long a file may take to be seen on another machine."""


@contextmanager
def open_run(
    config: Config,
    data: Dataset,
    workdir: str | Path,
    searched_by: ModelConfig | None = None,
    *,
    kind: Kind = "run",
) -> Iterator[Run]:
    """Makes the folder of a run, or checks that it holds this config and data; locks it.

    Programs that are compiled while the block runs are kept as `train.programs` says.

    Args:
      config: every choice of the run.
      data: the log.
      workdir: the folder.
      searched_by: the click model that another run searched, if any; an existing folder knows it.
      kind: what the folder is for.

    Raises:
      InputError: the name of the folder is not UTF-8; the folder holds something else, or a run of
        another config or other data (the message says which values differ); it can't be made; or
        another process is at work in it.
    """
    path = as_path(workdir, "Name the folder of the run.").resolve()
    require_utf8(path)
    about = About(config, fingerprint(data), searched_by, kind)
    _require_alike(about)
    handle, searched_by = _open(path, about)
    try:
        _require_seen(path)
        with kept_programs(config.train.programs):
            yield Run(config, data, path, searched_by)
    except OSError as error:  # from any file that a stage writes
        if problem := disk_error(error, path, RESUME):
            raise problem from None
        raise
    finally:
        if is_first():
            os.close(handle)


@by_first
def _open(path: Path, about: About) -> tuple[int, ModelConfig | None]:
    """Makes or checks a folder; returns the handle of its lock and whose search the run has."""
    if path.exists() and not (path / ABOUT).exists() and not _left_by_a_killed_start(path):
        raise InputError(
            f"{path} exists and is not a run: it has no {ABOUT}. Nothing was changed; choose "
            "another --output."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle = lock_folder(path)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        if (path / ABOUT).exists():
            return handle, _compare(path, about)
        _start(path, about)
    except BaseException:
        os.close(handle)
        raise
    return handle, about.searched_by


def _require_alike(about: About) -> None:
    """Raises: InputError: processes of a job were started with other choices or other data."""
    if found := odd_one(about):
        number, first, other = found
        lines = differences(first.config, other.config)
        lines = lines or [f"{first.data} in process 0, {other.data} there"]
        raise InputError(
            f"Process {number} has other choices or data than process 0: {'; '.join(lines)}. "
            "Start all processes by the same command."
        )


def _require_seen(path: Path) -> None:
    """Raises: InputError: a process of a job does not see what the first one wrote."""
    if not in_job():
        return
    written = agreed(lambda: (path / ABOUT).read_bytes())
    end = time.monotonic() + _SEEN_SECONDS
    while not (seen := _reads(path / ABOUT, written)) and time.monotonic() < end:
        time.sleep(0.1)
    for number, one in enumerate(every(seen)):
        if not one:
            raise InputError(
                f"Process {number} does not see what process 0 wrote into {path}. The processes of "
                "a job need an --output on a file system that all of them share."
            )


def _reads(path: Path, written: bytes) -> bool:
    try:
        return path.read_bytes() == written
    except OSError:
        return False


def start_from(source: Path, target: Path, parts: Sequence[Path]) -> None:
    """Starts the folder of a run with the config and data of another one, from parts of it.

    Nothing is done where the folder is there.

    Args:
      source: the folder of the other run.
      target: the new folder.
      parts: the folders in it that are copied.
    """
    if target.exists():
        return
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    checksums.start(part)
    for folder in parts:
        shutil.copytree(folder, part / folder.relative_to(source))
    checksums.replace(part / ABOUT, (source / ABOUT).read_bytes())
    part.rename(target)


def _start(path: Path, about: About) -> None:
    """Writes the first files of a run."""
    try:
        checksums.start(path)
        write_about(path, about)
    except OSError as error:
        raise _unusable(path, error) from None


def _compare(path: Path, new: About) -> ModelConfig | None:
    """The click model that another run searched for the run in a folder.

    Raises:
      InputError: the folder is a run of another config or other data.
    """
    old = read_about(path, "Choose another --output.")
    if old.kind != new.kind:
        raise InputError(f"{path} holds a {old.kind}, not a {new.kind}. Choose another --output.")
    changed = differences_that_matter(old.config, new.config)
    if old.kind == "cut" and (changed or old.data != new.data):
        raise InputError(f"{path} holds cuts of another run. Choose another --output.")
    if changed:
        message = f"{path} holds a run of another config: {'; '.join(changed)}."
        own = old.searched_by is None and "none" not in (old.config.method, new.config.method)
        if own and old.config.model.name != new.config.model.name:
            raise InputError(
                f"{message} Choose another --output for a run of {new.config.model.name} by its "
                f"own search; add --searched-by {path} to that command for a run by the search of "
                f"{old.config.model.name}."
            )
        raise InputError(f"{message} Use the old values to resume it, or choose another --output.")
    if old.data != new.data:
        raise InputError(
            f"{path} holds a run on other data ({old.data} there, {new.data} here). Use "
            "the same --data to resume it, or choose another --output."
        )
    if new.searched_by is not None and new.searched_by != old.searched_by:
        whose = "its own search" if old.searched_by is None else "another search"
        raise InputError(
            f"{path} holds a run of {old.config.model.name} by {whose}; choose another --output."
        )
    return old.searched_by


def _left_by_a_killed_start(path: Path) -> bool:
    return path.is_dir() and _UNFINISHED.issuperset(file.name for file in path.iterdir())


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} can't be made or written: {error.strerror}. Choose another --output."
    )


def fingerprint(data: Dataset) -> str:
    """Text that tells data sets apart: rows, fields, values, checksum of the validation rows."""
    rows = sum(len(split.labels) for split in (data.train, data.valid, data.test))
    checksum = zlib.crc32(np.ascontiguousarray(data.valid.labels).data)
    checksum = zlib.crc32(np.ascontiguousarray(data.valid.ids).data, checksum)
    sizes = data.schema.sizes
    return f"{rows} rows, {len(sizes)} fields, {sum(sizes)} values, checksum {checksum:08x}"
