"""What teachers predict, as files of a run, and the labels that students learn of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from ihas_jax import checksums
from ihas_jax.config.training import TeacherMean
from ihas_jax.errors import InputError
from ihas_jax.files import read_json, write_json
from ihas_jax.models.base import Model, Variables, count_parameters
from ihas_jax.models.forward import Transform
from ihas_jax.models.predict import predictor
from ihas_jax.processes import agreed, by_first, is_first
from ihas_jax.progress import warn
from ihas_jax.stages.run import Run
from ihas_jax.stages.teachers import teachers_of

FOLDER = "teach"
"""The folder of the teaching stage: predictions, facts and checkpoints of each teacher."""
_CHUNK_ROWS = 1 << 20
_EDGE = 1e-7
History = list[dict[str, float]]
Part = tuple[slice | np.ndarray, np.ndarray]
"""Rows of a split, and numbers that are added to theirs."""


class Speaker(NamedTuple):
    """A trained model that teaches.

    Attributes:
      model: the click model.
      variables: the variables of the model.
      transform: the deterministic selection of a searched model; None otherwise.
      rows: the training rows that it predicts; None for all.
    """

    model: Model
    variables: Variables
    transform: Transform | None = None
    rows: np.ndarray | None = None


class Taught(NamedTuple):
    """The result of the teaching stage.

    Attributes:
      labels: `[n]` float32, what students learn of the training rows.
      test: `[m]` float64, the mean prediction of the test rows.
      parameters: number of parameters of all teachers together.
      histories: epochs of each training, by the name of the teacher.
      seconds: time of training and prediction.
    """

    labels: np.ndarray
    test: np.ndarray
    parameters: int
    histories: dict[str, History]
    seconds: float


@by_first
def start_folder(run: Run) -> None:
    """Makes the folder of the teaching stage."""
    (run.workdir / FOLDER).mkdir(exist_ok=True)
    checksums.start(run.workdir / FOLDER)


def write_predictions(
    run: Run, name: str, speakers: Sequence[Speaker], history: History, seconds: float
) -> None:
    """Writes what a teacher predicts of training and test rows, and its facts at the end."""
    start, data = time.monotonic(), run.data
    train, test, facts = _files(run, name)
    title = f"[{FOLDER}] {name}"

    def predicted(ids: np.ndarray, speaker: Speaker, rows: np.ndarray | None) -> Iterator[Part]:
        program = predictor(speaker.model, speaker.transform)
        for part, found in program.chunks(speaker.variables, ids, title=title, rows=rows):
            yield part if rows is None else rows[part], found.probs

    def of_training() -> Iterator[Part]:
        for speaker in speakers:
            yield from predicted(data.train.ids, speaker, speaker.rows)

    def of_test() -> Iterator[Part]:
        for speaker in speakers:
            for place, probs in predicted(data.test.ids, speaker, None):
                yield place, probs / len(speakers)

    _write(train, len(data.train.labels), of_training())
    _write(test, len(data.test.labels), of_test())
    content = {
        "parameters": sum(count_parameters(speaker.variables.params) for speaker in speakers),
        "history": history,
        "seconds": seconds + time.monotonic() - start,
    }
    agreed(lambda: write_json(facts, content))


def _write(path: Path, rows: int, parts: Iterator[Part]) -> None:
    """Writes sums over parts as a float32 file that can be mapped, all or nothing."""
    partial = path.with_name(f".{path.name}.partial")
    probs = np.zeros(rows, np.float32)
    if is_first():
        probs = np.lib.format.open_memmap(partial, "w+", np.float32, (rows,))
    for place, found in parts:
        probs[place] += found
    if not np.isfinite(probs).all():
        raise InputError(
            f"A prediction of the teacher {path.name.partition('.')[0]} is not a number. Leave the "
            "teacher out, or try a smaller --optimizer.learning-rate, with a new --output."
        )

    def keep() -> None:
        cast(np.memmap, probs).flush()
        checksums.forget(path.parent, [path.name])
        partial.replace(path)
        checksums.record(path.parent, [path.name])

    agreed(keep)


@by_first
def has_predictions(run: Run, name: str) -> bool:
    """Whether a teacher has undamaged predictions."""
    *arrays, facts = _files(run, name)
    if not facts.exists():
        return False
    damaged = [path for path in arrays if not (path.exists() and checksums.intact(path))]
    for path in damaged:
        warn(f"[{FOLDER}] {path} is missing or damaged; the teacher predicts again.")
    return not damaged


def _files(run: Run, name: str) -> tuple[Path, Path, Path]:
    """The files of a teacher: predictions of training and test rows, and facts."""
    folder = run.workdir / FOLDER
    return folder / f"{name}.train.npy", folder / f"{name}.test.npy", folder / f"{name}.json"


@by_first
def read_lessons(run: Run, names: Sequence[str] | None = None) -> Taught:
    """The labels of students, and what the teachers are.

    Args:
      run: the run.
      names: the teachers whose predictions count, once for each time that they are named; by
        default those of the config.
    """
    config = run.config.retrain
    if names is None:
        names = [teacher.name for teacher in teachers_of(run.config)]
    files = [_files(run, name) for name in names]
    train, test = ([np.load(file[i], mmap_mode="r") for file in files] for i in range(2))
    clicks = run.data.train.labels
    labels = np.empty(len(clicks), np.float32)
    for first in range(0, len(clicks), _CHUNK_ROWS):
        part = slice(first, first + _CHUNK_ROWS)
        mean = mean_prediction([probs[part] for probs in train], config.teacher_mean)
        labels[part] = blend(clicks[part], mean, config.teacher_weight)
    facts = {name: read_json(file[2]) for name, file in zip(names, files, strict=True)}
    return Taught(
        labels,
        mean_prediction(test, config.teacher_mean),
        sum(about["parameters"] for about in facts.values()),
        {name: about["history"] for name, about in facts.items() if about["history"]},
        sum(about["seconds"] for about in facts.values()),
    )


def mean_prediction(probs: Sequence[np.ndarray], kind: TeacherMean) -> np.ndarray:
    """Mean `[n]` of the teachers' probabilities `[n]`, or the probability of mean log-odds."""
    stacked = np.stack(probs).astype(np.float64)
    if kind == "probability":
        return stacked.mean(axis=0)
    inside = np.clip(stacked, _EDGE, 1 - _EDGE)
    return 1 / (1 + np.exp(-np.log(inside / (1 - inside)).mean(axis=0)))


def blend(clicks: np.ndarray, probs: np.ndarray, weight: float) -> np.ndarray:
    """Labels `[n]` of students: `weight` parts of the teachers, the rest of the clicks."""
    return (1 - weight) * clicks + weight * probs
