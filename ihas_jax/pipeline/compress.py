"""Compression: from a log to the smallest click model that is as good as the best one.

Base models and teachers are trained on clicks. The best mean of teachers teaches full-size
students, which each selection cuts to each budget. Validation rows choose.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ihas_jax import checksums
from ihas_jax.config import Config, ModelConfig
from ihas_jax.config.compress import CompressConfig
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError
from ihas_jax.files import nan_to_null, read_json, write_json
from ihas_jax.models import MODELS
from ihas_jax.models.forward import init_model
from ihas_jax.pipeline.fit import check_rows
from ihas_jax.pipeline.present_front import METRICS, present_front
from ihas_jax.pipeline.workdir import open_run
from ihas_jax.presets import search_of
from ihas_jax.progress import say
from ihas_jax.selectors.budget import require_room
from ihas_jax.serving.storage import save_bundle
from ihas_jax.stages.candidates import Candidate, add_speed, compact, full_size, measure, searched
from ihas_jax.stages.evaluate import base_bundle
from ihas_jax.stages.lessons import FOLDER as TEACH
from ihas_jax.stages.lessons import read_lessons
from ihas_jax.stages.pool import Member, best_mean, train_member, write_lessons
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns
from ihas_jax.stages.teachers import teacher_model
from ihas_jax.stages.verdict import best_of, choose_smallest, efficient, gain

_CHOICES = "compress.json"
_LABELS = ("teachers", "teacher_seeds", "l2")
"""Choices on which the labels of students depend, so that a folder can't change them."""
_READ_BACK = 2.0
"""Seconds within which a step is done whose training is only read back."""
_FIRST = "spectral"
"""The selection whose search trains a student with all of its coordinates."""


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
    config: Config, choices: CompressConfig, data: Dataset, workdir: str | Path
) -> Compressed:
    """Makes the smallest click model within a tolerance of the best one, in a folder.

    The same call resumes after an interruption. Other budgets, selections, students and another
    tolerance may follow in the same folder; what is trained already is not trained again.

    Args:
      config: the click model, training, the L2 term of compact models, and the seed; its method,
        budget and teachers have no meaning here.
      choices: what is tried.
      data: an opened store or a synthetic log.
      workdir: the folder: a new one, or that of a compression with the same config and data.

    Raises:
      InputError: the folder holds something else, a click model can't be built for the log, or a
        budget has no room for a coordinate.
    """
    plain = replace(config.retrain, teachers=(), start=None)
    config = replace(config, method="none", budget=None, retrain=plain)
    check_rows(config, data)
    _check(config, choices, data)
    with open_run(config, data, workdir, kind="compression") as run:
        _require_same(run, choices)
        metrics = _published(run, choices) or _Compression(run, choices).metrics()
        return Compressed(metrics, run.workdir, present_front(run, metrics))


def _check(config: Config, choices: CompressConfig, data: Dataset) -> None:
    """Raises: InputError: a click model can't be built, or a budget has no room."""
    run = Run(config, data, Path())
    for name in choices.teachers:
        MODELS.find(name, "teachers")
        run.build(teacher_model(config, name))
    for name in choices.students:
        MODELS.find(name, "students")
    for model in _students(config, choices):
        # of several budgets the largest must have room; the others are left out with a line
        own = run.build(model).embedding
        require_room("budget", min(1.0, max(choices.budget) * _ratio(run, model)), own)


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


