"""The columns of encoded Parquet that are fields; a column without ids is named in an error."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import polars as pl
import polars.selectors as cs

from ihas_jax.errors import InputError

Kinds = Mapping[Path, Mapping[str, pl.DataType]]
"""The types of the columns of each part, by name."""

_INDEX = re.compile(r"__index_level_\d+__")


def find_fields(root: Path, kinds: Kinds, label: str) -> tuple[str, ...]:
    """All columns of the parts except the label, in the order of the first part.

    Args:
      root: The folder of the parts, for messages.
      kinds: The types of the columns of each part.
      label: The name of the label.

    Raises:
      InputError: There are no such columns, or a column is missing in a part, holds no integers, or
        is the index of a pandas frame; the message names each such column.
    """
    names = dict.fromkeys(name for columns in kinds.values() for name in columns if name != label)
    faults = {name: fault for name in names if (fault := _fault(name, kinds, root))}
    good = [name for name in names if name not in faults]
    if faults:
        raise _not_ids(root, faults, good)
    if not good:
        raise InputError(f"{next(iter(kinds))} has no columns of ids")
    return tuple(good)


def check_columns(root: Path, kinds: Kinds, label: str, fields: Sequence[str]) -> None:
    """Checks that every part has integers in these columns, or booleans as the label.

    Raises:
      InputError: A column holds something else; the message names each such column.
    """
    faults = {}
    for name in (label, *fields):
        fault = _missing(name, kinds, root) or _no_integers(name, kinds, root, name == label)
        if fault:
            faults[name] = fault
    if faults:
        raise _not_ids(root, faults)


def check_row_numbers(
    root: Path, parts: Sequence[Path], fields: Sequence[str], largest: Sequence[int]
) -> None:
    """Refuses fields that number the rows as an index does, in logs of 100 rows or more.

    Args:
      root: The folder of the parts, for messages.
      parts: The files of the training rows.
      fields: The N names.
      largest: The largest id of each field.

    Raises:
      InputError: Each training row has a different id in a field; the message names each such
        field.
    """
    scan = pl.concat(
        [
            pl.scan_parquet(part, glob=False).select(cs.by_name(*fields).cast(pl.Int64))
            for part in parts
        ]
    )
    rows = scan.select(pl.len()).collect().item()
    able = [name for name, top in zip(fields, largest, strict=True) if top + 1 >= rows >= 100]
    distinct = scan.select(cs.by_name(*able).n_unique()).collect().row(0) if able else ()
    faults = {
        name: f"has another id in each of the {rows} training rows, as an index has"
        for name, number in zip(able, distinct, strict=True)
        if number == rows
    }
    if faults:
        raise _not_ids(root, faults, [name for name in fields if name not in faults])


def _fault(name: str, kinds: Kinds, root: Path) -> str | None:
    """What is wrong with a column that the user did not name, or None."""
    for part in kinds:
        if name in kinds[part] and (_INDEX.fullmatch(name) or name in _pandas_index(part)):
            return (
                f"is the index of a pandas frame in {part.relative_to(root)}, an id for each row: "
                "write it with index=False"
            )
    return _no_integers(name, kinds, root) or _missing(name, kinds, root)


def _missing(name: str, kinds: Kinds, root: Path) -> str | None:
    lacking = [part for part in kinds if name not in kinds[part]]
    return f"is not in {lacking[0].relative_to(root)}" if lacking else None


def _no_integers(name: str, kinds: Kinds, root: Path, boolean: bool = False) -> str | None:
    for part, schema in kinds.items():
        kind = schema.get(name, pl.Int32())
        if not (kind.is_integer() or (boolean and kind == pl.Boolean)):
            return f"holds {_content(part, name, kind)} in {part.relative_to(root)}"
    return None


def _content(part: Path, name: str, kind: pl.DataType) -> str:
    """The content of a column without integers, in words, with the usual remedy."""
    if kind.is_float():
        given = cs.by_name(name).drop_nulls().drop_nans()
        scan = pl.scan_parquet(part, glob=False).select((given % 1 == 0).all())
        if not scan.collect().item():
            return "fractions"
        return (
            "whole numbers as floats (pandas makes them where one is missing: "
            ".fillna(ID).astype('int32'), with an id for what is missing)"
        )
    if kind in (pl.String, pl.Categorical, pl.Enum):
        return "text"
    words = {pl.Boolean: "booleans", pl.List: "lists", pl.Null: "nulls alone"}
    return words.get(kind.base_type(), str(kind))


def _pandas_index(part: Path) -> Collection[str]:
    """The columns that hold the index of a frame, by the metadata of pandas."""
    try:
        index = json.loads(pl.read_parquet_metadata(part)["pandas"])["index_columns"]
        return {name for name in index if isinstance(name, str)}
    except (KeyError, TypeError, ValueError):
        return ()


def _not_ids(root: Path, faults: dict[str, str], good: Sequence[str] | None = None) -> InputError:
    listed = "; ".join(f"{name!r} {fault}" for name, fault in faults.items())
    remedy = "Mend these columns, or choose others"
    if good is not None:
        remedy = (
            "Mend or drop what is no field, or name the fields: prepare.py encoded --fields "
            f"{shlex.join(good) or 'A B C'} (in Python ihas_jax.data.encoded.open_encoded or "
            "convert_encoded with fields=[...])"
        )
    return InputError(
        f"{root}: a field needs a column of ids, and the label one of 0 and 1, but {listed}. "
        f"{remedy}."
    )
