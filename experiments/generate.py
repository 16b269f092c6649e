"""Writes a raw log in the format of Criteo's: `generate.py --output FILE --rows 45840617`."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from ihas_jax.errors import InputError, run_cli
from ihas_jax.progress import say, track

FULL_ROWS = 45_840_617
_CHUNK_ROWS = 1 << 18
_DIGITS = 6
_HEX = np.frombuffer(b"".join(b"%02x" % i for i in range(256)), "S2").view(np.uint16)

# distinct values of C1 to C26 in the whole log of 45.8 million rows
_VALUES = (
    *(1_460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5_683, 8_351_593, 3_194),
    *(27, 14_992, 5_461_306, 10, 5_652, 2_173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572),
)
# largest number of I1 to I13, and the share of empty ones
_LARGEST = (
    *(5_775, 257_675, 65_535, 969, 999_999, 431_037, 56_311, 6_047, 29_019, 11, 231, 4_008, 7_393),
)
_EMPTY = (0.45, 0.0, 0.21, 0.22, 0.03, 0.22, 0.04, 0.0, 0.04, 0.45, 0.04, 0.77, 0.22)
_CLICKS = 0.2562


@dataclass(frozen=True)
class Arguments:
    """Writes a tab separated log with a label, 13 numbers and 26 categories of Zipf frequency.

    Labels are drawn by chance, so no model can learn from it: it is there to measure speed.

    A full-size file has as many distinct values per field as Criteo's; a shorter file has as many
    as that many rows of Criteo's. It takes 240 bytes per row.
    """

    output: Path
    """The file to write; it must not exist."""
    rows: int = FULL_ROWS
    """The number of rows to write."""
    seed: int = 0
    """The seed of all draws; equal seeds give equal bytes."""


def main() -> None:
    """Reads the command line and writes the file."""
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        with arguments.output.open("xb") as file, track("Writing", arguments.rows) as progress:
            for rows, text in lines(arguments.rows, arguments.seed):
                file.write(text.data)
                progress.advance(rows)
    except FileExistsError:
        raise InputError(f"{arguments.output} exists; choose another --output") from None
    except OSError as error:
        raise InputError(f"{arguments.output} cannot be written: {error.strerror}") from None
    say(f"{arguments.rows:,} rows, {arguments.output.stat().st_size / 1e9:.2f} GB")


def lines(rows: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields numbers of rows and their bytes."""
    supports = [find_support(values, FULL_ROWS) for values in _VALUES]
    for start in range(0, rows, _CHUNK_ROWS):
        count = min(_CHUNK_ROWS, rows - start)
        rng = np.random.Generator(np.random.Philox(key=[seed, start]))
        parts = [(rng.random(count) < _CLICKS).astype(np.uint8)[:, None] + ord("0")]
        tab = np.full((count, 1), ord("\t"), np.uint8)
        for largest, empty in zip(_LARGEST, _EMPTY, strict=True):
            parts += [tab, _digits(_zipf(rng, largest, count) - 1, rng.random(count) < empty)]
        for field, support in enumerate(supports):
            parts += [tab, _hexadecimal(_zipf(rng, support, count), field)]
        parts.append(np.full((count, 1), ord("\n"), np.uint8))
        text = np.concatenate(parts, axis=1)
        yield count, text[text != 0]


def find_support(distinct: int, rows: int) -> int:
    """The number of values of which `rows` draws, with probability ~ 1 / rank, see `distinct`."""
    low, high = distinct, 1000 * distinct
    while high - low > 1 + low // 1000:
        middle = (low + high) // 2
        ranks = np.geomspace(1, middle, 10_000)
        unseen = np.exp(-rows / (ranks * np.log(middle + 1)))
        low, high = (middle, high) if np.trapezoid(1 - unseen, ranks) < distinct else (low, middle)
    return low


def _zipf(rng: np.random.Generator, support: int, count: int) -> np.ndarray:
    """Draws ranks 1 to `support` with probabilities proportional to 1 / rank."""
    return np.exp(rng.random(count) * np.log(support + 1)).astype(np.uint32)


def _digits(numbers: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Decimal text `[n, 6]`; zero bytes pad short numbers and fill empty ones."""
    powers = 10 ** np.arange(_DIGITS - 1, -1, -1, dtype=np.uint32)
    digits = (numbers[:, None] // powers % 10 + ord("0")).astype(np.uint8)
    shown = numbers[:, None] >= powers
    shown[:, -1] = True
    return digits * (shown & ~empty[:, None])


def _hexadecimal(ranks: np.ndarray, field: int) -> np.ndarray:
    """Eight hexadecimal digits `[n, 8]`, different for each rank of a field (murmur's last mix)."""
    h = ranks + np.uint32(0x9E3779B9 * field % 2**32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    h ^= h >> np.uint32(16)
    return _HEX[h.view(np.uint8).reshape(-1, 4)].view(np.uint8).reshape(-1, 8)


if __name__ == "__main__":
    run_cli(main, interrupted="delete the unfinished file and run the same command again")
