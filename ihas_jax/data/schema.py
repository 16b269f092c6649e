"""The meaning of the columns of an encoded click log: a label, and one vocabulary per field."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from ihas_jax.errors import InputError
from ihas_jax.files import write_text

CategoryKind = Literal["text", "integer", "float", "boolean", "time"]
NumberKind = Literal["numeric", "quantile"]
FieldKind = Literal[CategoryKind, NumberKind]
Rule = Literal["category", NumberKind]

_VERSION = 2


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


@dataclass(frozen=True)
class Field:
    """One field of a log.

    Attributes:
      name: The name of the column in the raw log.
      values: The values that have an id, in their canonical spelling (see
        `ihas_jax.data.raw.canonical.spell`); the id of a value is its position.
      kind: The content of the column. Text, integers, floats, booleans and times are categories,
        compared by value. Numbers that become categories are "numeric" (the log-square rule of
        Criteo) or "quantile" (bins of about equally many rows).
      edges: The inner edges of the bins of a quantile field, ascending.
      other_share: The share of "other" in the log from which the values were counted, or None.
    """

    name: str
    values: tuple[str, ...] | StoredValues
    kind: FieldKind = "text"
    edges: tuple[float, ...] = ()
    other_share: float | None = None

    @property
    def rule(self) -> Rule:
        """The rule by which raw values become categories; two rules are for numbers."""
        if self.kind == "numeric" or self.kind == "quantile":
            return self.kind
        return "category"

    @property
    def size(self) -> int:
        """Number of ids: one per value, and one for all other values."""
        return len(self.values) + 1

    @property
    def other(self) -> int:
        """The id of values that are not in `values`: rare, new or missing ones."""
        return len(self.values)


@dataclass(frozen=True)
class Schema:
    """The label and the fields of a log, in the order of the columns of `ids` [n, N].

    Attributes:
      label: The name of the label.
      fields: The N fields.
      missing: Words that mean a missing value in raw rows, in addition to the empty text.
    """

    label: str
    fields: tuple[Field, ...]
    missing: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The N field names."""
        return tuple(field.name for field in self.fields)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The N vocabulary sizes, "other" included."""
        return tuple(field.size for field in self.fields)

    def save(self, path: Path) -> None:
        """Writes the schema as JSON, all or nothing; equal schemas give equal bytes."""
        content = {"version": _VERSION, **self.outline()}
        for entry, field in zip(content["fields"], self.fields, strict=True):
            entry["values"] = tuple(field.values)
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        write_text(path, text + "\n", durable=True)

    @classmethod
    def load(cls, path: Path) -> Schema:
        """Reads a file that `save` wrote.

        Raises:
          InputError: There is no such file, or it is not a schema that this version can read.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; a schema was expected here") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is not a readable schema ({error})") from None
        try:
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']}, expected {_VERSION}")
            return cls._from_json(content, [tuple(entry["values"]) for entry in content["fields"]])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is not a schema this version can read ({error}); prepare the log again"
            ) from None

    def outline(self) -> dict[str, Any]:
        """The content of the schema without the values, JSON-ready."""
        fields = [
            {
                "name": field.name,
                "kind": field.kind,
                "size": field.size,
                "edges": field.edges,
                "other_share": field.other_share,
            }
            for field in self.fields
        ]
        return {"label": self.label, "missing": self.missing, "fields": fields}

    @classmethod
    def from_outline(cls, path: Path, outline: Mapping[str, Any]) -> Schema:
        """A schema whose values are read from a file of `save` when they are first needed.

        Reading the values raises InputError if `load` does, or if the file has another outline.

        Raises:
          KeyError, TypeError, ValueError: `outline` is no outline.
        """

        @cache
        def whole() -> Schema:
            schema = cls.load(path)
            if schema.outline() != described.outline():
                raise InputError(
                    f"{path} holds other fields than its description says; prepare the log again"
                )
            return schema

        def values(number: int, size: int) -> StoredValues:
            return StoredValues(size - 1, lambda: tuple(whole().fields[number].values))

        described = cls._from_json(
            outline, [values(n, entry["size"]) for n, entry in enumerate(outline["fields"])]
        )
        return described

    @classmethod
    def _from_json(
        cls,
        content: Mapping[str, Any],
        values: Sequence[tuple[str, ...] | StoredValues],
    ) -> Schema:
        fields = tuple(
            Field(entry["name"], own, entry["kind"], tuple(entry["edges"]), entry["other_share"])
            for entry, own in zip(content["fields"], values, strict=True)
        )
        if any(field.kind not in get_args(FieldKind) for field in fields):
            raise ValueError("a field of unknown kind")
        if any(entry["size"] != f.size for entry, f in zip(content["fields"], fields, strict=True)):
            raise ValueError("a field of another size than it says")
        return cls(content["label"], fields, tuple(content["missing"]))
