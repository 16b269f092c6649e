"""Checkpoints: trees of arrays by name, and JSON facts."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from ihas_jax import checksums, processes
from ihas_jax.errors import InputError, disk_error
from ihas_jax.interrupts import RESUME
from ihas_jax.models.placing import mesh_of, put
from ihas_jax.names import printable
from ihas_jax.nn.split import padded_rows
from ihas_jax.processes import agreed, by_first, every
from ihas_jax.progress import warn
from ihas_jax.root_logger import ocp, root_logger_kept

_SECONDS = 10.0
Items = dict[str, Any]
"""Trees of arrays by item name."""


class Checkpoints:
    """The newest checkpoints of one folder, numbered, each with checksums of its files.

    A checkpoint is complete or absent: Orbax writes into a temporary folder and renames it. In a
    job of several processes all call each function at once, and each writes what it alone has.
    """

    def __init__(self, directory: Path, *, keep: int = 2, read_only: bool = False) -> None:
        """Opens a folder that keeps its newest checkpoints.

        Args:
          directory: the folder.
          keep: how many checkpoints it keeps.
          read_only: make and remove nothing in the folder.
        """
        self.directory, self._read_only = directory.resolve(), read_only
        require_utf8(self.directory)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=False,
            create=False,
            multiprocessing_options=_those_at_work(),
        )
        if not read_only:
            agreed(lambda: self.directory.mkdir(parents=True, exist_ok=True))
        with _quiet():
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        with _quiet():
            self._manager.close()

    def save(self, items: Items, facts: dict[str, Any]) -> None:
        """Writes the next checkpoint and removes the oldest.

        Args:
          items: trees of arrays, each with at least one array, by name ('facts' is taken).
          facts: JSON-ready values.

        Raises:
          InputError: the disk is full, or can't be written for another reason.
        """
        newest = agreed(self._manager.latest_step)
        number = 0 if newest is None else newest + 1
        threads = set(threading.enumerate())
        with _quiet(), _held_stderr() as held:
            problem = self._write(number, items, facts)
            if problem is not None:
                _wait(set(threading.enumerate()) - threads, held)
                held.truncate(0)  # a traceback per thread and array
                atexit.register(_mute)  # threads print more of them when Python ends
        if problem is not None:
            raise problem

    def _write(self, number: int, items: Items, facts: dict[str, Any]) -> InputError | None:
        saves = {
            name: ocp.args.StandardSave(jax.tree.map(_savable, tree))
            for name, tree in items.items()
        }
        try:
            self._manager.save(
                number, args=ocp.args.Composite(facts=ocp.args.JsonSave(facts), **saves), force=True
            )
            agreed(lambda: checksums.seal(self.directory / str(number)))
        except Exception as error:  # what Orbax raises is not documented
            if problem := disk_error(error, self.directory, RESUME):
                return problem
            raise
        return None

    def restore(self, like: Items) -> tuple[Items, dict[str, Any]] | None:
        """Reads the items and facts of the newest undamaged checkpoint; None where there is none.

        Arrays that devices split then or now are padded anew; see `ihas_jax.nn.split`. Damaged
        checkpoints are named in the log and, unless the folder is read only, renamed.

        Args:
          like: trees of the shapes, types and devices to restore; an array whose shape names no
            device is put on the first one.

        Raises:
          InputError: an undamaged checkpoint can't be restored, for lack of memory or because it is
            of another version.
        """
        for number in agreed(lambda: sorted(self._manager.all_steps(), reverse=True)):
            place, intact = self.directory / str(number), self._intact(number)
            if intact is not False:
                found = self._try(number, like, intact)
                if all(every(found is not None)):
                    return found
            if self._read_only:
                warn(f"[Checkpoint] {place} is damaged; an earlier checkpoint is tried.")
            else:
                self._rename_damaged(place)
                self._manager.reload()
        return None

    def _try(
        self, number: int, like: Items, intact: bool | None
    ) -> tuple[Items, dict[str, Any]] | None:
        """Reads a checkpoint; None where one without checksums can't be read."""
        try:
            with _quiet():
                return self._read(number, like)
        except Exception as error:  # what Orbax raises is not documented
            if not intact:
                return None
            first = str(error).partition("\n")[0][:200]
            remedy = "run the same command again where there is enough memory"
            if isinstance(error, ValueError):  # the arrays may be other ones
                remedy = f"resume with the version of ihas_jax that wrote it, or {remedy}"
            raise InputError(
                f"{self.directory / str(number)} is not damaged, but can't be restored "
                f"({type(error).__name__}: {first}). Nothing was removed; {remedy}."
            ) from error

    def _read(self, number: int, like: Items) -> tuple[Items, dict[str, Any]]:
        place, handler = self.directory / str(number), ocp.StandardCheckpointHandler()
        targets = {
            name: ocp.args.StandardRestore(
                jax.tree.map(_target, tree),
                strict=not _padded_otherwise(handler.metadata(place / name), tree),
            )
            for name, tree in like.items()
        }
        restored = self._manager.restore(
            number, args=ocp.args.Composite(facts=ocp.args.JsonRestore(), **targets)
        )
        return {name: restored[name] for name in like}, restored["facts"]

    @by_first
    def _intact(self, number: int) -> bool | None:
        """Whether the files have their checksums; None where no checksums were written yet.

        Note: Orbax notices most damage too, but prints tracebacks from its threads.
        """
        try:
            damaged = checksums.damaged(self.directory / str(number))
        except InputError:
            return False
        return None if damaged is None else not damaged

    @by_first
    def _rename_damaged(self, place: Path) -> None:
        renamed = place.with_name(f"damaged-{place.name}")
        shutil.rmtree(renamed, ignore_errors=True)
        place.rename(renamed)
        warn(
            f"[Checkpoint] {place} is damaged and now called {renamed.name}; the training resumes "
            "from an earlier checkpoint, or starts again if there is none."
        )


