"""How a process of a job that fails ends the others with its error.

A thread of each process tells the others every second that it lives, and looks whether one of
them has failed or has not been heard of. Only the order of signs and the clock of the process that
waits count, so clocks of machines may differ.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
from contextlib import suppress
from itertools import count
from typing import Any

import jax

from ihas_jax import processes
from ihas_jax.errors import InputError, disk_error
from ihas_jax.interrupts import stderr_copy

LAUNCHER = "IHAS_JAX_LAUNCHER"
"""The variable with the number of the process of launch.py, without which a process ends."""
_BEAT = 1.0
_TRIES = 5
"""How often in a row process 0 may not answer."""
_PATIENCE = 8.0
"""Seconds in which a process that can't go on without another one waits to hear why."""
_SILENCE = 45.0
"""Seconds without a sign after which a process counts as dead."""
_GRACE = 10.0
"""Seconds that a process which fails waits for the others to read why."""
_FAREWELL = 10.0
"""Seconds that process 0 waits for the others when Ctrl-C ends it."""
_FAILURES, _READ, _ALIVE = "ihas_jax/failures", "ihas_jax/read", "ihas_jax/alive"
_FAILED = f"{_FAILURES}/first"
_LINKS = ("gloo", "nccl")
_LOST = (*_LINKS, "connection", "unavailable", "peer", "coordination", "heartbeat")
"""Words of errors that a process gets when another one is gone."""
_AGAIN = "Start all processes again by the same command to resume."


