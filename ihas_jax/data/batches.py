"""Batches: shuffled epochs of row numbers, one round at a time, through Grain.

Grain reads one element at a time; an element here is a whole round, so its cost per row
vanishes, and its position is one number in a checkpoint. A round carries row numbers, and
also the rows themselves where the split does not stay on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np

from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.root_logger import grain

_WINDOW_BLOCKS = 64
_T = TypeVar("_T")


class Feed:
    """Endless batches of row numbers: each epoch is a fresh permutation of `rows`.

    The last batch of an epoch is filled up with the first rows of the same permutation, so
    that every batch has the same size and no row is left out.

    Attributes:
      batch_size: rows in a batch, B.
      batches_per_epoch: batches that take every row once.
      end: one more than the largest row number.
    """

    def __init__(self, rows: np.ndarray, batch_size: int, seed: int, block_rows: int = 1) -> None:
        """Prepares the stream.

        Args:
          rows: row numbers `[n]` (int32).
          batch_size: rows in a batch, B.
          seed: seed of the permutations.
          block_rows: 1 permutes all rows. A larger number permutes blocks of that many neighbours,
            and then the rows within every 64 blocks, so that a slow disk reads long strips.

        Raises:
          InputError: `rows` is empty or holds something else than row numbers from 0 on, or
            `batch_size` or `block_rows` is below 1.
        """
        if min(batch_size, block_rows) < 1:
            raise InputError(
                f"Batches of {batch_size} rows in blocks of {block_rows} have no rows."
            )
        rows = _row_numbers(rows)
        self.batch_size = batch_size
        self.end = int(rows.max()) + 1
        self._rows, self._seed, self._block_rows = rows, seed, block_rows
        self.batches_per_epoch = -(-len(rows) // batch_size)
        self._order = lru_cache(maxsize=2)(self._shuffle)

    def __call__(self, first: int, count: int) -> np.ndarray:
        """Returns `count` batches of the stream from batch `first` on, `[count, B]` int32."""
        parts = []
        while count > 0:
            epoch, start = divmod(first, self.batches_per_epoch)
            parts.append(self._order(epoch)[start : start + count])
            first, count = first + len(parts[-1]), count - len(parts[-1])
        return np.concatenate(parts)

    def _shuffle(self, epoch: int) -> np.ndarray:
        rng = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
        total = self.batches_per_epoch * self.batch_size
        order = self._permute(rng)
        return np.resize(order, (total // self.batch_size, self.batch_size))

    def _permute(self, rng: np.random.Generator) -> np.ndarray:
        rows, size = self._rows, self._block_rows
        if size == 1:
            return rng.permutation(rows)
        blocks = rng.permutation(-(-len(rows) // size))
        places = (blocks[:, None] * size + np.arange(size)).ravel()
        places = places[places < len(rows)]
        window = _WINDOW_BLOCKS * size
        whole = len(places) // window * window
        strips = rng.permuted(places[:whole].reshape(-1, window), axis=1).ravel()
        return rows[np.concatenate([strips, rng.permutation(places[whole:])])]


def _row_numbers(rows: np.ndarray) -> np.ndarray:
    """Checks row numbers `[n]` and returns them as int32."""
    if not isinstance(rows, np.ndarray) or rows.ndim != 1 or rows.dtype.kind not in "iu":
        kind = rows.dtype if isinstance(rows, np.ndarray) else type(rows).__name__
        raise InputError(
            f"Row numbers are {kind} {list(np.shape(rows))}; a NumPy array [n] of integers is "
            "needed (those of a mask are np.flatnonzero(mask))."
        )
    if not len(rows):
        raise InputError("There are no rows to make batches of.")
    if rows.min() < 0 or rows.max() > np.iinfo(np.int32).max:
        wrong = rows.min() if rows.min() < 0 else rows.max()
        raise InputError(f"Row numbers hold {wrong}; rows count from 0, up to 2^31 - 1.")
    return rows.astype(np.int32, copy=False)


class Round(NamedTuple):
    """One round: `rows [R, B]` of `data`, and `gate_rows [G, B]` of `gate_data` in a search.

    Only the first `batches` count; the others pad the last round of an epoch, so that all rounds
    have one shape. `data` and `gate_data` are the rows to copy to the device, or None where all
    rows are on the device already.
    """

    batches: int
    rows: np.ndarray
    gate_rows: np.ndarray
    data: Split | None
    gate_data: Split | None


@dataclass(frozen=True)
class Rounds:
    """The rounds of a training run, by number.

    Attributes:
      split: the training rows.
      feed: the batches of the training rows.
      round_batches: batches in a round, at most; the last round of an epoch may have fewer.
      epochs: epochs of the training run.
      gate_split: the validation rows of a search.
      gate_feed: the batches of the validation rows.
      gate_every: training batches per gate update; 0 where there are no gates.
      resident: whether the splits stay on the device.
      shard: `(i, n)` reads only the i-th of n equal parts of each batch, for one of n processes.

    Raises:
      ValueError: `shard` is no part, or the batches do not divide into n parts.
      InputError: A split is not ids `[n, N]` with a label per row, a feed has rows beyond the end
        of its split, only one of `gate_split` and `gate_feed` is given, or a number is too small.
    """

    split: Split
    feed: Feed
    round_batches: int
    epochs: int
    resident: bool
    gate_split: Split | None = None
    gate_feed: Feed | None = None
    gate_every: int = 0
    shard: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        index, shards = self.shard
        if not 0 <= index < shards:
            raise ValueError(f"there is no part {index} of {shards}; parts count from 0")
        for feed in (self.feed, self.gate_feed):
            if feed is not None and feed.batch_size % shards:
                raise ValueError(f"{shards} processes do not divide a batch of {feed.batch_size}")
        if self.round_batches < 1 or self.epochs < 0:
            raise InputError(
                f"Rounds have {self.round_batches} batches and a run {self.epochs} epochs; a "
                "round needs at least one batch, and epochs can't be negative."
            )
        _check_feed("split", self.split, self.feed)
        if (self.gate_split is None) != (self.gate_feed is None):
            raise InputError("A gate_split needs a gate_feed, and a gate_feed a gate_split.")
        if self.gate_split is not None and self.gate_feed is not None:
            if self.gate_every < 1:
                raise InputError(f"gate_every is {self.gate_every}; 1 or more batches are needed.")
            _check_feed("gate_split", self.gate_split, self.gate_feed)

    @property
    def length(self) -> int:
        """Batches per round, R; the last round of an epoch may have fewer."""
        return min(self.round_batches, self.feed.batches_per_epoch)

    @property
    def per_epoch(self) -> int:
        """Rounds in an epoch."""
        return -(-self.feed.batches_per_epoch // self.length)

    def __len__(self) -> int:
        return self.epochs * self.per_epoch

    def __getitem__(self, index: int) -> Round:
        epoch, position = divmod(index, self.per_epoch)
        start = position * self.length
        count = min(self.length, self.feed.batches_per_epoch - start)
        first = epoch * self.feed.batches_per_epoch + start
        rows, data = self._read(self.split, self.feed(first, count), self.length)
        gate_rows, gate_data = np.zeros((0, 0), np.int32), None
        if self.gate_feed is not None and self.gate_split is not None:
            updates = -(-count // self.gate_every)
            gate_rows, gate_data = self._read(
                self.gate_split,
                self.gate_feed(first // self.gate_every, updates),
                -(-self.length // self.gate_every),
            )
        return Round(count, rows, gate_rows, data, gate_data)

    def _read(self, split: Split, rows: np.ndarray, length: int) -> tuple[np.ndarray, Split | None]:
        index, shards = self.shard
        share = rows.shape[1] // shards
        rows = rows[:, index * share : (index + 1) * share]
        rows = np.pad(rows, ((0, length - len(rows)), (0, 0)))
        if self.resident:
            return rows, None
        flat = rows.reshape(-1)
        numbers = np.arange(flat.size, dtype=np.int32).reshape(rows.shape)
        return numbers, Split(split.ids[flat], split.labels[flat])


def _check_feed(name: str, split: Split, feed: Feed) -> None:
    ids, labels = (np.shape(part) for part in split)
    if len(ids) != 2 or labels != ids[:1]:
        raise InputError(
            f"The ids and labels of {name} have the shapes {list(ids)} and {list(labels)}; [n, N] "
            "and [n] are needed."
        )
    if feed.end > len(split.labels):
        raise InputError(
            f"The batches of {name} have row {feed.end - 1}, but it ends with row "
            f"{len(split.labels) - 1}."
        )


class RoundIterator(Generic[_T]):
    """Rounds in order, prefetched by Grain; `position` is part of a checkpoint."""

    def __init__(self, rounds: Rounds, make: Callable[[Round], _T]) -> None:
        """Yields `make(round)` for each round; Grain calls `make` in its thread."""
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        dataset = grain.MapDataset.source(rounds).map(make).to_iter_dataset(options)
        self._iterator: Any = iter(dataset)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        return next(self._iterator)

    @property
    def position(self) -> dict[str, int]:
        """Where the iterator stands, JSON-ready."""
        return self._iterator.get_state()

    def seek(self, position: dict[str, int]) -> None:
        """Continues from a saved position."""
        self._iterator.set_state(position)
