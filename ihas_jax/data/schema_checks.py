"""The conditions on a schema: a run can save it, and a bundle can read it and encode rows by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import lt
from typing import Any, get_args

from ihas_jax.data.schema import Field, FieldKind, Schema
from ihas_jax.data.stored_schema import StoredValues
from ihas_jax.errors import InputError


def check_schema(schema: Any) -> None:
    """Checks the names, and the kind, the edges and the values (if in memory) of each field.

    Raises:
      InputError: The object is no schema, has no fields, has two columns of one name, or has a name
        or a value that is not text; or a field has a value twice, an unknown kind, or edges that
        don't ascend.
    """
    if not isinstance(schema, Schema):
        raise InputError(f"The schema is a {type(schema).__name__}, not a Schema.")
    strange = [field for field in schema.fields if not isinstance(field, Field)]
    if strange or not isinstance(schema.fields, tuple):
        found = strange[0] if strange else schema.fields
        raise InputError(
            f"The schema's fields hold a {type(found).__name__}; give a tuple of Field."
        )
    if not schema.fields:
        raise InputError("The schema has no fields, so there is nothing to learn from.")
    names = [schema.label, *schema.names]
    _check_texts("The schema's label and field names", names)
    _check_texts("The schema's words for missing values", schema.missing)
    if twice := _first_twice(names):
        raise InputError(f"The schema names two columns {twice!r}; rename one of them.")
    for field in schema.fields:
        _check_field(field)


def _check_field(field: Field) -> None:
    name = f"The field {field.name!r}"
    if field.kind not in get_args(FieldKind):
        raise InputError(
            f"{name} is of the kind {field.kind!r}; there are {', '.join(get_args(FieldKind))}."
        )
    edges = field.edges
    if {type(edge) for edge in edges} - {float} or not all(map(lt, edges, edges[1:])):
        raise InputError(f"{name} has the edges {edges}; they are floats that ascend.")
    if isinstance(field.values, tuple):
        _check_texts(f"The values of the field {field.name!r}", field.values)
        if len(set(field.values)) < len(field.values):
            raise InputError(
                f"{name} has the value {_first_twice(field.values)!r} twice; the position of a "
                "value is its id, so each value must occur once."
            )
    elif not isinstance(field.values, StoredValues):
        raise InputError(
            f"{name} has a {type(field.values).__name__} of values; give a tuple of texts, such as "
            "tuple(map(str, values))."
        )


def _check_texts(what: str, texts: Sequence[Any]) -> None:
    if not set(map(type, texts)) <= {str}:
        number, wrong = next((n, t) for n, t in enumerate(texts) if type(t) is not str)
        raise InputError(
            f"{what} hold {wrong!r} in position {number}, of the type {type(wrong).__name__}; they "
            "are text: use tuple(map(str, values))."
        )
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} hold {error.object[error.start : error.end]!r}, half a character, which "
            "can't be written as UTF-8."
        ) from None


def _first_twice(texts: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            return text
        seen.add(text)
    return None
