"""Reuse of finished stages of another run."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from ihas_jax.config import Config, ModelConfig
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError
from ihas_jax.files import read_json
from ihas_jax.nn.compact import carry_kept
from ihas_jax.pipeline.about import differences_that_matter, read_about
from ihas_jax.pipeline.chain import SECONDS, read_seconds, write_seconds
from ihas_jax.pipeline.same import same_stages, same_teachers
from ihas_jax.pipeline.workdir import fingerprint, open_run
from ihas_jax.processes import by_first
from ihas_jax.stages.lessons import FOLDER as TEACH
from ihas_jax.stages.plans import retrains
from ihas_jax.stages.run import Run

_SEARCHED = ("search", "choose")


def require_search(config: Config, data: Dataset, source: str | Path) -> ModelConfig:
    """The click model whose search in the folder `source` can serve a run (paper Table 3).

    Raises:
      InputError: there is no such run; it differs in more than the model, or in its data; it has
        not made its plan yet; or the plan does not fit the model.
    """
    path = Path(source).resolve()
    about = read_about(path, "Pass the folder of a run as --searched-by.")
    changed = differences_that_matter(about.config, config)
    if others := [line for line in changed if not line.startswith("model.")]:
        raise InputError(
            f"--searched-by {path} is a run of another config: {'; '.join(others)}. Its search "
            "can serve only runs that differ in the model alone; pass the values of that run."
        )
    if about.data != fingerprint(data):
        raise InputError(
            f"--searched-by {path} is a run on other data ({about.data} there, "
            f"{fingerprint(data)} here). Pass the same --data."
        )
    if missing := [stage for stage in _SEARCHED if stage not in _finished(path)]:
        raise InputError(
            f"--searched-by {path} is a run that has not finished its stage '{missing[0]}' yet. "
            "Finish that run first."
        )
    searched = about.searched_by or about.config.model
    _require_fit(config, data, path, searched)
    if not retrains(path):
        raise InputError(
            f"--method {config.method} serves its searched model, so the search of {searched.name} "
            f"can't serve {config.model.name}. Leave --searched-by out."
        )
    return searched


def _require_fit(config: Config, data: Dataset, path: Path, searched: ModelConfig) -> None:
    """Raises: InputError: the selection of the searched model does not fit the model of the run."""
    ours = config.model
    if searched.dim != ours.dim:
        raise InputError(
            f"{searched.name} was searched with --model.dim {searched.dim}, and {ours.name} with "
            f"--model.dim {ours.dim} can't keep the same coordinates. Choose {searched.dim}."
        )
    run = Run(config, data, path, searched)
    if run.selector is None:
        raise InputError("--method none has no search; leave --searched-by out.")
    try:
        carry_kept((), run.searched_model.embedding, run.model.embedding)
    except ValueError as error:
        raise InputError(
            f"The coordinates that {searched.name} keeps can't serve {ours.name}: {error}. Search "
            "a model with one vector for each field, such as dnn, or leave --searched-by out for a "
            f"run of {ours.name} by its own search."
        ) from None
    if run.searched_model != run.model and run.start not in ("fresh", "tables"):
        raise InputError(
            f"--method {config.method} retrains from weights of the searched model, so the search "
            f"of {searched.name} can't serve {ours.name}. Leave --searched-by out."
        )


def copy_search(run: Run, source: str | Path) -> None:
    """Copies search and choice of another run, and its teachers if they are those of this run.

    Raises:
      InputError: a folder can't be copied.
    """
    same = same_teachers(read_about(Path(source)).config, run.config)
    copy_stages(run, source, (*_SEARCHED, TEACH) if same else _SEARCHED)


@by_first
def copy_stages(run: Run, source: str | Path, stages: Iterable[str]) -> None:
    """Copies finished stages of another run.

    Stages that the run has already begun are not copied, nor are checkpoints of teachers, whose
    predictions are all that a run needs.

    Raises:
      InputError: a folder can't be copied.
    """
    path = Path(source)
    theirs, seconds = _finished(path), read_seconds(run)
    for stage in stages:
        if stage not in theirs or stage in seconds or (run.workdir / stage).exists():
            continue
        partial = run.workdir / f".{stage}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            shutil.copytree(path / stage, partial, ignore=_folders if stage == TEACH else None)
        except OSError as error:
            raise InputError(f"{path / stage} can't be copied: {error.strerror}.") from None
        partial.replace(run.workdir / stage)
        seconds[stage] = theirs[stage]
        write_seconds(run, seconds)


def reuse_stages(config: Config, data: Dataset, workdir: Path, source: Path) -> None:
    """Copies base model, teachers and search of a finished run, if this run would train the same.

    Nothing is copied from a run on other data.

    Args:
      config: every choice of the run.
      data: the log.
      workdir: the folder of the run.
      source: the folder of a finished run.

    Raises:
      InputError: the folder of the run can't be made, or `source` holds no run.
    """
    about = read_about(source)
    if about.data != fingerprint(data):
        return
    with open_run(config, data, workdir) as run:
        copy_stages(run, source, same_stages(about, run))


def _folders(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_dir()]


@by_first
def _finished(path: Path) -> dict[str, float]:
    """Seconds of the finished stages of the run in a folder."""
    return read_json(path / SECONDS) if (path / SECONDS).exists() else {}
