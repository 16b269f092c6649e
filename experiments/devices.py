"""Measures steps that devices or processes share, and what one of many devices computes."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from bench.places import in_processes, on_devices
from bench.sharing import Case, counted, describe, measure, part_of_step
from bench.workload import UPDATES, sizes_of
from common import machine, markdown_table, print_results, write_results

from ihas_jax.errors import InputError, run_cli
from ihas_jax.progress import track

_FIELDS, _ROWS = 39, 2048


@dataclass(frozen=True)
class Arguments:
    """Measures steps of Criteo's shape on CPU devices, and parts of larger steps on one device.

    CPU devices and processes share the cores of this machine; the one device is the first that JAX
    finds.
    """

    devices: tuple[int, ...] = (1, 2, 4, 8)
    """The numbers of CPU devices; none leaves these steps out."""
    processes: tuple[int, ...] = (1, 2, 4)
    """The numbers of processes that each add as many rows to a step; none leaves them out."""
    shrink: int = 1
    """A divisor of the numbers of values of the steps on the CPU, for a quick look."""
    part_of: tuple[int, ...] = (1, 8, 64)
    """The numbers of devices of the larger steps, of which this one computes a part."""
    values: tuple[int, ...] = (1_000_000, 8_000_000, 8_000_000)
    """The number of values of the larger tables, V, for each number of devices; below 2^31."""
    batches: tuple[int, ...] = (2048, 16_384)
    """The batch sizes of the larger steps, B."""
    dim: int = 16
    """The embedding size, D."""
    turns: int = 7
    """The number of turns of each step, whose median counts."""
    results: Path = Path("runs/devices")
    """The path of the results, without their endings .md and .json."""


def main() -> None:
    """Parses the command line, measures, writes the results."""
    arguments = tyro.cli(Arguments)
    if any(batch % n for batch in arguments.batches for n in arguments.part_of):
        raise InputError("--batches must be multiples of all numbers of --part-of.")
    if len(arguments.values) != len(arguments.part_of) or max(arguments.values, default=0) >= 2**31:
        raise InputError("--values needs one number below 2^31 for each number of --part-of.")
    shared, added, parts = [], [], []
    total = len(arguments.devices) + len(arguments.processes)
    total += len(arguments.part_of) * len(arguments.batches)
    with track("Measuring", total, "steps") as bar:
        for number in arguments.devices:
            shared += on_devices(number, _steps, number, arguments)
            bar.advance(1)
        for number in arguments.processes:
            added += in_processes(number, _steps, number, arguments, _ROWS * number)
            bar.advance(1)
        for number, values in zip(arguments.part_of, arguments.values, strict=True):
            for batch in arguments.batches:
                case = _part(number, values, batch, arguments.dim)
                seconds = part_of_step(case, arguments.turns)
                parts.append(describe(case) | {"ms": 1e3 * seconds})
                bar.advance(1)
    content = {"machine": machine(), "shared": shared, "added": added, "parts": parts}
    missing = write_results(arguments.results, content, lambda: _lines(shared, added, parts))
    print_results(arguments.results, missing)


def _part(number: int, values: int, batch: int, dim: int) -> Case:
    size = -(-values // (_FIELDS * number)) * number
    return Case((size,) * _FIELDS, dim, batch, number, "rowwise", split=True)


def _steps(number: int, arguments: Arguments, rows: int = _ROWS) -> list[dict[str, Any]]:
    """The steps of as many devices, in each process that takes part."""
    found = []
    for tables in UPDATES:
        for split in (False, True) if number > 1 else (False,):
            sizes = sizes_of("criteo", arguments.shrink)
            case = Case(sizes, arguments.dim, rows, number, tables, split)
            measured = measure(case, arguments.turns)
            expected = counted(case, int(measured.pop("network")))
            found.append(describe(case) | measured | {"expected": expected})
    return found


def _lines(
    shared: list[dict[str, Any]], added: list[dict[str, Any]], parts: list[dict[str, Any]]
) -> list[str]:
    return [
        "# Devices",
        "",
        *machine(),
        "",
        *_shared_lines(shared),
        *_added_lines(added),
        *_part_lines(parts),
    ]


def _shared_lines(shared: list[dict[str, Any]]) -> list[str]:
    if not shared:
        return []
    alone = {row["tables"]: row["ms"] for row in shared if row["devices"] == 1}
    rows = [
        [
            row["tables"],
            "between all" if row["split"] else "on each",
            str(row["devices"]),
            f"{row['ms']:.1f}",
            f"{row['ms'] / alone[row['tables']]:.2f}" if row["tables"] in alone else "",
            *(
                f"{row[name] / 1e6:.2f} ({row['expected'][name] / 1e6:.2f})"
                for name in ("bytes held", "bytes received")
            ),
        ]
        for row in shared
    ]
    headers = ("update", "tables", "devices", "ms", "of one", "MB held", "MB received")
    about = (
        f"A step of {shared[0]['B']} rows of Criteo's shape ({shared[0]['V']:,} values, D "
        f"{shared[0]['D']}) on CPU devices that share the cores: ms are the work of all devices. "
        "MB held are tables and moments on a device, MB received those of a device in a step; in "
        "brackets what the counts in ihas_jax/training/README.md say."
    )
    return [*markdown_table(headers, rows, texts=(0, 1)), "", about, ""]


def _added_lines(added: list[dict[str, Any]]) -> list[str]:
    """The table of processes, by the work that the machine does with them."""
    if not added:
        return []
    cores = os.cpu_count() or 1
    speeds = [row["B"] / row["ms"] * 1e3 / cores for row in added]
    alone = {row["tables"]: v for row, v in zip(added, speeds, strict=True) if row["devices"] == 1}
    rows = [
        [
            row["tables"],
            "between all" if row["split"] else "on each",
            str(row["devices"]),
            f"{row['B']:,}",
            f"{row['ms']:.1f}",
            f"{speed:,.0f}",
            f"{speed / alone[row['tables']]:.2f}" if row["tables"] in alone else "",
            f"{row['bytes received'] / 1e6:.2f}",
        ]
        for row, speed in zip(added, speeds, strict=True)
    ]
    headers = ("update", "tables", "processes", "rows", "ms", "rows/s of a core", "of one")
    about = (
        f"Steps of processes with a CPU device each, of which every one adds {_ROWS:,} rows. All "
        f"share {cores} cores, so rows per second of a core are the measure; MB received are those "
        "of one process in a step, over the loopback."
    )
    return [*markdown_table((*headers, "MB received"), rows, texts=(0, 1)), "", about, ""]


def _part_lines(parts: list[dict[str, Any]]) -> list[str]:
    if not parts:
        return []
    rows = [
        [f"{row['V']:,}", f"{row['B']:,}", str(row["devices"]), f"{row['ms']:.3f}"] for row in parts
    ]
    about = (
        "What one device computes of a step that as many devices share, with tables between them, "
        f"{_FIELDS} fields and D {parts[0]['D']}: row-wise, without what it receives."
    )
    return [*markdown_table(("V", "B", "devices", "ms"), rows, texts=()), "", about]


if __name__ == "__main__":
    run_cli(main)
