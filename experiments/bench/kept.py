"""What a benchmark has measured so far: each measure is kept once it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bench.common import Row
from ihas_jax.files import read_json


@dataclass
class Kept:
    """The rows in the files of results, and what the command has left to measure.

    Attributes:
      path: the JSON file.
      asked: the flags of the command, as JSON.
      names: the measures that the command names.
      rows: the rows by what they measure, with those of other commands.
      left: the measures that are not done: what the same command left if it was cut short, or else
        all that the command names.
    """

    path: Path
    asked: dict[str, Any]
    names: Sequence[str]
    rows: dict[str, Row] = field(init=False)
    left: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Raises: InputError: the file can't be read."""
        found = read_json(self.path, "Choose another --results.") if self.path.exists() else {}
        known = {part.name for part in fields(Row)}
        rows = [{k: v for k, v in row.items() if k in known} for row in found.get("rows", ())]
        for row in rows:  # files of earlier versions say it once
            row.setdefault("about", found.get("provenance", []))
        self.rows = {row["measure"]: Row(**row) for row in rows}
        goes_on = found.get("asked") == self.asked and found.get("left")
        self.left = [*found["left"]] if goes_on else [*self.names]

    @property
    def resumed(self) -> bool:
        """Whether the same command was cut short before."""
        return len(self.left) < len(self.names)

    def add(self, name: str, row: Row) -> None:
        """Adds what was measured under a name, in place of what another command found."""
        self.rows[row.measure] = row
        self.left.remove(name)

    def by_command(self) -> list[tuple[list[str], list[Row]]]:
        """The rows of each command, with what they say of command and machine."""
        groups: list[tuple[list[str], list[Row]]] = []
        for row in self.rows.values():
            own = next((rows for about, rows in groups if about == row.about), None)
            if own is None:
                groups.append((row.about, [row]))
            else:
                own.append(row)
        return groups
