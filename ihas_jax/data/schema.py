"""The meaning of the columns of an encoded click log: a label, and one vocabulary per field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ihas_jax.errors import InputError
from ihas_jax.files import write_text

CategoryKind = Literal["text", "integer", "float", "boolean", "time"]
NumberKind = Literal["numeric", "quantile"]
FieldKind = Literal[CategoryKind, NumberKind]
Rule = Literal["category", NumberKind]

_VERSION = 2


@dataclass(frozen=True)
class Field:
    """One field of a log.

    Attributes:
      name: The name of the column in the raw log.
      values: The values that have an id, in their canonical spelling (see
        `ihas_jax.data.raw.canonical.spell`); the id of a value is its position. A tuple, or
        values that are yet to be read from a store.
      kind: The content of the column. Text, integers, floats, booleans and times are categories,
        compared by value. Numbers that become categories are "numeric" (the log-square rule of
        Criteo) or "quantile" (bins of about equally many rows).
      edges: The inner edges of the bins of a quantile field, ascending.
      other_share: The share of "other" in the log from which the values were counted, or None.
    """

    name: str
    values: Sequence[str]
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
            values = [tuple(entry["values"]) for entry in content["fields"]]
            return cls.from_outline(content, values)
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
    def from_outline(cls, outline: Mapping[str, Any], values: Sequence[Sequence[str]]) -> Schema:
        """Makes a schema of its `outline` and the values of each field.

        Raises:
          KeyError, TypeError, ValueError: The outline is damaged, or a field has another number of
            values.
        """
        fields = tuple(
            Field(entry["name"], own, entry["kind"], tuple(entry["edges"]), entry["other_share"])
            for entry, own in zip(outline["fields"], values, strict=True)
        )
        if any(field.kind not in get_args(FieldKind) for field in fields):
            raise ValueError("a field of unknown kind")
        if any(entry["size"] != f.size for entry, f in zip(outline["fields"], fields, strict=True)):
            raise ValueError("a field of another size than it says")
        return cls(outline["label"], fields, tuple(outline["missing"]))
