"""The steps of a compression: bases and teachers, students, sizes, and the choice among them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ihas_jax.config.compress import CompressConfig
from ihas_jax.files import write_json
from ihas_jax.pipeline.plugins import modules_of
from ihas_jax.pipeline.present_front import METRICS
from ihas_jax.pipeline.walk import Walk
from ihas_jax.pipeline.workers import Call
from ihas_jax.progress import say, warn
from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.storage import save_bundle
from ihas_jax.stages.bundles import base_bundle, with_usage
from ihas_jax.stages.candidates import Candidate, add_speed, choose, measure, valid_facts
from ihas_jax.stages.cut import can_be_cut
from ihas_jax.stages.lessons import read_lessons, start_folder
from ihas_jax.stages.pool import Member, best_mean, mean_facts, train_member, write_lessons
from ihas_jax.stages.run import Run
from ihas_jax.stages.students import (
    Student,
    cut_student,
    lacks_room,
    search_for,
    student_models,
    student_title,
    train_whole,
)
from ihas_jax.stages.trials import Trial, l2_trials, norm_trials, other_trials, teacher_trials
from ihas_jax.stages.verdict import best_of, efficient, gain
from ihas_jax.training.metrics import DivergedError, logloss


class Compression:
    """The steps of one compression, each of which resumes by itself."""

    def __init__(self, run: Run, choices: CompressConfig, workers: int) -> None:
        self.run, self.choices = run, choices
        self.students = student_models(run.config, choices)
        models = len({run.config.model.name, *choices.teachers})
        self._more = choices.teacher_seeds - 1
        first = models * len(choices.l2) + len(other_trials(run, 0.0))
        # how many members of the pool are good enough for more seeds shows later
        self._most = min(first, 4) if choices.teachers else 0
        wholes = sum(len(norm_trials(run, model)) for model in self.students)
        sizes = len(self.students) * len(choices.selections) * len(choices.budget)
        steps = first + self._more * self._most + wholes + sizes + 1
        names = run.config.model.name, *choices.teachers, *choices.students
        modules = modules_of(names) if workers > 1 else ()
        self._walk = Walk("Compress", steps, run.event, workers, modules)
        self._diverged: list[str] = []

    def publish(self) -> None:
        """Trains what is missing, chooses, and writes numbers and bundle."""
        with self._walk.shown():
            self._publish()

    def _publish(self) -> None:
        config, l2s = self.run.config, self.choices.l2
        own = l2_trials(config, config.model, l2s)
        members = self._members([*own, *teacher_trials(config, self.choices.teachers, l2s)])
        bases = [one for one in members if one.trial in own]
        l2 = max(bases, key=_objective).trial.optimizer.l2 if bases else l2s[0]
        others = [one for one in members if one.trial not in own]
        bases += self._members(other_trials(self.run, l2))
        if not bases:
            raise DivergedError(
                f"Every trial of the base model diverged ({', '.join(self._diverged)}). Try a "
                "smaller --optimizer.learning-rate, with a new --output."
            )
        base = max(bases, key=_objective)
        teachers, pool = self._teach([*bases, *others])
        taught = read_lessons(self.run, [one.name for one in teachers]) if teachers else None
        found = [measure("base", base_bundle(base.run, base.trained), 1.0, self.run.data)]
        found += self._smaller(pool, found[0])
        run = replace(self.run, taught=None if taught is None else taught.labels)
        students = self._wholes(run)
        sizes = self._sizes(run, students)
        for one in found:
            one.facts["taught"] = False
        for one in sizes:
            one.facts["taught"] = taught is not None
        found += sizes
        with self._walk.step("the choice"):
            add_speed(found, self.run.data.test)
            chosen = choose(found, self.run.data.valid.labels, self.choices)
            metrics = self._describe(found, chosen)
            metrics["base"] |= {"trial": base.name}
            metrics["students"] = [{"name": s.whole.name, **s.whole.facts} for s in students]
            metrics["teachers"] = [one.name for one in teachers]
            if taught is not None:
                metrics["teacher"] = mean_facts(run, teachers, taught)
            metrics["pool"] = [self._facts(member) for member in pool]
            metrics["diverged"] = self._diverged
            bundle = found[chosen].bundle
            bundle = with_usage(self.run, bundle) if can_be_cut(bundle) else bundle
            # metrics that are there mean that the bundle is theirs
            (self.run.workdir / METRICS).unlink(missing_ok=True)
            save_bundle(bundle, self.run.workdir / "bundle", replace=True)
            write_json(self.run.workdir / METRICS, metrics)

    def _members(self, trials: Sequence[Trial]) -> list[Member]:
        """Click models, trained on clicks."""
        run = self.run
        calls = [
            (f"{trial.name(run.config)} on clicks", train_member, (run, trial)) for trial in trials
        ]
        members: list[Member | None] = self._each(calls, (run.data,))
        return [one for one in members if one is not None]

    def _each(self, calls: Sequence[Call], kept: Sequence[Any]) -> list[Any]:
        """The results of trainings; None for those that diverge, which are left out."""
        guarded = [(call[0], _unless_diverged, call) for call in calls]
        results = self._walk.each(guarded, kept)
        lost = [call[0] for call, found in zip(calls, results, strict=True) if found is None]
        self._diverged += lost
        return results

    def _teach(self, pool: Sequence[Member]) -> tuple[list[Member], Sequence[Member]]:
        """The teachers, as often as each counts, whose lessons are written; and the whole pool."""
        if not self.choices.teachers:
            return [], pool
        labels = self.run.data.valid.labels
        best = sorted({*best_mean(labels, [member.probs for member in pool])})
        self._walk.skip(self._more * (self._most - len(best)))
        numbers = range(1, 1 + self._more)
        more = [replace(pool[i].trial, number=number) for i in best for number in numbers]
        pool = [*pool, *self._members(more)]
        chosen = [pool[i] for i in best_mean(labels, [member.probs for member in pool])]
        start_folder(self.run)
        for member in {member.name: member for member in chosen}.values():
            write_lessons(self.run, member)
        say(f"[Compress] the teachers are {', '.join(member.name for member in chosen)}")
        return chosen, pool

    def _smaller(self, pool: Sequence[Member], base: Candidate) -> list[Candidate]:
        """The best one of each other click model that is smaller than the base, such as an LR."""
        best: dict[str, tuple[str, Bundle]] = {}
        for one in sorted(pool, key=_objective):
            bundle = base_bundle(one.run, one.trained)
            if bundle.parameters < base.bundle.parameters:
                best[one.trial.model.name] = f"{one.name} on clicks", bundle
        best.pop(self.run.config.model.name, None)
        return [measure(name, bundle, 1.0, self.run.data) for name, bundle in best.values()]

    def _wholes(self, run: Run) -> list[Student]:
        """The students with all of their coordinates, with or without batch norm."""
        trials = [norm_trials(run, model) for model in self.students]
        calls = [(student_title(own), train_whole, (run, own)) for each in trials for own in each]
        done = iter(self._each(calls, (run.data, run.taught)))
        found = [[one for _ in each if (one := next(done)) is not None] for each in trials]
        return [each[best_of([one.whole.facts for one in each])] for each in found if each]

    def _sizes(self, run: Run, students: Sequence[Student]) -> list[Candidate]:
        """What each selection makes of the students for each budget."""
        lost = len(self.students) - len(students)
        self._walk.skip(lost * len(self.choices.selections) * len(self.choices.budget))
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
        sizes: list[Candidate | None] = self._each(calls, (run.data, run.taught))
        return [one for one in sizes if one is not None]

    def _facts(self, member: Member) -> dict[str, Any]:
        """A member of the pool, and the name of its trial, which other seeds of it share."""
        trial = replace(member.trial, number=0).name(self.run.config)
        return {"name": member.name, "trial": trial, **valid_facts(member.scores)}

    def _describe(self, candidates: Sequence[Candidate], chosen: int) -> dict[str, Any]:
        """The log, the candidates, and the choice among them."""
        facts = [{"name": c.name, "budget": c.budget, **c.facts} for c in candidates]
        data, base, best = self.run.data, candidates[0], candidates[chosen]
        splits = {"training": data.train, "validation": data.valid, "test": data.test}
        rows = {name: len(split.labels) for name, split in splits.items()}
        rate, labels = float(np.mean(data.train.labels)), data.test.labels
        same = np.full(len(labels), rate)
        return {
            "rows": rows | {"clicks": rate, "logloss_of_rate": logloss(labels, same)},
            "base": facts[0],
            "chosen": facts[chosen],
            "gain": gain(labels, best.probs, base.probs),
            "chance": gain(labels, best.probs, same),
            "front": [facts[i] for i in efficient(facts)],
            "candidates": facts,
            "choices": asdict(self.choices),
        }


def _unless_diverged(name: str, train: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """The result of a training; None where it diverges."""
    try:
        return train(*arguments)
    except DivergedError as error:
        warn(f"[Compress] {name} is left out, since its training diverged. {error}")
        return None


def _objective(member: Member) -> float:
    return member.scores.objective
