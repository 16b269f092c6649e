"""Beginning a run with finished stages of another one."""

from __future__ import annotations

import shutil
from pathlib import Path

from ihas_jax.config import Config, differences
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError
from ihas_jax.files import read_json
from ihas_jax.stages.run import Run, read_seconds, write_seconds
from ihas_jax.stages.workdir import fingerprint, open_workdir, read_config

_BASE = ("model.", "optimizer.", "train.", "seed:")
_NOT_SEARCH = ("cluster.", "retrain.")


def borrow(config: Config, data: Dataset, workdir: Path, source: Path) -> None:
    """Copies the base model and the search of a finished run, where they are what a run would do.

    Stages that the run has begun already are left alone, and nothing is copied from a run on
    other data.

    Args:
      config: every choice of the run.
      data: its data.
      workdir: the folder of the run.
      source: the folder of a finished run.

    Raises:
      InputError: the folder of the run can't be made, or that of the finished one holds none.
    """
    changed = differences(read_config(source), config)
    fits = {
        "base": not any(line.startswith(_BASE) for line in changed),
        "search": all(line.startswith(_NOT_SEARCH) for line in changed),
    }
    about, theirs = read_json(source / "config.json"), read_json(source / "stages.json")
    if about["data"] != fingerprint(data):
        return
    with open_workdir(config, data, workdir) as path:
        run = Run(config, data, path)
        seconds = read_seconds(run)
        for stage, same in fits.items():
            if not same or stage not in theirs or stage in seconds or (path / stage).exists():
                continue
            partial = path / f".{stage}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            try:
                shutil.copytree(source / stage, partial)
            except OSError as error:
                raise InputError(f"{source / stage} can't be copied: {error.strerror}.") from None
            partial.replace(path / stage)
            seconds[stage] = theirs[stage]
            write_seconds(run, seconds)
