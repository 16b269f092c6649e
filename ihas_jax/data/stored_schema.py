"""The schema of a store, whose vocabularies are read when they are first needed.

Training needs only names and sizes, so a store opens in a millisecond, however many values it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ihas_jax.data.schema import Schema
from ihas_jax.errors import InputError


class StoredValues(Sequence[str]):
    """A tuple of values that are read when they are first needed; their number is known before."""

    def __init__(self, size: int, read: Callable[[], tuple[str, ...]]) -> None:
        """Wraps the `size` values that `read` returns."""
        self._size, self._read = size, read

    @cached_property
    def _values(self) -> tuple[str, ...]:
        return self._read()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple | StoredValues) and self._values == tuple(other)

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        return repr(self._values)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._values,)


def open_schema(path: Path, outline: Mapping[str, Any]) -> Schema:
    """Makes a schema of its outline; its values are read from the file when they are first needed.

    Reading the values raises InputError if `Schema.load` does, or if the file has another outline.

    Args:
      path: The file that `Schema.save` wrote.
      outline: The outline of the schema, from another file.

    Raises:
      KeyError, TypeError, ValueError: The outline is damaged.
    """

    @cache
    def whole() -> Schema:
        schema = Schema.load(path)
        if schema.outline() != described.outline():
            raise InputError(
                f"{path} holds other fields than its description says; prepare the log again"
            )
        return schema

    def values(number: int, size: int) -> StoredValues:
        return StoredValues(size - 1, lambda: tuple(whole().fields[number].values))

    described = Schema.from_outline(
        outline, [values(n, entry["size"]) for n, entry in enumerate(outline["fields"])]
    )
    return described
