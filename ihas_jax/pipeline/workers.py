"""Calls beside each other, in processes with one thread of XLA each.

XLA's threads bring little at the size of a click model: two trainings on two cores are faster with
a thread each than one after the other with both. What a process logs, its parent logs.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from io import BufferedIOBase
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import jax

from ihas_jax.errors import InputError
from ihas_jax.pipeline.exchange import dumps, load, send
from ihas_jax.programs import kept_in
from ihas_jax.progress import say, warn

Call = tuple[str, Callable[..., Any], tuple[Any, ...]]
"""A name for messages, a function that other processes can import, and its arguments."""
_SERVE = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "  # the parent ends its workers
    "from ihas_jax.pipeline.worker import serve; serve()"
)
_MOST = 4
_ONE_THREAD = {"PJRT_NPROC": "1"}
_SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""A process takes no more of an accelerator's memory than it uses, if the user does not say."""


def usual_workers(memory: float) -> int:
    """How many processes a machine has room for: one per core, up to four.

    Half of the machine's memory is left to other programs. With an accelerator there is one.

    Args:
      memory: the bytes that each process needs.
    """
    if jax.default_backend() != "cpu":
        return 1
    room = 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / memory
    return max(1, min(_MOST, _cores(), int(room)))


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
    start = dumps((jax.config.values, kept_in(), tuple(modules))), dumps(tuple(kept))
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
            for _ in range(number):
                processes.append(_Process(start, kept))
                free.put(processes[-1])
            del start  # as large as what is kept
            futures |= {pool.submit(work, call): i for i, call in enumerate(calls)}
            yield ((futures[future], future.result()) for future in as_completed(futures))
        finally:
            for future in futures:
                future.cancel()
            for process in processes:
                process.end()


def _cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Process:
    """A process that answers calls, one after the other.

    Args:
      start: what it reads first.
      kept: the objects that it gets once.
    """

    def __init__(self, start: Sequence[bytes], kept: Sequence[Any]) -> None:
        paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path)
        self._start, self._kept = start, kept
        self._process = subprocess.Popen(
            # -P: a module in the working directory is not one of the program
            [sys.executable, "-P", "-c", _SERVE, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_SHARED | os.environ | _ONE_THREAD | {"PYTHONPATH": paths},
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
            send(calls, (function, arguments), self._kept)
        while True:
            with self._alive(name):
                kind, content = load(answers, self._kept)
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
