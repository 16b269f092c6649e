"""Predictions of any number of rows, part by part."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from ihas_jax.data.drift import Drift, OtherShareWarning, describe_drift, find_drift
from ihas_jax.data.raw.frames import is_row
from ihas_jax.errors import InputError, require_type
from ihas_jax.serving.bundle import Bundle


class Predicted(NamedTuple):
    """The predictions of some rows, in their order.

    Attributes:
      probability: `[n]` float32, of a click.
      cluster: `[n]` int32, the cluster whose model predicted the row; None where one model predicts
        all rows.
    """

    probability: np.ndarray
    cluster: np.ndarray | None


class Stream:
    """Predicts ids part by part, and judges all of them together.

    Attributes:
      bundle: the models.
      rows: the number of rows so far.
      routed: whether rows have clusters.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.rows = bundle, 0
        self.routed = bundle.serving_router is not None
        self._other = np.array(bundle.schema.sizes) - 1
        self._others = np.zeros(len(self._other), np.int64)

    def __call__(self, ids: np.ndarray) -> Predicted:
        """Predicts rows of ids `[n, N]` by the schema of the bundle, which are not checked."""
        self.rows += len(ids)
        self._others += (ids == self._other).sum(0)
        clusters = self.bundle.serving_clusters(ids)
        found = self.bundle.predict_assigned(ids, clusters)
        return Predicted(found, clusters if self.routed else None)

    @property
    def drifts(self) -> list[Drift]:
        """The fields with far more "other" in all rows so far than in the log of the schema."""
        shares = (self._others / max(self.rows, 1)).tolist()
        return find_drift(self.bundle.schema, shares, self.rows)


def predict_stream(
    bundle: Bundle, rows: Iterable[Any], *, batch_rows: int = 1 << 16
) -> Iterator[Predicted]:
    """Predicts raw rows that come one after the other, in memory that does not grow.

    At the end an `OtherShareWarning` says if far more values of a field are unknown, in all rows
    together, than in the log from which the vocabularies were counted.

    Args:
      bundle: the models, from `load_bundle`.
      rows: batches, each in a container that `Bundle.predict_proba` takes, or rows as mappings of
        scalars, such as those of a generator or of `csv.DictReader`. A single container is one
        batch.
      batch_rows: the number of rows given one by one that are predicted together.

    Yields:
      The predictions of each batch, in order.

    Raises:
      InputError: as `Bundle.predict_proba`, where the message says with which row the batch begins;
        or `bundle` or `batch_rows` is something else.
    """
    require_type("bundle", bundle, Bundle, "Read one with ihas.load_bundle.")
    if not isinstance(batch_rows, Integral) or batch_rows < 1:
        raise InputError(f"batch_rows is {batch_rows!r}; it must be a whole number of at least 1")
    stream = Stream(bundle)
    for batch in _batches(rows, batch_rows, bundle.schema.names):
        try:
            ids = bundle.encoder(batch, judged=False)
        except InputError as error:
            raise InputError(f"in the batch that begins with row {stream.rows}: {error}") from None
        yield stream(ids)
    if drifts := stream.drifts:
        warnings.warn(describe_drift(drifts), OtherShareWarning, stacklevel=2)


def _batches(rows: Iterable[Any], size: int, names: Sequence[str]) -> Iterator[Any]:
    """Batches as they are, and single rows in lists of `size`."""
    container = isinstance(rows, Mapping) or hasattr(type(rows), "columns")
    if container or not isinstance(rows, Iterable):  # what holds no rows is refused like a batch
        yield rows
        return
    for single, items in groupby(rows, lambda item: is_row(item, names)):
        if single:
            while batch := list(islice(items, size)):
                yield batch
        else:
            yield from items
