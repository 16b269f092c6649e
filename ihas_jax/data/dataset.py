"""An encoded log in memory or in mapped files: a schema and three splits that fit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ihas_jax.data.checks import check_form, check_values, is_mapped
from ihas_jax.data.schema import Schema
from ihas_jax.data.schema_checks import check_schema
from ihas_jax.data.split import SPLITS
from ihas_jax.errors import InputError


class Split(NamedTuple):
    """The rows of one split, in the order of the log.

    Attributes:
      ids: [n, N] int32, `0 <= ids[:, f] < schema.sizes[f]`; may be a view of a file.
      labels: [n] uint8, 0 or 1.
    """

    ids: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Dataset:
    """An encoded log: the meaning of its columns, and its three splits.

    Raises:
      InputError: The schema is not valid, a split is no `Split`, or its arrays don't fit the
        schema. Every row of arrays in memory is checked here; the rows of mapped files are checked
        by `check`, which each run calls at its start.
    """

    schema: Schema
    train: Split
    valid: Split
    test: Split

    def __post_init__(self) -> None:
        """Checks the schema, shapes and dtypes, and the values that are in memory."""
        check_schema(self.schema)
        for name in SPLITS:
            split = getattr(self, name)
            if not isinstance(split, Split):
                raise InputError(
                    f"{name} is a {type(split).__name__}; give Split(ids, labels) of NumPy arrays."
                )
            check_form(name, split.ids, split.labels, self.schema.names)
            if not (is_mapped(split.ids) or is_mapped(split.labels)):
                self._check(name)

    def check(self, advance: Callable[[int], None] = lambda rows: None) -> None:
        """Reads every row, in chunks, and compares it with the schema.

        Args:
          advance: Called with the number of rows after each chunk.

        Raises:
          InputError: An id is not one of its field, or a label is not 0 or 1.
        """
        for name in SPLITS:
            self._check(name, advance)

    def _check(self, name: str, advance: Callable[[int], None] = lambda rows: None) -> None:
        ids, labels = getattr(self, name)
        check_values(name, ids, labels, self.schema.names, self.schema.sizes, advance)
