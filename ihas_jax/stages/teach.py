"""The teaching stage: what teachers predict of the training rows, as labels for later stages.

A student of an ensemble learns its mean prediction in place of clicks (Hinton et al. 2015,
arXiv 1503.02531; of click models Zhu et al., "Ensembled CTR Prediction via Knowledge Distillation",
CIKM 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import jax
import numpy as np

from ihas_jax.errors import InputError
from ihas_jax.selectors.registry import METHODS
from ihas_jax.stages.base import fresh_state, model_task, train_runs
from ihas_jax.stages.lessons import (
    FOLDER,
    Speaker,
    Taught,
    has_predictions,
    read_lessons,
    start_folder,
    write_predictions,
)
from ihas_jax.stages.run import Run
from ihas_jax.stages.teachers import Teacher, teach_after_search, teachers_of
from ihas_jax.training.task import Trained


def teach(runs: Sequence[Run], own: Mapping[str, Sequence[Speaker]]) -> list[Taught]:
    """Trains the teachers of runs that differ in their seed alone, and reads what they predict.

    Predictions are files of the run: a teacher that has them is neither trained nor asked again.
    On an accelerator the seeds of a model train side by side if the rows stay on the device.

    Args:
      runs: the runs.
      own: the models that the runs train anyway, by the name of the teacher, one for each run.
    """
    for run in runs:
        start_folder(run)
    for i, run in enumerate(runs):
        for name, speakers in own.items():
            if not has_predictions(run, name):
                write_predictions(run, name, [speakers[i]], [], 0.0)
    together = _train_side_by_side(runs[0])
    trained = [teacher for teacher in teachers_of(runs[0].config) if teacher.model is not None]
    for _, same in groupby(trained, lambda t: t.model if together else t.name):
        pairs = [(run, teacher) for teacher in same for run in runs]
        _teach_together([(run, t) for run, t in pairs if not has_predictions(run, t.name)])
    return [read_lessons(run) for run in runs]


def _train_side_by_side(run: Run) -> bool:
    """Whether the seeds of a teacher train at once: on a CPU that is no faster."""
    return jax.default_backend() != "cpu" and run.resident


def check_teachers(run: Run) -> None:
    """Checks the teachers of a run before anything is trained.

    Raises:
      InputError: a teacher is unknown or can't be built for the log, there are more folds than
        training rows, or the searched model is a teacher but is not trained or not retrained.
    """
    teachers, config = teachers_of(run.config), run.config.retrain
    for model in {teacher.model for teacher in teachers if teacher.model is not None}:
        try:
            run.build(model)
        except InputError as error:
            raise InputError(f"--retrain.teachers {model.name} can't be built. {error}") from None
    rows = len(run.data.train.labels)
    if teachers and not 2 * config.teacher_folds <= max(rows, 2):
        raise InputError(
            f"--retrain.teacher-folds {config.teacher_folds} is too many for {rows} training rows."
        )
    if not teach_after_search(run.config) or run.selector is None:
        return
    recipe, method = run.selector.recipe, run.config.method
    if METHODS.find(method).serves_searched:
        raise InputError(
            f"--method {method} serves its searched model, which is not retrained, so that model "
            "can't be a teacher. Leave search out of --retrain.teachers."
        )
    if recipe.epochs == 0 and not run.config.search.pretrain_epochs:
        raise InputError(
            f"--method {method} trains no searched model that could teach. Leave search out of "
            "--retrain.teachers."
        )


def fold_rows(run: Run, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Training rows outside of one of `retrain.teacher_folds` random parts, and those in it."""
    folds, rows = run.config.retrain.teacher_folds, len(run.data.train.labels)
    rng = np.random.Generator(np.random.Philox(run.seed(f"{FOLDER}/folds")))
    own = rng.permutation(rows).astype(np.int32) % folds == fold
    return np.flatnonzero(~own).astype(np.int32), np.flatnonzero(own).astype(np.int32)


def _teach_together(pairs: Sequence[tuple[Run, Teacher]]) -> None:
    """Trains teachers of one click model side by side, and writes what they predict."""
    if not pairs:
        return
    folds = range(pairs[0][0].config.retrain.teacher_folds)
    parts = [_train(pairs, fold if len(folds) > 1 else None) for fold in folds]
    for (run, teacher), *found in zip(pairs, *parts, strict=True):
        history = [facts for trained, _ in found for facts in trained.history]
        seconds = sum(trained.seconds for trained, _ in found)
        write_predictions(run, teacher.name, [speaker for _, speaker in found], history, seconds)


def _train(pairs: Sequence[tuple[Run, Teacher]], fold: int | None) -> list[tuple[Trained, Speaker]]:
    """Trains teachers on the rows outside of a fold, to predict those in it; or on all rows."""
    runs, tasks, states, asked = [], [], [], []
    for run, teacher in pairs:
        assert teacher.model is not None
        name, model = f"{FOLDER}/{teacher.name}", run.build(teacher.model)
        seen, unseen = (None, None) if fold is None else fold_rows(run, fold)
        name = name if fold is None else f"{name}/fold_{fold}"
        runs.append(run)
        tasks.append(model_task(run, name, model, rows=seen))
        states.append(fresh_state(run, name, model))
        asked.append((model, unseen))
    trained = train_runs(runs, tasks, states)
    return [
        (found, Speaker(model, found.variables, rows=rows))
        for found, (model, rows) in zip(trained, asked, strict=True)
    ]
