"""What the columns of an encoded click log mean: one vocabulary per field."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from ihas_jax.errors import InputError

FieldKind = Literal["categorical", "integer"]

_VERSION = 1


class StoredValues(Sequence[str]):
    """Values of a known number that are read when first asked for; else the tuple of them."""

    def __init__(self, size: int, read: Callable[[], tuple[str, ...]]) -> None:
        """Values that `read` returns, `size` of them."""
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


@dataclass(frozen=True)
class Field:
    """One field of a log.

    Attributes:
      name: The column's name in the raw log.
      values: The values with an embedding of their own; the position is the id.
      kind: "categorical" takes the text as it is; "integer" sends a number through the
        log-square rule of Criteo first, so `values` holds codes such as "5", "-2", "NULL".
    """

    name: str
    values: tuple[str, ...] | StoredValues
    kind: FieldKind = "categorical"

    @property
    def size(self) -> int:
        """Number of ids: one per value, and one for everything else, always."""
        return len(self.values) + 1

    @property
    def other(self) -> int:
        """The id of values that are rare, or unseen or missing when predicting."""
        return len(self.values)


@dataclass(frozen=True)
class Schema:
    """The label and the fields of a log, in the order of the columns of `ids` [n, N]."""

    label: str
    fields: tuple[Field, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The N field names."""
        return tuple(field.name for field in self.fields)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The N vocabulary sizes, "other" included."""
        return tuple(field.size for field in self.fields)

    def save(self, path: Path) -> None:
        """Writes the schema as JSON: equal schemas give equal bytes, and never half a file."""
        fields = [
            {"name": field.name, "kind": field.kind, "values": tuple(field.values)}
            for field in self.fields
        ]
        content = {"version": _VERSION, "label": self.label, "fields": fields}
        scratch = path.with_name(f".{path.name}.partial")
        with scratch.open("w", encoding="utf-8", newline="\n") as file:
            json.dump(content, file, ensure_ascii=False, separators=(",", ":"))
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)

    @classmethod
    def load(cls, path: Path) -> Schema:
        """Reads what `save` wrote.

        Raises:
          InputError: There is no such file, or it is not a schema this version can read.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; a schema was expected here") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is not a readable schema ({error})") from None
        try:
            return cls._from_json(content)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is not a schema this version can read ({error}); prepare the log again"
            ) from None

    @classmethod
    def outline(
        cls, path: Path, label: str, fields: Sequence[tuple[str, FieldKind, int]]
    ) -> Schema:
        """The schema that `save` wrote, its values read when first asked for.

        Asking for them raises InputError where `load` does, and where the file holds another
        label or other fields.

        Args:
          path: The file.
          label: The label in it.
          fields: The name, kind and size of each field in it.
        """

        @cache
        def whole() -> Schema:
            schema = cls.load(path)
            found = [(field.name, field.kind, field.size) for field in schema.fields]
            if (schema.label, found) != (label, list(fields)):
                raise InputError(
                    f"{path} holds other fields than its description says; prepare the log again"
                )
            return schema

        def values(number: int, size: int) -> StoredValues:
            return StoredValues(size - 1, lambda: tuple(whole().fields[number].values))

        described = enumerate(fields)
        return cls(
            label, tuple(Field(name, values(n, size), kind) for n, (name, kind, size) in described)
        )

    @classmethod
    def _from_json(cls, content: dict[str, Any]) -> Schema:
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']}, expected {_VERSION}")
        fields = tuple(
            Field(entry["name"], tuple(entry["values"]), entry["kind"])
            for entry in content["fields"]
        )
        if any(field.kind not in get_args(FieldKind) for field in fields):
            raise ValueError("a field of unknown kind")
        return cls(content["label"], fields)
