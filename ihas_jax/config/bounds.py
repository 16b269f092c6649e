"""Bounds that stand beside the fields of a config, and the check that names the flag."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from ihas_jax.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Bound:
    """What the values of a field must be.

    Attributes:
      holds: whether a value is within the bound.
      words: how the message of a value that is not goes on after the flag; the value follows.
    """

    holds: Callable[[Any], bool]
    words: str


Positive = Annotated[T, Bound(lambda value: value > 0, "must be positive, not")]
NotNegative = Annotated[T, Bound(lambda value: value >= 0, "must not be negative, but is")]
Number = Annotated[T, Bound(lambda value: value == value, "must be a number, not")]
Share = Annotated[T, Bound(lambda value: 0 <= value <= 1, "must lie between 0 and 1, not")]
Widths = Annotated[
    T, Bound(lambda value: all(width > 0 for width in value), "must be positive widths, not")
]


def at_least(least: float) -> Bound:
    """The bound of values from `least` on."""
    return Bound(lambda value: value >= least, f"must be at least {least}, not")


def check_bounds(config: Any, prefix: str = "") -> None:
    """Checks the fields of a config and of the configs among them; None is within every bound.

    Args:
      config: an instance of a dataclass.
      prefix: what stands before the names of the fields in flags, such as `model.`.

    Raises:
      InputError: a value is not within a bound of its field; the message names its flag.
    """
    for name, bounds in _bounds_of(config.__class__).items():
        value, flag = getattr(config, name), prefix + name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            check_bounds(value, f"{flag}.")
        elif value is not None:
            for bound in bounds:
                if not bound.holds(value):
                    raise InputError(f"--{flag} {bound.words} {value}.")


@functools.cache
def _bounds_of(kind: Any) -> dict[str, list[Bound]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    notes = {f.name: getattr(hints[f.name], "__metadata__", ()) for f in dataclasses.fields(kind)}
    return {name: [n for n in found if isinstance(n, Bound)] for name, found in notes.items()}
