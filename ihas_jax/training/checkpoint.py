"""Checkpoints: items of arrays, parameters being one of their own, beside JSON facts."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from ihas_jax.progress import log

_SUMS = "checksums.json"
Items = dict[str, Any]
"""Trees of arrays by item name."""


class Checkpoints:
    """The newest two checkpoints of one folder, numbered, each with checksums of its files.

    A checkpoint is complete or absent: Orbax writes into a temporary folder and renames it.
    """

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        """With `read_only` nothing in the folder is made or removed."""
        self.directory, self._read_only = directory.resolve(), read_only
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2, enable_async_checkpointing=False, create=not read_only
            ),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    def save(self, items: Items, facts: dict[str, Any]) -> None:
        """Writes the next checkpoint and drops all but the newest two.

        Args:
          items: trees of arrays, each with at least one array, by name ('facts' is taken).
          facts: JSON-ready values.
        """
        newest = self._manager.latest_step()
        saves = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        number = 0 if newest is None else newest + 1
        self._manager.save(
            number, args=ocp.args.Composite(facts=ocp.args.JsonSave(facts), **saves), force=True
        )
        folder = self.directory / str(number)
        (folder / _SUMS).write_text(json.dumps(_sums(folder)), encoding="utf-8")

    def restore(self, like: Items) -> tuple[Items, dict[str, Any]] | None:
        """Items and facts of the newest undamaged checkpoint; None where there is none.

        Damaged ones are named in the log, and removed unless the folder is read only.

        Args:
          like: trees of the shapes, types and placement to restore (the first device where a
        shape says none).
        """
        for number in sorted(self._manager.all_steps(), reverse=True):
            found = self._read(number, like)
            if found is not None:
                return found
            place = self.directory / str(number)
            if self._read_only:
                log(f"[Checkpoint] {place} is damaged; trying the one before.")
                continue
            log(
                f"[Checkpoint] {place} is damaged and was removed; going on from the one before, "
                "or from the start."
            )
            self._manager.delete(number)
        return None

    def _read(self, number: int, like: Items) -> tuple[Items, dict[str, Any]] | None:
        targets = {
            name: ocp.args.StandardRestore(jax.tree.map(_target, tree))
            for name, tree in like.items()
        }
        try:
            if not self._intact(number):
                return None
            restored = self._manager.restore(
                number, args=ocp.args.Composite(facts=ocp.args.JsonRestore(), **targets)
            )
            return {name: restored[name] for name in like}, restored["facts"]
        except Exception:  # what Orbax raises for a damaged file is not documented
            return None

    def _intact(self, number: int) -> bool:
        """Compares the files with their checksums, where a save lived to write them.

        Note: Orbax notices most damage too, but prints tracebacks from its threads.
        """
        folder = self.directory / str(number)
        sums = folder / _SUMS
        return not sums.exists() or json.loads(sums.read_text(encoding="utf-8")) == _sums(folder)


def _target(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
        # else Orbax looks for the devices that the checkpoint was written on
        return leaf.update(sharding=SingleDeviceSharding(jax.local_devices()[0]))
    return ocp.utils.to_shape_dtype_struct(leaf)


def _sums(folder: Path) -> dict[str, int]:
    """CRC-32 of each file below a folder."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _SUMS:
            total = 0
            with path.open("rb") as file:
                while part := file.read(1 << 24):
                    total = zlib.crc32(part, total)
            sums[str(path.relative_to(folder))] = total
    return sums
