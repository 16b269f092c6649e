"""What the columns of an encoded click log mean: one vocabulary per field."""

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
      values: The values with an embedding of their own, in their canonical spelling (see
        `ihas_jax.data.raw.canonical.spell`); the position is the id.
      kind: What the column holds: categories that are text, integers, floats, booleans or times,
        compared by value; or numbers that become categories, "numeric" by the log-square rule of
        Criteo and "quantile" by bins of equal numbers of rows.
      edges: The inner edges of a quantile field's bins, ascending.
      other_share: The share of "other" in the rows that the values were counted on, None where
        nobody counted.
    """

    name: str
    values: tuple[str, ...] | StoredValues
    kind: FieldKind = "text"
    edges: tuple[float, ...] = ()
    other_share: float | None = None

    @property
    def rule(self) -> Rule:
        """How raw values become categories: as they are, or as numbers by one of two rules."""
        if self.kind == "numeric" or self.kind == "quantile":
            return self.kind
        return "category"

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
    """The label and the fields of a log, in the order of the columns of `ids` [n, N].

    Attributes:
      label: The name of the label.
      fields: The N fields.
      missing: Words that mean a missing value in raw rows, besides the empty text.
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
        """Writes the schema as JSON: equal schemas give equal bytes, and never half a file."""
        content = {"version": _VERSION, **self.outline()}
        for entry, field in zip(content["fields"], self.fields, strict=True):
            entry["values"] = tuple(field.values)
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        write_text(path, text + "\n", durable=True)

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
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']}, expected {_VERSION}")
            return cls._from_json(content, [tuple(entry["values"]) for entry in content["fields"]])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is not a schema this version can read ({error}); prepare the log again"
            ) from None

    def outline(self) -> dict[str, Any]:
        """All but the values, JSON-ready."""
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
        """The schema that `save` wrote to a file, its values read when first asked for.

        Asking for them raises InputError where `load` does, and where the file holds another
        outline.

        Raises:
          KeyError, TypeError, ValueError: It is no outline.
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