def require_utf8(folder: Path) -> None:
    """Raises: InputError: Orbax can't write checkpoints below a folder of that name."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{printable(folder)} can't hold a run, since a part of its name is not UTF-8. Choose "
            "another folder, or rename it."
        ) from None


def _padded_otherwise(stored: Any, tree: Any) -> bool:
    """Whether arrays have other shapes than the stored ones, and only by the padding of rows."""
    found, wanted = _shapes(stored), _shapes(ocp.tree.serialize_tree(tree, keep_empty_nodes=True))
    pairs = [(found.get(path, ()), shape) for path, shape in wanted.items()]
    others = [(old[:1], new[:1], old[1:] == new[1:]) for old, new in pairs if old != new]
    return bool(others) and all(
        alike and [*map(padded_rows, old)] == [*map(padded_rows, new)] for old, new, alike in others
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of a tree that have rows, by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves if leaf.shape}


def _those_at_work() -> Any:
    """The processes that write together: all of a job, or one of them by itself."""
    if processes.client() is None or processes.in_job():
        return ocp.options.MultiprocessingOptions()
    own = processes.index()
    return ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})


def _savable(leaf: Any) -> Any:
    """An array as Orbax takes it, which wants no array of one process of a job."""
    own = processes.client() is not None and isinstance(leaf, jax.Array)
    if not own or not leaf.is_fully_addressable:
        return leaf
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        mesh = mesh_of(processes.devices(), split=False)
        return put(leaf, NamedSharding(mesh, PartitionSpec()))
    return np.asarray(leaf)


def _target(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
        # else Orbax looks for the devices that the checkpoint was written on
        return leaf.update(sharding=SingleDeviceSharding(jax.local_devices()[0]))
    return ocp.utils.to_shape_dtype_struct(leaf)


def _wait(threads: set[threading.Thread], held: IO[bytes]) -> None:
    """Waits until all threads and tasks of Orbax have noticed that a save failed."""
    for thread in threads:
        threading.Thread.join(thread, _SECONDS)  # the thread's own `join` raises its error
    gc.collect()
    # the threads of TensorStore can't be asked whether they have ended, but they print
    end, printed = time.monotonic() + _SECONDS, -1
    while time.monotonic() < end:
        before, printed = printed, os.fstat(held.fileno()).st_size
        if before == printed:
            return
        time.sleep(1.0)


def _mute() -> None:
    """Discards what the process prints on stderr from now on."""
    if sys.stderr is not None:
        sys.stderr.flush()
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


@contextmanager
def _held_stderr() -> Iterator[IO[bytes]]:
    """Holds what is written to stderr in a file until the block ends, and yields the file.

    Python can't redirect the tracebacks of TensorStore, which is written in C++.
    """
    with tempfile.TemporaryFile() as file:
        try:
            stderr = os.dup(2)
        except OSError:  # there is none
            yield file
            return
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(stderr, 2)
            file.seek(0)
            if text := file.read().lstrip(b"\0"):
                os.write(stderr, text)
            os.close(stderr)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the loggers of Orbax while the block runs, since its calls raise what matters."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        with root_logger_kept():
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
