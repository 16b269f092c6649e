"""Calls beside each other, in processes with a core of their own.

XLA's threads bring little at the size of a click model: two trainings on two cores are faster with
a core each than one after the other with both. What a process logs, its parent logs.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

import jax
import numpy as np

from ihas_jax.data.checks import file_of
from ihas_jax.errors import InputError
from ihas_jax.progress import say, warn

Call = tuple[str, Callable[..., Any], tuple[Any, ...]]
"""A name for messages, a function that other processes can import, and its arguments."""
_SERVE = "from ihas_jax.pipeline.workers import serve; serve()"
_MOST = 4
_POLL = 0.2
"""Seconds within which a process notices that its parent is gone."""


def usual_workers(memory: float) -> int:
    """How many processes a machine has room for: one per core, up to four.

    Half of the machine's memory is left to other programs. With an accelerator there is one.

    Args:
      memory: the bytes that each process needs.
    """
    if jax.default_backend() != "cpu":
        return 1
    room = 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / memory
    return max(1, min(_MOST, len(_cores()), int(room)))


@contextmanager
def together(
    calls: Sequence[Call], workers: int, kept: Sequence[Any] = ()
) -> Iterator[Iterator[tuple[int, Any]]]:
    """Gives the places of calls and their results as they finish, in any order.

    Arguments and results are copied between processes, but mapped files are opened anew. The
    processes end with the block, and with their parent, even if that is killed.

    Args:
      calls: what is to be done.
      workers: the most processes.
      kept: objects that each process gets once, and that are not copied back with a result.

    Raises:
      InputError: a call raised it, or a process has ended before its call.
      Exception: what else a call has raised.
    """
    cores = _cores()
    numbers = range(min(workers, len(calls)))
    processes = [_start(cores[i % len(cores)], kept) for i in numbers]
    free: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
    for process in processes:
        free.put(process)

    def work(call: Call) -> Any:
        process = free.get()
        try:
            return _ask(process, call, kept)
        finally:
            free.put(process)

    with ThreadPoolExecutor(len(processes)) as pool:
        futures = {pool.submit(work, call): i for i, call in enumerate(calls)}
        try:
            yield ((futures[future], future.result()) for future in as_completed(futures))
        finally:
            for future in futures:
                future.cancel()
            for process in processes:
                process.kill()
                process.wait()
                for stream in (process.stdin, process.stdout):
                    with suppress(BrokenPipeError):
                        stream.close()  # type: ignore[union-attr]


def serve() -> None:
    """Answers calls of the parent until it ends; the whole of a process that works for it."""
    core, parent = int(sys.argv[1]), int(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    logger = logging.getLogger("ihas_jax")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_Sender(answers))
    kept = pickle.load(sys.stdin.buffer)
    while True:
        try:
            function, arguments = _Unpickler(sys.stdin.buffer, kept).load()
        except EOFError:
            return
        try:
            _send(answers, ("result", function(*arguments)), kept)
        except Exception as error:
            if not isinstance(error, InputError):
                error.add_note(f"In another process:\n{traceback.format_exc()}")
            _send(answers, ("error", error))
        jax.clear_caches()  # another call seldom needs these programs, and they take memory


class _Sender(logging.Handler):
    """Sends messages to the parent."""

    def __init__(self, answers: BinaryIO) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        """Sends one message."""
        kind = "warning" if record.levelno >= logging.WARNING else "message"
        _send(self._answers, (kind, record.getMessage()))


class _Pickler(pickle.Pickler):
    """Writes mapped arrays as the names of their files, and kept objects as their numbers.

    An array of JAX that was donated to a program has no content, and None is written for it.
    """

    def __init__(self, stream: BinaryIO, kept: Sequence[Any]) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self._numbers = {id(one): number for number, one in enumerate(kept)}

    def persistent_id(self, value: Any) -> int | None:
        """The number of a kept object."""
        return self._numbers.get(id(value))

    def reducer_override(self, value: Any) -> Any:
        """Says how a mapped array is made again."""
        if isinstance(value, jax.Array) and value.is_deleted():
            return type(None), ()
        if isinstance(value, np.ndarray) and (path := file_of(value)) is not None:
            return _reopen, (*path, value.dtype, value.shape)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Reads what `_Pickler` has written."""

    def __init__(self, stream: BinaryIO, kept: Sequence[Any]) -> None:
        super().__init__(stream)
        self._kept = kept

    def persistent_load(self, number: int) -> Any:
        """A kept object."""
        return self._kept[number]


def _reopen(path: str, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(np.memmap(path, dtype, "r", offset, shape))


def _send(stream: BinaryIO, content: Any, kept: Sequence[Any] = ()) -> None:
    whole = io.BytesIO()  # what can't be sent must not be sent in part
    _Pickler(whole, kept).dump(content)
    stream.write(whole.getbuffer())
    stream.flush()


def _cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _start(core: int, kept: Sequence[Any]) -> subprocess.Popen[bytes]:
    """A process that answers calls."""
    paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(core), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
    )
    _send(process.stdin, tuple(kept))  # type: ignore[arg-type]
    return process


def _ask(process: subprocess.Popen[bytes], call: Call, kept: Sequence[Any]) -> Any:
    """The result of a call in another process; its messages are logged here."""
    name, function, arguments = call
    try:
        _send(process.stdin, (function, arguments), kept)  # type: ignore[arg-type]
        while True:
            kind, content = _Unpickler(process.stdout, kept).load()  # type: ignore[arg-type]
            if kind == "result":
                return content
            if kind == "error":
                raise content
            (warn if kind == "warning" else say)(f"{name}: {content}")
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        raise InputError(
            f"A process that works at {name} has ended by itself (exit code {process.wait()}), "
            "perhaps for want of memory. Run the same command again with --workers 1."
        ) from None


def _end_with(parent: int) -> None:
    """Ends this process once its parent is another one."""
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)