class _Walk:
    """The steps of a compression, which are counted and timed."""

    def __init__(self, run: Run, total: int) -> None:
        self._run, self._total, self._done = run, total, 0
        self._seconds: list[float] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Says which step begins, and about how long the rest takes."""
        left, start = "", time.monotonic()
        if self._seconds:
            each = sum(self._seconds) / len(self._seconds)
            left = f", about {_duration(each * (self._total - self._done))} left"
        say(f"[Compress] step {self._done + 1} of {self._total}: {name}{left}")
        self._run.event("step", {"step": name})
        yield
        self._done += 1
        if (seconds := time.monotonic() - start) > _READ_BACK:
            self._seconds.append(seconds)

    def skip(self, steps: int) -> None:
        """Counts steps that turn out not to be needed."""
        self._total -= steps


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


class _Student(NamedTuple):
    """A student with all of its coordinates, from which its sizes are cut."""

    run: Run
    found: SearchRuns
    whole: Candidate


class _Compression:
    """The steps of one compression, each of which resumes by itself."""

    def __init__(self, run: Run, choices: CompressConfig) -> None:
        self.run, self.choices = run, choices
        self.students = _students(run.config, choices)
        models = len({run.config.model.name, *choices.teachers})
        self._more = choices.teacher_seeds - 1
        first = models * len(choices.l2) + len(_other_bases(run))
        # how many members of the pool are good enough for more seeds shows later
        self._most = min(first, 4) if choices.teachers else 0
        wholes = sum(len(_norms(run, model)) for model in self.students)
        sizes = len(self.students) * len(choices.selections) * len(choices.budget)
        self._walk = _Walk(run, first + self._more * self._most + wholes + sizes + 1)

    def metrics(self) -> dict[str, Any]:
        """Trains what is missing, chooses, and writes numbers and bundle."""
        pool = self._pool()
        pool, bases = self._bases(pool)
        taught, teachers, pool = self._teach(pool)
        base = max(bases, key=lambda member: member.scores.objective)
        found = [measure("base", base_bundle(base.run, base.trained), 1.0, self.run.data)]
        students = [self._student(replace(self.run, taught=taught), own) for own in self.students]
        for student in students:
            found += self._sizes(student)
        with self._walk.step("the choice"):
            add_speed(found, self.run.data.test)
            chosen = choose_smallest([c.facts for c in found], self.choices.tolerance)
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

    def _member(self, model: ModelConfig, l2: float, what: str = "", number: int = 0) -> Member:
        with self._walk.step(f"{model.name} on clicks, L2 {l2:g}{what}"):
            return train_member(self.run, model, l2, number)

    def _pool(self) -> list[Member]:
        """The click model and the candidates for teachers with each L2 term."""
        config = self.run.config
        models = [config.model]
        models += [
            teacher_model(config, n) for n in self.choices.teachers if n != config.model.name
        ]
        return [self._member(model, l2) for model in models for l2 in self.choices.l2]

    def _bases(self, pool: Sequence[Member]) -> tuple[list[Member], list[Member]]:
        """The pool with two more trials of the base model, of the best L2 term, and all trials."""
        own = [member for member in pool if member.run.config.model == self.run.config.model]
        l2 = max(own, key=lambda m: m.scores.objective).run.config.optimizer.l2
        others = _other_bases(self.run)
        more = [self._member(model, l2, f", {what}") for what, model in others]
        return [*pool, *more], [*own, *more]

    def _teach(self, pool: Sequence[Member]) -> tuple[np.ndarray | None, list[str], list[Member]]:
        """What students learn, the teachers as often as each counts, and the whole pool."""
        pool = [*pool]
        if not self.choices.teachers:
            return None, [], pool
        labels = self.run.data.valid.labels
        best = sorted({*best_mean(labels, [member.probs for member in pool])})
        self._walk.skip(self._more * (self._most - len(best)))
        for i in best:
            model, l2 = pool[i].run.config.model, pool[i].run.config.optimizer.l2
            for number in range(1, 1 + self._more):
                pool.append(self._member(model, l2, f", seed {number + 1}", number))
        chosen = [pool[i] for i in best_mean(labels, [member.probs for member in pool])]
        (self.run.workdir / TEACH).mkdir(exist_ok=True)
        checksums.start(self.run.workdir / TEACH)
        for member in {member.name: member for member in chosen}.values():
            write_lessons(self.run, member)
        teachers = [member.name for member in chosen]
        say(f"[Compress] the teachers are {', '.join(teachers)}")
        return read_lessons(self.run, teachers).labels, teachers, pool

    def _student(self, run: Run, model: ModelConfig) -> _Student:
        """A student with all of its coordinates, with or without batch norm."""
        trials = []
        for own in _norms(run, model):
            title = f"{own.name}, D = {own.dim}{', batch norm' if own.batch_norm else ''}"
            with self._walk.step(title):
                student = _run_of(run, own, _FIRST)
                found = searched(student)
                whole = measure(title, full_size(student, found), 1.0, run.data)
            trials.append(_Student(student, found, whole))
        return trials[best_of([trial.whole.facts for trial in trials])]

    def _sizes(self, student: _Student) -> list[Candidate]:
        """What each selection makes of a student for each budget."""
        run, model, candidates = self.run, student.run.config.model, []
        run = replace(run, taught=student.run.taught)
        for selection in self.choices.selections:
            found = student.found
            if selection != _FIRST:
                found = searched(_run_of(run, model, selection))
            for budget in self.choices.budget:
                title = f"{model.name}, {selection}, {100 * budget:g} %"
                if why := self._no_room(model, budget):
                    say(f"[Compress] {title} is left out: {why}")
                    self._walk.skip(1)
                    continue
                with self._walk.step(title):
                    own = _run_of(run, model, selection, budget * _ratio(run, model))
                    bundle = compact(own, found)
                    candidates.append(measure(title, bundle, budget, run.data))
        return candidates

    def _no_room(self, model: ModelConfig, budget: float) -> str:
        """Why a budget is not one for a student; empty where it is."""
        share = budget * _ratio(self.run, model)
        if share > 1:
            return f"with D = {model.dim} the whole table is smaller."
        try:
            require_room("budget", share, self.run.build(model).embedding)
        except InputError as error:
            return str(error)
        return ""

    def _describe(
        self, candidates: Sequence[Candidate], chosen: int, teachers: Sequence[str]
    ) -> dict[str, Any]:
        """The content of metrics.json."""
        facts = [{"name": c.name, "budget": c.budget, **c.facts} for c in candidates]
        labels, base, best = self.run.data.test.labels, candidates[0], candidates[chosen]
        return {
            "base": facts[0],
            "chosen": facts[chosen],
            "gain": gain(labels, best.probs, base.probs, self.run.seed("blocks")),
            "front": [facts[i] for i in efficient(facts)],
            "candidates": facts,
            "teachers": list(teachers),
            "choices": asdict(self.choices),
        }


def _other_bases(run: Run) -> list[tuple[str, ModelConfig]]:
    """Further trials of a base model with an MLP: the other batch norm, and the other dropout."""
    model = run.config.model
    if len(norms := _norms(run, model)) == 1:
        return []
    norm = norms[1]
    dropout = replace(model, dropout=0.0 if model.dropout else 0.2)
    return [
        ("without batch norm" if model.batch_norm else "with batch norm", norm),
        (f"dropout {dropout.dropout:g}", dropout),
    ]


def _norms(run: Run, model: ModelConfig) -> list[ModelConfig]:
    """A click model as it is, and with the other batch norm if it has an MLP."""
    other = replace(model, batch_norm=not model.batch_norm)
    built = run.build(replace(model, batch_norm=True))
    stats = jax.eval_shape(lambda: init_model(jax.random.key(0), built)).stats
    return [model, other] if stats else [model]


def _students(config: Config, choices: CompressConfig) -> tuple[ModelConfig, ...]:
    """The click models whose sizes are tried, the base model first."""
    dim, rank = min(choices.student_dim, config.model.dim), choices.student_rank
    others = [
        replace(config.model, name=name, dim=dim, cross_rank=rank)
        for name in choices.students
        if name != config.model.name
    ]
    return config.model, *others


def _ratio(run: Run, model: ModelConfig) -> float:
    """The numbers of the base model's table over those of a student's."""
    return run.model.embedding.parameters / run.build(model).embedding.parameters


def _run_of(run: Run, model: ModelConfig, selection: str, share: float | None = None) -> Run:
    """The run of a student that keeps a share of its table; a search without serves all shares."""
    config = replace(
        run.config,
        method=selection,
        budget=share,
        model=model,
        search=search_of(selection, "small"),
    )
    size = "search" if share is None else f"{share!r}"
    norm = "_norm" if model.batch_norm else ""
    student = f"{model.name}_{model.dim}_{model.cross_rank}{norm}"
    folder = run.workdir / "students" / student / f"{selection}_{size}"
    return replace(run, config=config, workdir=folder)
