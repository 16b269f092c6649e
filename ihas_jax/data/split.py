"""The rows for training, validation and test, by the seed or by time."""

from __future__ import annotations

from typing import Literal

import numpy as np

SPLITS = ("train", "valid", "test")
SplitRule = Literal["random", "chronological", "test"]
"""At random; the earliest 80 % for training and the latest 10 % for test; all for test."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_WORD = (1 << 64) - 1
_PART_ROWS, _TOP_BITS = 1 << 20, 16


def split_counts(rows: int) -> tuple[int, int, int]:
    """Rows of the 80/10/10 split: the first two are rounded down, the test split has the rest."""
    train, valid = rows * 8 // 10, rows // 10
    return train, valid, rows - train - valid


def assign_splits(rows: int, seed: int) -> np.ndarray:
    """Puts every row into one of `SPLITS`, exactly 80/10/10, at random; `seed` decides.

    A row's rank is its splitmix64 hash. NumPy's generators promise no stable stream between
    versions; this arithmetic is the same on every machine. The hash permutes the 64-bit words,
    so no two rows tie and the sizes are exact.

    Args:
      rows: The number of rows, at least 10, so that no split is empty.
      seed: Any integer; its low 64 bits count.

    Returns:
      [rows] uint8, an index into `SPLITS` for each row.

    Raises:
      ValueError: There are fewer than 10 rows.
    """
    return random_splits(0, rows, seed, random_cuts(rows, seed))


def random_cuts(rows: int, seed: int) -> tuple[int, int]:
    """The two hashes between the splits of `assign_splits`, in memory that `rows` don't change.

    Raises:
      ValueError: There are fewer than 10 rows.
    """
    if rows < 10:
        raise ValueError(f"{rows} rows cannot be split 80/10/10; at least 10 are needed")
    parts = [(first, min(_PART_ROWS, rows - first)) for first in range(0, rows, _PART_ROWS)]
    counts = np.zeros(1 << _TOP_BITS, np.int64)
    for first, count in parts:
        words = hash_rows(first, count, seed) >> np.uint64(64 - _TOP_BITS)
        counts += np.bincount(words.astype(np.int64), minlength=len(counts))
    train, valid, _ = split_counts(rows)
    ends = np.cumsum(counts)
    tops = np.searchsorted(ends, (train, train + valid), side="right")
    near: list[np.ndarray] = []  # the few hashes with the same first bits as one of the cuts
    for first, count in parts:
        rank = hash_rows(first, count, seed)
        near.append(rank[np.isin(rank >> np.uint64(64 - _TOP_BITS), tops.astype(np.uint64))])
    places = np.sort(np.concatenate(near))
    below = np.where(tops == tops[0], 0, counts[tops[0]])  # of the sorted ones
    found = places[np.array((train, train + valid)) - (ends - counts)[tops] + below]
    return int(found[0]), int(found[1])


def random_splits(first: int, count: int, seed: int, cuts: tuple[int, int]) -> np.ndarray:
    """The splits of `assign_splits` for `count` rows from row `first` on, [count] uint8."""
    rank = hash_rows(first, count, seed)
    return (rank >= np.uint64(cuts[0])).view(np.uint8) + (rank >= np.uint64(cuts[1]))


def chronological_splits(times: np.ndarray) -> np.ndarray:
    """Puts the earliest 80 % of the rows into the first of `SPLITS`, the latest 10 % into the last.

    Args:
      times: [rows], values that can be sorted; rows of equal times keep their order.

    Returns:
      [rows] uint8, an index into `SPLITS` for each row.
    """
    splits = np.empty(len(times), np.uint8)
    splits[np.argsort(times, kind="stable")] = np.repeat(
        np.arange(len(SPLITS), dtype=np.uint8), split_counts(len(times))
    )
    return splits


def hash_rows(first: int, count: int, seed: int) -> np.ndarray:
    """A random 64-bit word for each of `count` rows from row `first` on, all different."""
    start = _splitmix64(np.array([seed & _WORD], np.uint64))
    return _splitmix64(start + np.arange(first, first + count, dtype=np.uint64) * _GOLDEN)


def _splitmix64(words: np.ndarray) -> np.ndarray:
    """One step of Steele, Lea and Flood's generator from each of `words`, [n] uint64."""
    z = words + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
