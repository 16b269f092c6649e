"""What the arrays of a click log must be: shapes, dtypes and ranges, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ihas_jax.errors import InputError

_ROWS = 1 << 14
_FOLD = 64
_FORMS = {"ids": ("[n, N]", 2, np.dtype(np.int32)), "labels": ("[n]", 1, np.dtype(np.uint8))}


def check_form(name: str, ids: Any, labels: Any, fields: Sequence[str]) -> None:
    """Checks shapes and dtypes of a split, without reading a row.

    Raises:
      InputError: `ids` are not `[n, N]` int32 with a column for each field, or `labels` are not
        `[n]` uint8.
    """
    for what, array in (("ids", ids), ("labels", labels)):
        shape, axes, dtype = _FORMS[what]
        if type(array) not in (np.ndarray, np.memmap):
            raise InputError(
                f"The {what} of {name} are a {type(array).__name__}; give a NumPy array "
                f"{shape} of {dtype}."
            )
        if array.ndim != axes:
            raise InputError(
                f"The {what} of {name} have the shape {list(array.shape)}; {shape} is needed"
                f"{_flat(array.shape) if axes == 1 else ''}."
            )
        if array.dtype != dtype:
            remedy = "use .astype(np.int32)"
            if what == "labels":
                remedy = "labels are 0 and 1: use (labels > 0).astype(np.uint8)"
            raise InputError(f"The {what} of {name} are {array.dtype}, not {dtype}; {remedy}.")
    if ids.shape[1] != len(fields):
        raise InputError(
            f"The ids of {name} have {ids.shape[1]} columns, the schema has {len(fields)} fields: "
            f"{', '.join(fields)}."
        )
    if len(ids) != len(labels):
        raise InputError(f"{name} has ids of {len(ids)} rows, but labels of {len(labels)}.")


def check_values(
    name: str,
    ids: np.ndarray,
    labels: np.ndarray,
    fields: Sequence[str],
    sizes: Sequence[int],
    advance: Callable[[int], None] = lambda rows: None,
) -> None:
    """Reads every row of a split whose form is right.

    Args:
      name: The name of the split, for messages.
      ids: `[n, N]`.
      labels: `[n]`.
      fields: The N names.
      sizes: The number of ids of each field.
      advance: Called with the number of rows after each chunk.

    Raises:
      InputError: An id is not one of its field, or a label is not 0 or 1; the message names the
        row.
    """
    for part in _parts(len(ids)):
        _check_range(f"The ids of {name}", ids[part], sizes, fields, part.start)
        check_labels(labels[part], f"of {name}", part.start)
        advance(part.stop - part.start)


def as_ids(
    ids: Any, sizes: Sequence[int], fields: Sequence[str] | None = None, what: str = "The ids"
) -> np.ndarray:
    """Checks the ids `[n, N]` of a user, and returns them as an array of their integer type.

    Args:
      ids: An array, or lists of rows.
      sizes: The number of ids of each field.
      fields: The N names, where they are known.
      what: The subject of the error message.

    Raises:
      InputError: They are not integers `[n, N]`, or one is not an id of its field.
    """
    if hasattr(ids, "columns") or isinstance(ids, np.ma.MaskedArray):
        raise InputError(
            f"{what} are a {type(ids).__name__}; give a NumPy array [n, {len(sizes)}] of integers, "
            "with a column for each field in the order of the schema and nothing missing."
        )
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise InputError(f"{what} are not an array [n, {len(sizes)}] ({error}).") from None
    check_width(array.shape, array.dtype, len(sizes), what)
    for part in _parts(len(array)):
        _check_range(what, array[part], sizes, fields, part.start)
    return array


def check_width(
    shape: tuple[int, ...], dtype: np.dtype[Any], fields: int, what: str = "The ids"
) -> None:
    """Raises: InputError: ids of this shape and dtype are not integers `[n, fields]`."""
    if len(shape) != 2 or shape[1] != fields:
        one = "; one row is ids[None, :]" if shape == (fields,) else ""
        raise InputError(
            f"{what} have the shape {list(shape)}; [n, {fields}] is needed, a row of {fields} "
            f"fields each{one}."
        )
    if np.dtype(dtype).kind not in "iu":
        raise InputError(
            f"{what} are {np.dtype(dtype)}; integers are needed, as a bundle's schema or the "
            "prepared log counts them."
        )


def check_labels(labels: np.ndarray, of: str = "", first: int = 0) -> None:
    """Checks `[n]` labels of any dtype of numbers.

    Raises:
      InputError: A label is neither 0 nor 1; the message names its row, counted from `first`.
    """
    if labels.dtype == np.uint8 and not (labels > 1).any():
        return
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"The label {of + ' ' if of else ''}in row {first + row} is {labels[row]}; labels are "
            "0 and 1: use (labels > 0).astype(np.uint8) if all above 0 are clicks."
        )


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array is a view of a file, so that its rows are read from the disk."""
    return _map_of(array) is not None


def file_of(array: np.ndarray) -> tuple[str, int] | None:
    """The file whose numbers a contiguous array has, and where in it, in bytes; None without.

    A map with mode 'c' (copy on write) may have other numbers than its file.
    """
    found = _map_of(array)
    if found is None or found.filename is None or found.mode == "c":
        return None
    if not array.size or not array.flags.c_contiguous:
        return None
    start: int = array.ctypes.data - found.ctypes.data
    return str(found.filename), int(found.offset) + start


def _map_of(array: np.ndarray) -> np.memmap[Any, Any] | None:
    """The whole map that an array is a view of."""
    base: Any = array
    found = None
    while base is not None:
        # a copy of a map has its class, but no file
        found = base if isinstance(base, np.memmap) and base.base is not None else found
        base = getattr(base, "base", None)
    return found


def _parts(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + _ROWS, rows)) for start in range(0, rows, _ROWS))


def _check_range(
    what: str, ids: np.ndarray, sizes: Sequence[int], fields: Sequence[str] | None, first: int
) -> None:
    if ids.dtype.itemsize < 4:
        ids = ids.astype(np.int32)
    unsigned = ids.view(ids.dtype.str.replace("i", "u"))  # where negative ids are the largest
    limits = np.array(sizes, np.uint64)
    if not (_largest(unsigned) >= limits).any():
        return
    row, n = (int(place) for place in np.argwhere(unsigned >= limits)[0])
    field = f"field {n} (counted from 0)" if fields is None else f"field {fields[n]!r}"
    raise InputError(
        f"{what} hold {ids[row, n]} in row {first + row} of {field}, whose {sizes[n]} ids are 0 to "
        f"{sizes[n] - 1}; encode the rows by the same schema, in which the last id is for all "
        "values without one."
    )


def _largest(columns: np.ndarray) -> np.ndarray:
    """The largest number `[N]` in each of the columns `[n, N]`."""
    rows, width = columns.shape
    whole = rows - rows % _FOLD
    # NumPy takes the largest of long rows four times as fast
    folded = columns[:whole].reshape(-1, _FOLD * width).max(axis=0, initial=0)
    return np.concatenate([folded.reshape(-1, width), columns[whole:]]).max(axis=0)


def _flat(shape: tuple[int, ...]) -> str:
    return ", such as labels[:, 0]" if len(shape) == 2 and shape[1] == 1 else ""