class Watch(threading.Thread):
    """Tells the other processes that this one lives, and ends it when one of them has failed."""

    def __init__(self) -> None:
        """Starts to listen with `start`, in a process that has joined a job."""
        super().__init__(daemon=True, name="job")
        self._store, self._index = processes.client(), processes.index()
        self._number = processes.number()
        self._over, self._failing = threading.Event(), threading.Event()
        self._heard: dict[int, tuple[str, float]] = {}
        self._listened = 0.0
        self._stderr = stderr_copy()
        self._launcher = os.environ.get(LAUNCHER)

    def stop(self) -> None:
        """Ends the watch, at the end of the job."""
        self._over.set()

    def run(self) -> None:
        """Looks after the others until the job is over."""
        lost = 0
        for beat in count():
            try:
                self._store.key_value_set(f"{_ALIVE}/{self._index}", str(beat), True)
                self._listen(dict(self._store.key_value_dir_get(_ALIVE)))
                failure = self._read_failure()
                lost = 0
            except jax.errors.JaxRuntimeError:
                lost += 1
                failure = {"text": _silence_of([0]), "code": 2} if lost > _TRIES else None
            if self._over.wait(_BEAT) or self._failing.is_set():
                return
            if self._launcher not in (None, str(os.getppid())):
                failure = failure or {"text": "launch.py has ended.", "code": 2}
            if failure is not None:
                self._leave(failure)
            elif silent := self._silent(_SILENCE):
                self._leave({"text": _silence_of(silent), "code": 2})

    def fail(self, error: BaseException) -> str:
        """Tells the others what this process fails of, and lets it end without them.

        Where another process has failed first, the thread ends this one meanwhile, as all others.
        """
        lost = is_loss(error)
        if self._index and not lost and not isinstance(error, KeyboardInterrupt):
            time.sleep(2 * _BEAT)
        if lost:
            time.sleep(_PATIENCE)
        self._failing.set()
        text, code = _describe(error)
        if lost and (silent := self._silent(3 * _BEAT)):
            text = _silence_of(silent)
        failure = {"process": self._index, "text": text, "code": code}
        try:
            self._store.key_value_set(_FAILED, json.dumps(failure))
        except jax.errors.JaxRuntimeError:  # another one has failed at the same time
            if self._index:
                self._end(code)
        if self._index == 0:
            self._note_read()
        if self._await_readers() and self._index and code != 1:  # process 0 has said it
            self._end(code)
        atexit.register(self._end, code)
        return text

    def say_goodbye(self) -> None:
        """Lets the others of an interrupted job end before process 0, whose end would crash them.

        Process 0 waits for those that can't answer, too, but a few seconds at most.
        """
        self._note_read()
        if self._index == 0 and self._await_signs(set(range(1, self._number)), _FAREWELL):
            time.sleep(0.1)  # they end right after their sign

    def _leave(self, failure: dict[str, Any]) -> None:
        """Ends this process, which may wait for the others in the middle of a computation."""
        by = failure.get("process")
        if self._index == 0 or by is None:
            name = "" if by is None else f"process {by}: "
            # a checkpoint that is written just now holds what is printed
            text = f"error: {name}{failure['text']}\n"
            os.write(self._stderr, text.encode(errors="backslashreplace"))
        if by is None:
            with suppress(jax.errors.JaxRuntimeError):
                self._store.key_value_set(_FAILED, json.dumps({"process": self._index} | failure))
        self._end(failure["code"])

    def _end(self, code: int) -> None:
        """Ends this process; process 0, through which the others hear of it, is the last one."""
        self._note_read()
        if self._index == 0:
            self._await_readers()
        _leave_at_once(code)

    def _note_read(self) -> None:
        """Tells the others that this process knows of the failure, and is about to end."""
        with suppress(jax.errors.JaxRuntimeError):
            self._store.key_value_set(f"{_READ}/{self._index}", "", True)

    def _await_readers(self) -> bool:
        """Waits a while for process 0 to read of the failure, or there until the others leave."""
        wanted = set(range(1, self._number)) - set(self._silent(3 * _BEAT))
        return self._await_signs({0} if self._index else wanted, _GRACE)

    def _await_signs(self, wanted: set[int], seconds: float) -> bool:
        """Waits until processes know of the failure; False where the time is over before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(jax.errors.JaxRuntimeError):
                names = {name for name, _ in self._store.key_value_dir_get(_READ)}
                if {f"{_READ}/{i}" for i in wanted} <= names:
                    return True
            time.sleep(0.1)
        return False

    def _read_failure(self) -> dict[str, Any] | None:
        found = dict(self._store.key_value_dir_get(_FAILURES))
        return dict(json.loads(found[_FAILED])) if found else None

    def _listen(self, signs: dict[str, str]) -> None:
        """Notes which processes have given a new sign."""
        self._listened = time.monotonic()
        for other in range(self._number):
            sign = signs.get(f"{_ALIVE}/{other}", "")
            if other not in self._heard or self._heard[other][0] != sign:
                self._heard[other] = sign, self._listened

    def _silent(self, seconds: float) -> list[int]:
        """The processes that had given no sign for some seconds when this one last looked."""
        return [i for i, (_, last) in self._heard.items() if self._listened - last > seconds]


def _silence_of(processes: list[int]) -> str:
    numbers = " and ".join(map(str, processes))
    many = len(processes) > 1
    return (
        f"Process{'es' if many else ''} {numbers} {'have' if many else 'has'} ended or can't be "
        f"reached any more. {_AGAIN}"
    )


def is_loss(error: BaseException) -> bool:
    """Whether an error may be that of a computation whose other processes are gone."""
    text = str(error).lower()
    words = _LOST if isinstance(error, jax.errors.JaxRuntimeError) else _LINKS
    return isinstance(error, RuntimeError | ValueError) and any(word in text for word in words)


def _describe(error: BaseException) -> tuple[str, int]:
    """What the other processes say of an error, and their exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, SystemExit):
        code = error.code if type(error.code) is int else 1
        return f"It ended with exit code {code}.", code
    if is_loss(error):
        first = str(error).partition("\n")[0][:200]
        return f"Another process was lost in the middle of a computation ({first}). {_AGAIN}", 2
    problem = disk_error(error) if isinstance(error, OSError) else error
    if isinstance(problem, InputError):
        return str(problem), 2
    return f"{type(error).__name__}: {error}", 1


def _leave_at_once(code: int) -> None:
    """Ends the process; the usual end would wait for processes that are gone."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)
