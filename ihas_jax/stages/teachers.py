"""Teachers by name: the models whose click probabilities students learn in place of clicks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from difflib import get_close_matches

from ihas_jax.config import Config, ModelConfig
from ihas_jax.errors import InputError
from ihas_jax.models import MODELS

BASE, SEARCH = "base", "search"
"""Teachers that a run trains anyway: its full-size model and its searched model."""
_PAIRWISE = ("ffm", "fnfm")
_PAIRWISE_DIM = 4
_MOST_SEEDS = 100


@dataclass(frozen=True)
class Teacher:
    """One teacher.

    Attributes:
      name: name of its folder and files, such as `gdcn_0`.
      model: the click model to train; None for a model that the run trains anyway.
    """

    name: str
    model: ModelConfig | None = None


def teachers_of(config: Config) -> tuple[Teacher, ...]:
    """The teachers that `retrain.teachers` names, one for each seed.

    A teacher has the choices of the run's own click model. The size of its vectors is at most 4,
    as in the reference library, where a value has a vector for each other field (FFM, FNFM).

    Raises:
      InputError: an entry is not the name of a click model with a number of seeds, a model of the
        run is named twice, or there is no search whose model could teach.
    """
    seeds: Counter[str] = Counter()
    for entry in config.retrain.teachers:
        name, colon, number = entry.partition(":")
        if name not in MODELS and entry not in (BASE, SEARCH):
            known = [BASE, SEARCH, *MODELS]
            near = get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise InputError(
                f"--retrain.teachers {entry} names no teacher.{hint} The teachers are "
                f"{', '.join(known)}, separated by spaces; a click model may have a number of "
                "seeds, such as dnn:4."
            )
        if colon and not (number.isascii() and number.isdigit() and int(number)):
            raise InputError(
                f"--retrain.teachers {entry} needs a number of seeds after the colon, from 1 on."
            )
        seeds[name] += int(number or 1)
        if seeds[name] > _MOST_SEEDS:
            raise InputError(
                f"--retrain.teachers {entry} makes {seeds[name]} teachers of {name}; choose at "
                f"most {_MOST_SEEDS}."
            )
    if twice := [name for name in (BASE, SEARCH) if seeds[name] > 1]:
        raise InputError(f"--retrain.teachers names {twice[0]} twice; a run has only one.")
    if config.method == "none" and seeds[SEARCH]:
        raise InputError("--method none has no search; leave search out of --retrain.teachers.")
    return tuple(
        Teacher(name)
        if name in (BASE, SEARCH)
        else Teacher(f"{name}_{i}", teacher_model(config, name))
        for name, number in seeds.items()
        for i in range(number)
    )


def teach_after_search(config: Config) -> bool:
    """Whether the searched model is a teacher, so that the search itself can't be taught."""
    return SEARCH in config.retrain.teachers


def teacher_model(config: Config, name: str) -> ModelConfig:
    """The click model of a teacher; see `teachers_of`.

    Raises:
      InputError: the choices of the run do not fit it.
    """
    dim = min(config.model.dim, _PAIRWISE_DIM) if name in _PAIRWISE else config.model.dim
    try:
        return replace(config.model, name=name, dim=dim)
    except InputError as error:
        raise InputError(f"--retrain.teachers {name} can't be built. {error}") from None
