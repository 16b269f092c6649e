"""The full-size model that methods are compared with, under the same teachers as the methods.

Teachers lift a model whatever its size, so a model with teachers beside one without them does not
say what a method is worth.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ihas_jax.config import Config, RetrainConfig
from ihas_jax.pipeline.idle import for_method
from ihas_jax.stages.teachers import teach_after_search, teachers_of

BASE, TEACHER, STUDENT = "base", "teacher", "student"
"""Models in metrics.json of a run without a method."""
TEACHERS = ("dnn:2", "gdcn")
"""The teachers of comparisons in which every model is taught unless the command line says else."""
CLICKS = "base, clicks"
"""The title of a base model beside models that learn from teachers."""


@dataclass(frozen=True)
class Reference:
    """The full-size model that methods are compared with.

    Attributes:
      key: its name in metrics.json: the base model of any run, or the student of a run without a
        method.
      title: its name in tables.
      note: what it has learnt from, as Markdown; empty where there are no teachers.
    """

    key: str
    title: str
    note: str

    @property
    def identity(self) -> dict[str, str]:
        """What tells files of results with teachers from those of an untaught reference."""
        return {"compared_with": self.key} if self.note else {}


def reference_of(config: Config) -> Reference:
    """The full-size model under the teachers of a config, or else the base model.

    A searched model can't teach a run without a method, which has no search; the base model, which
    has learnt from clicks, is the reference where it is a teacher.
    """
    if not config.retrain.teachers:
        return Reference(BASE, "base", "")
    if teach_after_search(config):
        names = " ".join(config.retrain.teachers)
        note = (
            f"The compact models learn from the teachers {names}. The full-size model, with which "
            "they are compared, has learnt from clicks, since a run without a search can't have "
            "the searched model as a teacher: the differences show the gain of the teachers, too."
        )
        return Reference(BASE, CLICKS, note)
    note = f"{learning(config)} So does the full-size model, with which the others are compared."
    return Reference(STUDENT, "base, taught", note)


def learning(config: Config) -> str:
    """A sentence that names the teachers of all models, or nothing."""
    names = " ".join(config.retrain.teachers)
    return f"Every model learns from the teachers {names}." if names else ""


def full_size(config: Config) -> Config:
    """The config of the run that trains the full-size model under the teachers of a config.

    Raises:
      InputError: a teacher is unknown, or is the searched model, which the run does not have.
    """
    plain = for_method(dataclasses.replace(config, method="none"))
    teachers_of(plain)
    return plain


def without_teachers(config: Config) -> Config:
    """The config of a run that learns from clicks, without the flags of how teachers teach."""
    usual = RetrainConfig()
    own = {f.name: getattr(usual, f.name) for f in dataclasses.fields(usual)}
    teaching = {name: value for name, value in own.items() if name.startswith("teacher")}
    return dataclasses.replace(config, retrain=dataclasses.replace(config.retrain, **teaching))
