"""Checkpoints: items of arrays, parameters being one of their own, beside JSON facts."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from ihas_jax.progress import log

Items = dict[str, Any]
"""Trees of arrays by item name."""


class Checkpoints:
    """The newest two checkpoints of one folder, numbered, each with a checksum.

    A checkpoint is complete or absent: Orbax writes into a temporary folder and renames it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False),
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
        content = {"facts": facts, "checksum": _checksum(items)}
        self._manager.save(
            0 if newest is None else newest + 1,
            args=ocp.args.Composite(facts=ocp.args.JsonSave(content), **saves),
            force=True,
        )

    def restore(self, like: Items) -> tuple[Items, dict[str, Any]] | None:
        """Items and facts of the newest undamaged checkpoint; None where there is none.

        Damaged ones are named in the log and removed.

        Args:
          like: trees of the shapes, types and placement to restore.
        """
        for number in sorted(self._manager.all_steps(), reverse=True):
            found = self._read(number, like)
            if found is not None:
                return found
            log(
                f"[Checkpoint] {self.directory / str(number)} is damaged and was removed; going "
                "on from the one before, or from the start."
            )
            self._manager.delete(number)
        return None

    def _read(self, number: int, like: Items) -> tuple[Items, dict[str, Any]] | None:
        targets = {
            name: ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, tree))
            for name, tree in like.items()
        }
        try:
            restored = self._manager.restore(
                number, args=ocp.args.Composite(facts=ocp.args.JsonRestore(), **targets)
            )
            items = {name: restored[name] for name in like}
            content = restored["facts"]
            intact = _checksum(items) == content["checksum"]
        except Exception:  # what Orbax raises for a damaged file is not documented
            return None
        return (items, content["facts"]) if intact else None


def _checksum(items: Items) -> int:
    total = 0
    for leaf in jax.tree.leaves(items):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        total = zlib.crc32(np.ascontiguousarray(leaf).data, total)
    return total
