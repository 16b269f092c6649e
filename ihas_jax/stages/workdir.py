"""The folder of a run: made for one config and one data set, and kept to them."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ihas_jax import checksums
from ihas_jax.config import Config, ModelConfig, differences, from_json, to_json
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, disk_error
from ihas_jax.files import lock_folder, read_json, write_json
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


@contextmanager
def open_workdir(
    config: Config, data: Dataset, workdir: str | Path, *, searched: ModelConfig | None = None
) -> Iterator[Path]:
    """Makes the folder, or checks that it is a run of this config and data; keeps others out.

    Args:
      config: every choice of the run.
      data: its data.
      workdir: the folder.
      searched: the click model whose gates serve the run's, in the folder of a transfer.

    Raises:
      InputError: its name is not UTF-8, or it exists and is no run, or is one of another config
        or other data (the message says which values differ), or can't be made, or another
        process is at work there.
    """
    path = Path(workdir).resolve()
    require_utf8(path)
    about = path / _ABOUT
    identity = fingerprint(data)
    if path.exists() and not about.exists() and not _left_by_a_killed_start(path):
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
        if about.exists():
            _compare(path, about, config, identity, searched)
        else:
            try:
                data.schema.save(path / "schema.json")
                checksums.start(path)
                checksums.record(path, ["schema.json"])
                content = {"config": to_json(config), "data": identity}
                content |= {"searched": to_json(searched)} if searched else {}
                write_json(about, content)
            except OSError as error:
                raise _unusable(path, error) from None
        yield path
    except OSError as error:  # of whatever a stage writes
        if problem := disk_error(error, path):
            raise problem from None
        raise
    finally:
        os.close(handle)


def read_config(path: Path) -> Config:
    """The config of the run in a folder.

    Raises:
      InputError: it holds no run, or one whose config can't be read.
    """
    about = path / _ABOUT
    found = read_json(about, "Choose another folder.")
    try:
        return from_json(Config, found["config"])
    except (ValueError, KeyError, TypeError, InputError) as error:
        raise InputError(f"{about} can't be read ({error}); choose another folder.") from None


def _compare(
    path: Path, about: Path, config: Config, fresh_data: str, searched: ModelConfig | None
) -> None:
    """Raises: InputError: the folder is a run of another kind, config or data."""
    found = read_json(about, "Choose another --output.")
    try:
        old, old_data = from_json(Config, found["config"]), found["data"]
    except (ValueError, KeyError, TypeError, InputError) as error:
        raise InputError(f"{about} can't be read ({error}); choose another --output.") from None
    if "searched" in found and searched is None:
        raise InputError(
            f"{path} holds {old.model.name} by the gates of another run; to go on with it pass "
            f"that run's folder, {path.parent.parent}, as --output."
        )
    if searched is not None and found.get("searched") != to_json(searched):
        raise InputError(f"{path} holds {old.model.name} by other gates; remove that folder.")
    changed = differences_that_matter(old, config)
    if changed:
        remedy = "remove that folder" if searched else "choose another --output"
        raise InputError(
            f"{path} holds a run of another config: {'; '.join(changed)}. Use the old values to "
            f"go on with it, or {remedy}."
        )
    if old_data != fresh_data:
        raise InputError(
            f"{path} holds a run on other data ({old_data} there, {fresh_data} here). Use "
            "the same --data to go on with it, or choose another --output."
        )


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
