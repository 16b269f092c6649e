"""Checkpoints: items of arrays, parameters being one of their own, beside JSON facts."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from ihas_jax.errors import InputError
from ihas_jax.names import printable
from ihas_jax.progress import warn
from ihas_jax.root_logger import ocp, root_logger_kept

_SUMS = "checksums.json"
Items = dict[str, Any]
"""Trees of arrays by item name."""


class Checkpoints:
    """The newest checkpoints of one folder, numbered, each with checksums of its files.

    A checkpoint is complete or absent: Orbax writes into a temporary folder and renames it.
    """

    @root_logger_kept()
    def __init__(self, directory: Path, *, keep: int = 2, read_only: bool = False) -> None:
        """Keeps the newest `keep`; with `read_only` nothing in the folder is made or removed."""
        self.directory, self._read_only = directory.resolve(), read_only
        require_utf8(self.directory)
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, enable_async_checkpointing=False, create=not read_only
            ),
        )

    def __enter__(self) -> Checkpoints:
        return self

    @root_logger_kept()
    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    @root_logger_kept()
    def save(self, items: Items, facts: dict[str, Any]) -> None:
        """Writes the next checkpoint and drops the oldest.

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
        partial = folder / f".{_SUMS}.partial"
        partial.write_text(json.dumps(_sums(folder)), encoding="utf-8")
        partial.replace(folder / _SUMS)

    @root_logger_kept()
    def restore(self, like: Items) -> tuple[Items, dict[str, Any]] | None:
        """Items and facts of the newest undamaged checkpoint; None where there is none.

        Damaged ones are named in the log and, unless the folder is read only, set aside.

        Args:
          like: trees of the shapes, types and placement to restore (the first device where a
            shape says none).

        Raises:
          InputError: an undamaged checkpoint can't be restored, for lack of memory, say.
        """
        for number in sorted(self._manager.all_steps(), reverse=True):
            place, intact = self.directory / str(number), self._intact(number)
            if intact is not False:
                try:
                    return self._read(number, like)
                except Exception as error:  # what Orbax raises is not documented
                    if intact:
                        first = str(error).partition("\n")[0][:200]
                        raise InputError(
                            f"{place} is not damaged, but can't be restored "
                            f"({type(error).__name__}: {first}). Nothing was removed; run the "
                            "same command again where there is enough memory."
                        ) from error
            if self._read_only:
                warn(f"[Checkpoint] {place} is damaged; trying the one before.")
            else:
                self._set_aside(place)
        return None

    def _read(self, number: int, like: Items) -> tuple[Items, dict[str, Any]]:
        targets = {
            name: ocp.args.StandardRestore(jax.tree.map(_target, tree))
            for name, tree in like.items()
        }
        restored = self._manager.restore(
            number, args=ocp.args.Composite(facts=ocp.args.JsonRestore(), **targets)
        )
        return {name: restored[name] for name in like}, restored["facts"]

    def _intact(self, number: int) -> bool | None:
        """Whether the files have their checksums; None where a save did not live to write them.

        Note: Orbax notices most damage too, but prints tracebacks from its threads.
        """
        folder = self.directory / str(number)
        try:
            sums = json.loads((folder / _SUMS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            return False
        return bool(sums == _sums(folder))

    def _set_aside(self, place: Path) -> None:
        aside = place.with_name(f"damaged-{place.name}")
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
        self._manager.reload()
        warn(
            f"[Checkpoint] {place} is damaged and now called {aside.name}; going on from the one "
            "before, or from the start."
        )


def require_utf8(folder: Path) -> None:
    """Raises: InputError: Orbax can't write checkpoints below a folder of that name."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{printable(folder)} can't hold a run, since a part of that name is not UTF-8. Choose "
            "another folder, or rename it."
        ) from None


def _target(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
        # else Orbax looks for the devices that the checkpoint was written on
        return leaf.update(sharding=SingleDeviceSharding(jax.local_devices()[0]))
    return ocp.utils.to_shape_dtype_struct(leaf)


def _sums(folder: Path) -> dict[str, int]:
    """CRC-32 of each file below a folder."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and _SUMS not in path.name:
            total = 0
            with path.open("rb") as file:
                while part := file.read(1 << 24):
                    total = zlib.crc32(part, total)
            sums[str(path.relative_to(folder))] = total
    return sums
