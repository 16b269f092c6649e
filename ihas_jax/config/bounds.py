"""Types and bounds that stand beside the fields of a config, and the check that names the flag."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from ihas_jax.errors import InputError

T = TypeVar("T")
_UNIONS = (typing.Union, types.UnionType)


@dataclass(frozen=True)
class Bound:
    """What the values of a field must be.

    Attributes:
      holds: whether a value is within the bound.
      words: what the message for a value outside says between the flag and the value.
    """

    holds: Callable[[Any], bool]
    words: str


Positive = Annotated[T, Bound(lambda value: value > 0, "must be positive, not")]
NotNegative = Annotated[T, Bound(lambda value: value >= 0, "must not be negative, but is")]
Number = Annotated[T, Bound(lambda value: value == value, "must be a number, not")]
Share = Annotated[T, Bound(lambda value: 0 <= value <= 1, "must lie between 0 and 1, not")]
Falling = Annotated[
    T,
    Bound(
        lambda shares: list(shares) == sorted(set(shares), reverse=True),
        "must be falling shares, not",
    ),
]
Widths = Annotated[
    T, Bound(lambda value: all(width > 0 for width in value), "must be positive widths, not")
]


def at_least(least: float) -> Bound:
    """The bound of values from `least` on."""
    return Bound(lambda value: value >= least, f"must be at least {least}, not")


def check_fields(config: Any, prefix: str = "--") -> None:
    """Checks types and bounds of the fields of a config and of the configs among them.

    None is within every bound.

    Args:
      config: an instance of a dataclass.
      prefix: what stands before the names of the fields in messages, such as `--model.` in flags.

    Raises:
      InputError: a value is not of the type of its field or not within its bounds; the message
        names its flag.
    """
    for name, hint in _hints_of(config.__class__).items():
        value, flag = getattr(config, name), prefix + name.replace("_", "-")
        if not _fits(value, hint):
            raise InputError(f"{flag} must be {_shown(hint)}, not {value!r}.")
        _check_bounds(value, hint, flag)


@functools.cache
def _hints_of(kind: Any) -> dict[str, Any]:
    """The types of the fields of a dataclass by name, with the bounds in them."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; integers are floats too, truth values are no numbers."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _fits(value, inner[0])
    if origin in _UNIONS:
        return any(_fits(value, one) for one in inner)
    if origin is typing.Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin is tuple and isinstance(value, tuple):
        kinds = _kinds(value, inner)
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if isinstance(value, bool) or hint is Any:
        return hint in (bool, Any)
    return isinstance(value, float | int if hint is float else origin or hint)


def _check_bounds(value: Any, hint: Any, flag: str) -> None:
    """Checks the bounds that a type and its parts have for a value of this type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(value):
        check_fields(value, f"{flag}.")
    elif origin in _UNIONS:
        for part in inner:
            if _fits(value, part):
                _check_bounds(value, part, flag)
    elif origin is tuple:
        for one, kind in zip(value, _kinds(value, inner), strict=True):
            _check_bounds(one, kind, flag)
    elif origin is Annotated:
        _check_bounds(value, inner[0], flag)
        for note in inner[1:]:
            if isinstance(note, Bound) and value is not None and not note.holds(value):
                raise InputError(f"{flag} {note.words} {value}.")


def _kinds(value: tuple[Any, ...], inner: tuple[Any, ...]) -> tuple[Any, ...]:
    """The types of the entries of a tuple, of which a type has all or one for each."""
    return inner[:1] * len(value) if inner[1:] == (...,) else inner


def _shown(hint: Any) -> str:
    """A type in the words of a message."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _shown(inner[0])
    if origin in _UNIONS:
        return " or ".join(map(_shown, inner))
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple:
        return f"tuple[{', '.join('...' if one is ... else _shown(one) for one in inner)}]"
    return "None" if hint is types.NoneType else getattr(hint, "__name__", str(hint))
