"""Flags that would have no effect on a run, which refuses them."""

from __future__ import annotations

from collections.abc import Mapping

from ihas_jax.config import Config
from ihas_jax.errors import InputError
from ihas_jax.flags import replaced, value_of
from ihas_jax.selectors.registry import METHODS
from ihas_jax.stages.teachers import BASE, SEARCH, teachers_of

Reasons = Mapping[str, str]
"""Why flags would have no effect, and what to do, by flag."""
_OF_NONE: Reasons = {
    "budget": (
        "--method none keeps the whole table. Choose a smaller --model.dim, or a method, such as "
        "uniform"
    ),
    "search.rotate": "--method none has no search. Choose a method, such as ihas",
    "retrain.start": (
        "--method none has no searched model to start from, and a student starts from fresh "
        "weights. Choose a method, such as magnitude"
    ),
    "retrain.group_by": "--method none retrains nothing. Choose a method, such as spectral",
    "retrain.groups": "--method none retrains nothing. Choose a method, such as spectral",
}


def check_flags(config: Config) -> None:
    """Checks that flags with other values than the defaults have an effect.

    Raises:
      InputError: a flag has none; the message says why.
    """
    for flag, why in (_of_method(config) | _of_teachers(config)).items():
        if _is_set(config, flag):
            name = flag.replace("_", "-")
            raise InputError(f"--{name} would have no effect, since {why}, or leave --{name} out.")


def for_method(config: Config) -> Config:
    """A config without the flags that mean nothing to its method.

    Comparisons call this for methods that share the flags of one command line.
    """
    for flag in _of_method(config):
        if _is_set(config, flag):
            config = replaced(config, flag, value_of(Config(), flag))
    return config


def _is_set(config: Config, flag: str) -> bool:
    return bool(value_of(config, flag) != value_of(Config(), flag))


def _of_method(config: Config) -> dict[str, str]:
    """The flags that mean nothing to the method of a config, with the reasons."""
    if config.method == "none":
        return dict(_OF_NONE)
    method = METHODS.find(config.method)
    found = dict(method.idle(config))
    if config.budget is not None:
        why = "--budget says how much is kept. Choose one of the two"
        found |= {f"{kind.flag}.{name}": why for kind in method.options for name in kind.amount}
    if method.serves_searched:
        why = (
            f"--method {config.method} serves its searched model and retrains nothing. Choose "
            "another method"
        )
        found |= dict.fromkeys(("retrain.start", "retrain.group_by", "retrain.groups"), why)
    return found


def _of_teachers(config: Config) -> dict[str, str]:
    """The flags that mean nothing to the teachers of a config, with the reasons."""
    teachers = config.retrain.teachers
    found: dict[str, str] = {}
    if not teachers:
        why = "there are no teachers. Name some as --retrain.teachers"
        found |= {"retrain.teacher_weight": why, "retrain.teacher_mean": why}
    elif len(teachers_of(config)) == 1:
        found["retrain.teacher_mean"] = "there is one teacher. Name more as --retrain.teachers"
    if {*teachers} <= {BASE, SEARCH}:
        found["retrain.teacher_folds"] = (
            "no teacher is trained in folds. Name a click model as one of --retrain.teachers"
        )
    return found
