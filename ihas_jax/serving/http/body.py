"""The body of a request: one row or many as JSON, checked before anything is predicted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from ihas_jax.errors import InputError

_SCALARS = (str, int, float, type(None))
_FORM = (
    "send one row as an object, such as {%s: ...}, or many rows as a list of objects with a text, "
    "a number, true, false or null for each field"
)


class TooLargeError(InputError):
    """A request has more rows or bytes than the service takes."""


def read_rows(
    body: bytes, names: Sequence[str], most_rows: int
) -> dict[str, Any] | list[dict[str, Any]]:
    """The row or the rows of a body, with the named fields alone.

    Args:
      body: the bytes of the request.
      names: the fields of a row; a row may have others, which are ignored.
      most_rows: how many rows a request may have.

    Raises:
      InputError: the body is no such JSON, or a row lacks a field or has another type in it; the
        message names row and field.
      TooLargeError: there are too many rows.
    """
    form = _FORM % json.dumps(names[0])
    try:
        found = json.loads(
            body.decode(),
            object_pairs_hook=_distinct,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"The body is not JSON ({error}); {form}.") from None
    if isinstance(found, dict):
        return _row(found, names, "The row", form)
    if not isinstance(found, list):
        raise InputError(f"The body is {_kind(found)}; {form}.")
    if len(found) > most_rows:
        raise TooLargeError(
            f"The request has {len(found):,} rows, and the service takes {most_rows:,} at once; "
            "send them in several requests, or start the service with a larger --max-rows."
        )
    return [_row(row, names, f"Row {n}, counted from 0,", form) for n, row in enumerate(found)]


def _row(row: Any, names: Sequence[str], what: str, form: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InputError(f"{what} is {_kind(row)}; {form}.")
    if lacking := [name for name in names if name not in row]:
        raise InputError(
            f"{what} lacks {', '.join(map(repr, lacking))}; give every field, with null where the "
            "value is missing."
        )
    for name in names:
        if not isinstance(row[name], _SCALARS):
            raise InputError(f"{what} has {_kind(row[name])} as {name!r}; {form}.")
    return {name: row[name] for name in names}


def _kind(value: Any) -> str:
    """What a value of JSON is, in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return kinds.get(type(value), "null" if value is None else "a number")


def _finite(text: str) -> float:
    """Raises: ValueError: a number is NaN or infinite, which JSON lacks, or too large."""
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(f"{text} is no finite number; null is a missing value")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises: ValueError: an object has a name twice, so that one of its values would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has {twice!r} twice")
    return found
