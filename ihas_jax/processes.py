"""The processes of one job: what the first of them finds or does counts for all.

Each process runs the same program. The first one alone reads and writes the folder of a run and
takes the time; its results, and its errors, are those of all processes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import count
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

# What is public can't wait for another process without devices, nor hand over an error. Orbax and
# Grain read the same attribute.
from jax._src.distributed import global_state
from jax.experimental import multihost_utils

T = TypeVar("T")
P = ParamSpec("P")
_LARGE = 1 << 18
"""Bytes from which on devices pass on what the first process found."""
_WAIT_MS = 1000
"""How long a process waits at a time; the handler of Ctrl-C runs in between."""
_KEPT = 64
"""Answers that are kept until all processes are known to have read them."""


class _Turns:
    """Numbers the answers of this process, and knows whether it makes one just now."""

    def __init__(self) -> None:
        self.number = count()
        self.alone = 0
        self.over = False


_turns = _Turns()


def client() -> Any:
    """The store that the processes of a job share; None where there is one process."""
    several = (global_state.num_processes or 1) > 1 and not _turns.over
    return global_state.client if several else None


def leave() -> None:
    """Lets this process compute by itself from now on, once the job is over."""
    _turns.over = True


def in_job() -> bool:
    """Whether several processes are at the same place of the program."""
    return client() is not None and not _turns.alone


def number() -> int:
    """The number of processes that are at the same place of the program."""
    return int(global_state.num_processes or 1) if in_job() else 1


def index() -> int:
    """The place of this process in the job, from 0."""
    return int(global_state.process_id or 0) if client() is not None else 0


def is_first() -> bool:
    """Whether this process works on the folder of a run."""
    return index() == 0


def devices() -> list[jax.Device]:
    """The devices of all processes of a job in their order, or of a process by itself."""
    if not in_job():
        return jax.local_devices()
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


@contextmanager
def alone() -> Iterator[None]:
    """Lets a process compute by itself while the block runs, as if there were no others."""
    _turns.alone += 1
    try:
        yield
    finally:
        _turns.alone -= 1


def agreed(work: Callable[[], T]) -> T:
    """What `work` gives in the first process, in every process.

    All processes of a job must call this in the same order. What `work` gives is pickled. An error
    of the first process is raised in all.
    """
    if not in_job():
        return work()
    store, name = client(), _next_name()
    if not is_first():
        return _take(store, name)
    answer: tuple[bool, Any]
    try:
        with alone():
            answer = True, work()
    except Exception as error:
        answer = False, error
    _give(store, name, answer)
    return _result(answer)


def by_first(function: Callable[P, T]) -> Callable[P, T]:
    """A function that works in the first process and gives its result in all; see `agreed`."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        return agreed(lambda: function(*args, **kwargs))

    return wrapped


def every(value: T) -> list[T]:
    """What each process has at this place, in their order, in all processes."""
    if not in_job():
        return [value]
    store, name = client(), _next_name()
    store.key_value_set_bytes(f"{name}/{index()}", pickle.dumps(value))
    return [pickle.loads(_wait(store, f"{name}/{i}")) for i in range(number())]


def odd_one(value: T) -> tuple[int, T, T] | None:
    """The first process that has another value than process 0: its number, both values."""
    first, *others = every(value)
    return next(((i, first, other) for i, other in enumerate(others, 1) if other != first), None)


def _give(store: Any, name: str, answer: tuple[bool, Any]) -> None:
    """Hands an answer to the other processes."""
    try:
        content = pickle.dumps(answer)
    except Exception:  # what an object's own pickling raises
        if answer[0]:
            raise
        content = pickle.dumps((False, RuntimeError(f"{type(answer[1]).__name__}: {answer[1]}")))
    if len(content) < _LARGE:
        store.key_value_set_bytes(name, b"\0" + content)
    else:
        store.key_value_set_bytes(name, b"\1" + str(len(content)).encode())
        multihost_utils.broadcast_one_to_all(np.frombuffer(content, np.uint8))


def _take(store: Any, name: str) -> Any:
    """Waits for the answer of the first process."""
    content = _wait(store, name)
    if content[:1] == b"\1":
        blank = np.zeros(int(content[1:]), np.uint8)
        found = pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(blank)).tobytes())
    else:
        found = pickle.loads(content[1:])
    return _result(found)


def _result(answer: tuple[bool, Any]) -> Any:
    good, value = answer
    if not good:
        raise value
    return value


def _wait(store: Any, name: str) -> bytes:
    """Waits for as long as it takes: `ihas_jax.joining` ends a process whose job has failed."""
    while True:
        try:
            return bytes(store.blocking_key_value_get_bytes(name, _WAIT_MS))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _next_name() -> str:
    """The name of the next answer; those that all processes have read are removed in between."""
    turn = next(_turns.number)
    if turn and turn % _KEPT == 0:
        client().wait_at_barrier(f"ihas_jax/turn/{turn}", 1 << 31)
        if is_first():
            for old in range(turn - _KEPT, turn):
                client().key_value_delete(_name(old))
    return _name(turn)


def _name(turn: int) -> str:
    return f"ihas_jax/answer/{turn}"
