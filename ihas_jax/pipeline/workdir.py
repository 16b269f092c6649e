"""The folder of a run: made for one config and one data set, and kept to them."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ihas_jax import checksums
from ihas_jax.config import Config, ModelConfig, differences, from_json, to_json
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, disk_error
from ihas_jax.files import lock_folder, read_json, write_json
from ihas_jax.serving.storage import VERSION, require_version
from ihas_jax.stages.run import Run
from ihas_jax.training.checkpoint import require_utf8

_ABOUT = "config.json"
_UNFINISHED = {
    name if whole else f".{name}.partial"
    for name in ("schema.json", checksums.FILE, _ABOUT)
    for whole in (True, False)
}
"""What a run that was killed while it made its folder may leave there."""
_FREE = ("train.checkpoint_seconds", "train.device_data_gb")
"""Values that may change between a run and its resumption: they do not touch its numbers."""


@dataclass(frozen=True)
class About:
    """What `config.json` says of the run in a folder.

    Attributes:
      config: every choice of the run.
      data: the fingerprint of its data.
      searched_by: the click model that was searched, where another run did it.
    """

    config: Config
    data: str
    searched_by: ModelConfig | None = None


@contextmanager
def open_run(
    config: Config, data: Dataset, workdir: str | Path, searched_by: ModelConfig | None = None
) -> Iterator[Run]:
    """Makes the folder, or checks that it is a run of this config and data; keeps others out.

    Args:
      config: every choice of the run.
      data: its data.
      workdir: the folder.
      searched_by: the click model that was searched, where another run did it; a folder that is
        there remembers it.

    Raises:
      InputError: its name is not UTF-8, or it exists and is no run, or is one of another config
        or other data (the message says which values differ), or can't be made, or another
        process is at work there.
    """
    path = Path(workdir).resolve()
    require_utf8(path)
    about = About(config, fingerprint(data), searched_by)
    if path.exists() and not (path / _ABOUT).exists() and not _left_by_a_killed_start(path):
        raise InputError(
            f"{path} exists and is not a run: it has no {_ABOUT}. Nothing was changed; choose "
            "another --output."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle = lock_folder(path)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        if (path / _ABOUT).exists():
            searched_by = _compare(path, about)
        else:
            _start(path, about, data)
        yield Run(config, data, path, searched_by)
    except OSError as error:  # of whatever a stage writes
        if problem := disk_error(error, path):
            raise problem from None
        raise
    finally:
        os.close(handle)


def read_about(path: Path, remedy: str = "Choose another folder.") -> About:
    """What a run's folder says of it.

    Raises:
      InputError: the folder holds no run, or one of another version, or one that can't be read.
    """
    found = read_json(path / _ABOUT, remedy)
    require_version(path, found)
    try:
        searched = found["searched_by"]
        return About(
            from_json(Config, found["config"]),
            found["data"],
            None if searched is None else from_json(ModelConfig, searched),
        )
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / _ABOUT} can't be read ({error}). {remedy}") from None


def _start(path: Path, about: About, data: Dataset) -> None:
    """Writes the first files of a run."""
    try:
        data.schema.save(path / "schema.json")
        checksums.start(path)
        checksums.record(path, ["schema.json"])
        content = {
            "version": VERSION,
            "config": to_json(about.config),
            "data": about.data,
            "searched_by": None if about.searched_by is None else to_json(about.searched_by),
        }
        write_json(path / _ABOUT, content)
    except OSError as error:
        raise _unusable(path, error) from None


def _compare(path: Path, new: About) -> ModelConfig | None:
    """The click model that another run searched for the run in a folder.

    Raises:
      InputError: the folder is a run of another config or other data.
    """
    old = read_about(path, "Choose another --output.")
    if changed := differences_that_matter(old.config, new.config):
        message = f"{path} holds a run of another config: {'; '.join(changed)}."
        if old.config.model.name != new.config.model.name and old.searched_by is None:
            raise InputError(
                f"{message} Choose another --output for a run of {new.config.model.name} by its "
                f"own search; add --searched-by {path} there for one by the search of "
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


def differences_that_matter(old: Config, new: Config) -> list[str]:
    """The values in which two configs differ, but for those that touch no number of a run."""
    return [line for line in differences(old, new) if not line.startswith(_FREE)]


def _left_by_a_killed_start(path: Path) -> bool:
    return path.is_dir() and _UNFINISHED.issuperset(file.name for file in path.iterdir())


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path} can't be made or written: {error.strerror}. Choose another --output."
    )


def fingerprint(data: Dataset) -> str:
    """Rows, fields, values and a checksum of the validation rows: tells data sets apart."""
    rows = sum(len(split.labels) for split in (data.train, data.valid, data.test))
    checksum = zlib.crc32(np.ascontiguousarray(data.valid.labels).data)
    checksum = zlib.crc32(np.ascontiguousarray(data.valid.ids).data, checksum)
    sizes = data.schema.sizes
    return f"{rows} rows, {len(sizes)} fields, {sum(sizes)} values, checksum {checksum:08x}"
