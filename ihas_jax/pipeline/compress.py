"""Compression: from a log to the smallest click model that is as good as the best one.

Base models and teachers are trained on clicks. The best mean of teachers teaches full-size
students, which each selection cuts to each budget. Validation rows choose.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ihas_jax import checksums
from ihas_jax.config import Config, ModelConfig
from ihas_jax.config.compress import CompressConfig
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError
from ihas_jax.files import nan_to_null, read_json, write_json
from ihas_jax.models import MODELS
from ihas_jax.pipeline.fit import check_rows
from ihas_jax.pipeline.plugins import modules_of
from ihas_jax.pipeline.present_front import METRICS, present_front
from ihas_jax.pipeline.walk import Walk
from ihas_jax.pipeline.workdir import open_run
from ihas_jax.pipeline.workers import Call, usual_workers
from ihas_jax.progress import say
from ihas_jax.selectors.budget import require_room
from ihas_jax.serving.storage import save_bundle
from ihas_jax.stages.candidates import Candidate, add_speed, choose, measure
from ihas_jax.stages.evaluate import base_bundle
from ihas_jax.stages.lessons import FOLDER as TEACH
from ihas_jax.stages.lessons import read_lessons
from ihas_jax.stages.pool import Member, Trial, best_mean, train_member, write_lessons
from ihas_jax.stages.run import Run
from ihas_jax.stages.students import (
    Student,
    cut_student,
    lacks_room,
    norm_trials,
    search_for,
    share_of,
    student_models,
    student_title,
    train_whole,
)
from ihas_jax.stages.teachers import teacher_model
from ihas_jax.stages.verdict import best_of, efficient, gain

_CHOICES = "compress.json"
_SLOWER, _DROPOUT = 0.3, 0.2
"""The learning rate as a multiple of the usual one, and the dropout, that the base model tries."""
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
      config: the click model, training, the L2 term of compact models, and the seed; its method,
        budget and teachers have no meaning here.
      choices: what is tried.
      data: an opened store or a synthetic log.
      workdir: the folder: a new one, or that of a compression with the same config and data.
      workers: the processes that train beside each other, each on a core of its own; None for as
        many as there are cores and memory for, up to four. They import the modules in which a
        program has registered the click models and methods.

    Raises:
      InputError: the folder holds something else, a click model can't be built for the log, a
        budget has no room for a coordinate, there are no workers, or there are several and the
        program itself has registered a click model, which they can't import.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers must be positive, not {workers}.")
    plain = replace(config.retrain, teachers=(), start=None, group_by=None, groups=None)
    config = replace(config, method="none", budget=None, retrain=plain)
    check_rows(config, data)
    _check(config, choices, data)
    if workers is None:
        workers = usual_workers(_memory(config, choices, data))
    with open_run(config, data, workdir, kind="compression") as run:
        _require_same(run, choices)
        metrics = _published(run, choices) or _Compression(run, choices, workers).metrics()
        return Compressed(metrics, run.workdir, present_front(run, metrics))


def _check(config: Config, choices: CompressConfig, data: Dataset) -> None:
    """Raises: InputError: a click model can't be built, or a budget has no room."""
    run = Run(config, data, Path())
    for name in choices.teachers:
        MODELS.find(name, "teachers")
        run.build(teacher_model(config, name))
    for name in choices.students:
        MODELS.find(name, "students")
    for model in student_models(config, choices):
        # of several budgets the largest must have room; the others are left out with a line
        share = share_of(run, model, max(choices.budget))
        require_room("budget", min(1.0, share), run.build(model).embedding)


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
      InputError: the folder holds a compression with other teachers.
    """
    path = run.workdir / _CHOICES
    own = {name: asdict(choices)[name] for name in _LABELS}
    own = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
    if path.exists():
        found = read_json(path)
        for name in _LABELS:
            if found.get(name) != own[name]:
                raise InputError(
                    f"{run.workdir} holds a compression with other --{name.replace('_', '-')} "
                    f"({_listed(found.get(name))} there, {_listed(own[name])} here), from which "
                    "its models have learnt. Use the old values, or choose another --output."
                )
    else:
        write_json(path, own)


def _published(run: Run, choices: CompressConfig) -> dict[str, Any] | None:
    """The metrics of a finished compression with these choices."""
    path, bundle = run.workdir / METRICS, run.workdir / "bundle"
    if not path.exists() or not bundle.exists() or checksums.damaged(bundle):
        return None
    metrics: dict[str, Any] = read_json(path)
    return metrics if metrics["choices"] == nan_to_null(asdict(choices)) else None


def _listed(values: Any) -> str:
    return " ".join(map(str, values)) if isinstance(values, list) else str(values)


class _Compression:
    """The steps of one compression, each of which resumes by itself."""

    def __init__(self, run: Run, choices: CompressConfig, workers: int) -> None:
        self.run, self.choices = run, choices
        self.students = student_models(run.config, choices)
        models = len({run.config.model.name, *choices.teachers})
        self._more = choices.teacher_seeds - 1
        first = models * len(choices.l2) + len(self._others(0.0))
        # how many members of the pool are good enough for more seeds shows later
        self._most = min(first, 4) if choices.teachers else 0
        wholes = sum(len(norm_trials(run, model)) for model in self.students)
        sizes = len(self.students) * len(choices.selections) * len(choices.budget)
        steps = first + self._more * self._most + wholes + sizes + 1
        names = run.config.model.name, *choices.teachers, *choices.students
        modules = modules_of(names, run.config.options) if workers > 1 else ()
        self._walk = Walk("Compress", steps, run.event, workers, modules)

    def metrics(self) -> dict[str, Any]:
        """Trains what is missing, chooses, and writes numbers and bundle."""
        first = [*self._trials(self.run.config.model), *self._teachers()]
        usual = len(self.choices.l2)
        members = self._members(first)
        best = max(members[:usual], key=_objective).trial.optimizer.l2
        bases = [*members[:usual], *self._members(self._others(best))]
        base = max(bases, key=_objective)
        taught, teachers, pool = self._teach([*bases, *members[usual:]])
        found = [measure("base", base_bundle(base.run, base.trained), 1.0, self.run.data)]
        run = replace(self.run, taught=taught)
        students = self._wholes(run)
        found += self._sizes(run, students)
        with self._walk.step("the choice"):
            add_speed(found, self.run.data.test)
            chosen = choose(found, self.run.data.valid.labels, self.choices)
            metrics = self._describe(found, chosen, teachers)
            metrics["base"] |= {"trial": base.name}
            metrics["students"] = [{"name": s.whole.name, **s.whole.facts} for s in students]
            metrics["pool"] = [
                {"name": member.name, **{f"valid_{k}": v for k, v in member.scores.facts.items()}}
                for member in pool
            ]
            # metrics that are there mean that the bundle is theirs
            (self.run.workdir / METRICS).unlink(missing_ok=True)
            save_bundle(found[chosen].bundle, self.run.workdir / "bundle")
            write_json(self.run.workdir / METRICS, metrics)
        return metrics

    def _members(self, trials: Sequence[Trial]) -> list[Member]:
        """Click models, trained on clicks."""
        run = self.run
        calls = [
            (f"{trial.name(run.config)} on clicks", train_member, (run, trial)) for trial in trials
        ]
        return self._walk.each(calls, kept=(run.data,))

    def _trials(self, model: ModelConfig) -> list[Trial]:
        """A click model with each L2 term."""
        usual = self.run.config.optimizer
        return [Trial(model, replace(usual, l2=l2)) for l2 in self.choices.l2]

    def _others(self, l2: float) -> list[Trial]:
        """Trials of the base model with other steps, other batch norm and other dropout."""
        model, usual = self.run.config.model, replace(self.run.config.optimizer, l2=l2)
        trials = [Trial(model, replace(usual, learning_rate=_SLOWER * usual.learning_rate))]
        if len(norms := norm_trials(self.run, model)) > 1:
            dropout = replace(model, dropout=0.0 if model.dropout else _DROPOUT)
            trials += [Trial(norms[1], usual), Trial(dropout, usual)]
        return trials

    def _teachers(self) -> list[Trial]:
        """The other click models that may teach, with each L2 term."""
        config = self.run.config
        names = [name for name in self.choices.teachers if name != config.model.name]
        models = [teacher_model(config, name) for name in names]
        return [trial for model in models for trial in self._trials(model)]

    def _teach(
        self, pool: Sequence[Member]
    ) -> tuple[np.ndarray | None, list[str], Sequence[Member]]:
        """What students learn, the teachers as often as each counts, and the whole pool."""
        if not self.choices.teachers:
            return None, [], pool
        labels = self.run.data.valid.labels
        best = sorted({*best_mean(labels, [member.probs for member in pool])})
        self._walk.skip(self._more * (self._most - len(best)))
        numbers = range(1, 1 + self._more)
        more = [replace(pool[i].trial, number=number) for i in best for number in numbers]
        pool = [*pool, *self._members(more)]
        chosen = [pool[i] for i in best_mean(labels, [member.probs for member in pool])]
        (self.run.workdir / TEACH).mkdir(exist_ok=True)
        checksums.start(self.run.workdir / TEACH)
        for member in {member.name: member for member in chosen}.values():
            write_lessons(self.run, member)
        teachers = [member.name for member in chosen]
        say(f"[Compress] the teachers are {', '.join(teachers)}")
        return read_lessons(self.run, teachers).labels, teachers, pool

    def _wholes(self, run: Run) -> list[Student]:
        """The students with all of their coordinates, with or without batch norm."""
        trials = [norm_trials(run, model) for model in self.students]
        calls = [(student_title(own), train_whole, (run, own)) for each in trials for own in each]
        done = iter(self._walk.each(calls, kept=(run.data, run.taught)))
        found = [[next(done) for _ in each] for each in trials]
        return [each[best_of([one.whole.facts for one in each])] for each in found]

    def _sizes(self, run: Run, students: Sequence[Student]) -> list[Candidate]:
        """What each selection makes of the students for each budget."""
        calls: list[Call] = []
        for student, selection in itertools.product(students, self.choices.selections):
            found = search_for(student, selection)
            for budget in self.choices.budget:
                title = f"{student.model.name}, {selection}, {100 * budget:g} %"
                if why := lacks_room(run, student.model, budget):
                    say(f"[Compress] {title} is left out: {why}")
                    self._walk.skip(1)
                else:
                    own = replace(student, found=found)
                    calls.append((title, cut_student, (title, own, selection, budget)))
        return self._walk.each(calls, kept=(run.data, run.taught))

    def _describe(
        self, candidates: Sequence[Candidate], chosen: int, teachers: Sequence[str]
    ) -> dict[str, Any]:
        """The content of metrics.json."""
        facts = [{"name": c.name, "budget": c.budget, **c.facts} for c in candidates]
        labels, base, best = self.run.data.test.labels, candidates[0], candidates[chosen]
        return {
            "base": facts[0],
            "chosen": facts[chosen],
            "gain": gain(labels, best.probs, base.probs),
            "front": [facts[i] for i in efficient(facts)],
            "candidates": facts,
            "teachers": list(teachers),
            "choices": asdict(self.choices),
        }


def _objective(member: Member) -> float:
    return member.scores.objective
