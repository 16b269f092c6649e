"""Compression: from a log to the smallest click model that is about as good as the best.

Base models and teachers are trained on clicks. The best mean of teachers teaches students, which
each selection cuts to each budget. Validation rows choose among the base, what is left of the
students, and those of the pool that are smaller than the base.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ihas_jax.config import Config
from ihas_jax.config.compress import CompressConfig
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError, require_type
from ihas_jax.files import nan_to_null, null_to_nan, read_json, write_json
from ihas_jax.models import MODELS
from ihas_jax.pipeline.compression import Compression
from ihas_jax.pipeline.fit import check_rows
from ihas_jax.pipeline.present_front import METRICS, present_front
from ihas_jax.pipeline.workdir import open_run
from ihas_jax.pipeline.workers import usual_workers
from ihas_jax.processes import in_job
from ihas_jax.progress import say, warn
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages.run import Run
from ihas_jax.stages.students import FOLDER as STUDENTS
from ihas_jax.stages.students import check_cut, check_room, student_models
from ihas_jax.stages.teachers import teacher_model

_CHOICES = "compress.json"
_PROGRAMS, _COPIES = 1.5e9, 8
"""Bytes of a process with its compiled programs, and how often training holds a table at most."""
_LABELS = ("teachers", "teacher_seeds", "l2")
"""Choices on which the labels of students depend, so that a folder can't change them."""


@dataclass(frozen=True)
class Compressed:
    """The result of a compression.

    Attributes:
      metrics: the content of metrics.json.
      workdir: its folder, with metrics.json, report.md, figures/ and bundle/.
      missing: parts of the report that could not be made; the same call makes them.
    """

    metrics: dict[str, Any]
    workdir: Path
    missing: tuple[str, ...] = ()


def compress(
    config: Config,
    choices: CompressConfig,
    data: Dataset,
    workdir: str | Path,
    *,
    workers: int | None = 1,
) -> Compressed:
    """Makes the smallest click model that is about as good as the best one, in a folder.

    The same call resumes after an interruption. Other budgets, selections, students and another
    tolerance may follow in the same folder; what is trained already is not trained again.

    Args:
      config: the click model, training, the L2 term of compact models, and the seed; other values
        have no meaning here.
      choices: what is tried.
      data: an opened store or a synthetic log.
      workdir: the folder: a new one, or that of a compression with the same config and data.
      workers: the processes that train beside each other, each with one thread; None for as
        many as there are cores and memory for, up to four. They import the modules in which a
        program has registered the click models and methods, and copy a log that is in memory.

    Raises:
      InputError: the folder holds something else, a click model can't be built for the log or be
        cut, a budget has no room for a coordinate, every trial of the base model diverges, there
        are no workers, or there are several and the program itself has registered a click model,
        which they can't import.
    """
    if in_job():
        raise InputError("A compression works in one process; call it outside of ihas.joined.")
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise InputError(f"--workers must be a positive whole number, not {workers!r}.")
    require_type("config", config, Config, "Make one with ihas.preset or ihas.Config.")
    require_type("choices", choices, CompressConfig, "Make them with ihas.CompressConfig.")
    config = plain_config(config)
    check_rows(config, data)
    _check(config, choices, data)
    if workers is None:
        workers = usual_workers(_memory(config, choices, data))
    with open_run(config, data, workdir, kind="compression") as run:
        _require_same(run, choices)
        if not _is_published(run, choices):
            if (run.workdir / METRICS).exists():
                say(f"[Compress] reads back what {run.workdir} holds, and trains what is missing")
            Compression(run, choices, workers).publish()
        # the same numbers and lists as of a call that reads them back
        metrics = null_to_nan(read_json(run.workdir / METRICS))
        return Compressed(metrics, run.workdir, present_front(run, metrics))


def plain_config(config: Config) -> Config:
    """What compression takes of a config: click model, optimiser, training and seed."""
    return Config(
        method="none",
        model=config.model,
        optimizer=config.optimizer,
        train=config.train,
        seed=config.seed,
    )


def _check(config: Config, choices: CompressConfig, data: Dataset) -> None:
    """Raises: InputError: a click model can't be built or cut, or a budget has no room."""
    run = Run(config, data, Path())
    for name in choices.teachers:
        MODELS.find(name, "teachers")
        run.build(teacher_model(config, name))
    for name in choices.students:
        MODELS.find(name, "students")
    for model in student_models(config, choices):
        # of several budgets the largest must have room; the others are left out with a line
        check_room(run, model, max(choices.budget))
        if "spectral" in choices.selections:
            check_cut(run, model)


def _memory(config: Config, choices: CompressConfig, data: Dataset) -> float:
    """About the bytes that a training needs: programs, rows, and the largest model with Adam's."""
    run = Run(config, data, Path())
    models = [
        *(teacher_model(config, name) for name in choices.teachers),
        *student_models(config, choices),
    ]
    table = max(run.build(model).embedding.parameters for model in models)
    rows = sum(split.ids.nbytes + split.labels.nbytes for split in (data.train, data.valid))
    return _PROGRAMS + rows + 4 * _COPIES * table


def _require_same(run: Run, choices: CompressConfig) -> None:
    """Keeps the choices that labels depend on in the folder.

    Raises:
      InputError: the folder holds a compression with other teachers, or does not say which.
    """
    path = run.workdir / _CHOICES
    own = nan_to_null({name: asdict(choices)[name] for name in _LABELS})
    if path.exists():
        found = read_json(path, "Choose another --output.")
        for name in _LABELS:
            if found.get(name) != own[name]:
                raise InputError(
                    f"{run.workdir} holds a compression with other --{name.replace('_', '-')} "
                    f"({_listed(found.get(name))} there, {_listed(own[name])} here), from which "
                    "its models have learnt. Use the old values, or choose another --output."
                )
    elif (run.workdir / STUDENTS).exists():
        raise InputError(
            f"{run.workdir} has students, but no {_CHOICES}, which says what they have learnt "
            "from. Choose another --output."
        )
    else:
        write_json(path, own)


def _is_published(run: Run, choices: CompressConfig) -> bool:
    """Whether the folder has the numbers and the bundle of a compression with these choices."""
    path, bundle = run.workdir / METRICS, run.workdir / "bundle"
    if not path.exists() or not bundle.exists():
        return False
    try:
        load_bundle(bundle)
    except InputError:
        warn(f"{bundle} is damaged, and is made again.")
        return False
    found = read_json(path)
    # a former version wrote no "chance"
    return bool("chance" in found and found["choices"] == nan_to_null(asdict(choices)))


def _listed(values: Any) -> str:
    return " ".join(map(str, values)) if isinstance(values, list) else str(values)
