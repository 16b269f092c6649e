"""Calls beside each other, in processes with a core of their own.

XLA's threads bring little at the size of a click model: two trainings on two cores are faster with
a core each than one after the other with both. What a process logs, its parent logs.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from io import BufferedIOBase, BytesIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import jax
import numpy as np

from ihas_jax.data.checks import file_of
from ihas_jax.errors import InputError
from ihas_jax.pipeline.plugins import import_again
from ihas_jax.progress import say, warn

Call = tuple[str, Callable[..., Any], tuple[Any, ...]]
"""A name for messages, a function that other processes can import, and its arguments."""
_SERVE = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "  # the parent ends its workers
    "from ihas_jax.pipeline.workers import serve; serve()"
)
_MOST = 4
_CHUNK = 1 << 20
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
    calls: Sequence[Call], workers: int, kept: Sequence[Any] = (), modules: Sequence[str] = ()
) -> Iterator[Iterator[tuple[int, Any]]]:
    """Gives the places of calls and their results as they finish, in any order.

    Arguments and results are copied between processes, but mapped files are opened anew. The
    processes end with the block, and with their parent, even if that is killed.

    Args:
      calls: what is to be done.
      workers: the most processes.
      kept: objects that each process gets once, and that are not copied back with a result.
      modules: what each process imports first, as `modules_of` names it.

    Raises:
      InputError: a call raised it, or a process has ended before its call.
      Exception: what else a call has raised.
    """
    cores = _cores()
    start = _dumps((jax.config.values, tuple(modules))), _dumps(tuple(kept))
    processes: list[_Process] = []
    free: SimpleQueue[_Process] = SimpleQueue()

    def work(call: Call) -> Any:
        process = free.get()
        try:
            return process.ask(call)
        finally:
            free.put(process)

    number = min(workers, len(calls))
    with ThreadPoolExecutor(number) as pool:
        futures: dict[Future[Any], int] = {}
        try:
            for i in range(number):
                processes.append(_Process(cores[i % len(cores)], start, kept))
                free.put(processes[i])
            del start  # as large as what is kept
            futures |= {pool.submit(work, call): i for i, call in enumerate(calls)}
            yield ((futures[future], future.result()) for future in as_completed(futures))
        finally:
            for future in futures:
                future.cancel()
            for process in processes:
                process.end()


def serve() -> None:
    """Answers calls of the parent until it ends; the whole of a process that works for it."""
    core, parent = int(sys.argv[1]), int(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    logger = logging.getLogger("ihas_jax")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_Sender(answers))
    calls = os.fdopen(os.dup(0), "rb")
    try:
        values, modules = pickle.load(calls)
        _configure_jax(values)
        for module in modules:
            import_again(module)
        kept = pickle.load(calls)
    except Exception as error:
        _send_error(answers, error)
        while calls.read(_CHUNK):  # the parent reads once all is sent
            pass
    while calls.peek(1):
        try:
            function, arguments = _Unpickler(calls, kept).load()
            _send(answers, ("result", function(*arguments)), kept)
        except Exception as error:
            _send_error(answers, error)
        jax.clear_caches()  # another call seldom needs these programs, and they take memory


def _configure_jax(values: Mapping[str, Any]) -> None:
    """Gives JAX the configuration of the parent."""
    for name, value in values.items():
        if jax.config.values.get(name) != value:
            jax.config.update(name, value)


def _send_error(answers: BufferedIOBase, error: Exception) -> None:
    """Sends an error, or one with its words if it can't be copied."""
    if not isinstance(error, InputError):
        error.add_note(f"In another process:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        notes = getattr(error, "__notes__", [])
        error = RuntimeError(f"{type(error).__name__}: {error}")
        error.__notes__ = notes
    _send(answers, ("error", error))


class _Sender(logging.Handler):
    """Sends messages to the parent."""

    def __init__(self, answers: BufferedIOBase) -> None:
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

    def __init__(self, stream: BufferedIOBase, kept: Sequence[Any]) -> None:
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

    def __init__(self, stream: BufferedIOBase, kept: Sequence[Any]) -> None:
        super().__init__(stream)
        self._kept = kept

    def persistent_load(self, number: int) -> Any:
        """A kept object."""
        return self._kept[number]


def _reopen(path: str, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(np.memmap(path, dtype, "r", offset, shape))


def _dumps(content: Any, kept: Sequence[Any] = ()) -> memoryview:
    whole = BytesIO()
    _Pickler(whole, kept).dump(content)
    return whole.getbuffer()


def _send(stream: BufferedIOBase, content: Any, kept: Sequence[Any] = ()) -> None:
    whole = _dumps(content, kept)  # what can't be sent must not be sent in part
    stream.write(whole)
    stream.flush()


def _cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class _Process:
    """A process that answers calls, one after the other.

    Args:
      core: the core that it works on.
      start: what it reads first.
      kept: the objects that it gets once.
    """

    def __init__(self, core: int, start: Sequence[memoryview], kept: Sequence[Any]) -> None:
        paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path)
        self._start, self._kept = start, kept
        self._process = subprocess.Popen(
            # -P: a module in the working directory is not one of the program
            [sys.executable, "-P", "-c", _SERVE, str(core), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": paths},
        )

    def ask(self, call: Call) -> Any:
        """The result of a call; its messages are logged here."""
        name, function, arguments = call
        calls, answers = self._process.stdin, self._process.stdout
        assert isinstance(calls, BufferedIOBase) and isinstance(answers, BufferedIOBase)
        with self._alive(name):
            for part in self._start:
                calls.write(part)
            self._start = ()
            _send(calls, (function, arguments), self._kept)
        while True:
            with self._alive(name):
                kind, content = _Unpickler(answers, self._kept).load()
            if kind == "result":
                return content
            if kind == "error":
                raise content
            (warn if kind == "warning" else say)(f"{name}: {content}")

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]

    @contextmanager
    def _alive(self, name: str) -> Iterator[None]:
        """Raises: InputError: the process has ended in the block."""
        try:
            yield
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            raise InputError(
                f"A process that works at {name} has ended by itself (exit code "
                f"{self._process.wait()}), perhaps for want of memory. Run the same command again "
                "with --workers 1."
            ) from None


def _end_with(parent: int) -> None:
    """Ends this process once its parent is another one."""
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)
