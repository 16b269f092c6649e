"""A process that works for another one: it answers calls until its parent ends."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from io import BufferedIOBase, BufferedReader
from typing import Any

import jax

from ihas_jax.errors import InputError
from ihas_jax.pipeline.exchange import load, send
from ihas_jax.pipeline.plugins import import_again
from ihas_jax.programs import kept_programs

_CHUNK = 1 << 20
_POLL = 0.2
"""Seconds within which a process notices that its parent is gone."""


def serve() -> None:
    """Answers calls of the parent until it ends; the whole of a process that works for it."""
    parent = int(sys.argv[1])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    logger = logging.getLogger("ihas_jax")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_Sender(answers))
    with ExitStack() as until_the_end:
        _answer(os.fdopen(os.dup(0), "rb"), answers, until_the_end)


def _answer(calls: BufferedReader, answers: BufferedIOBase, until_the_end: ExitStack) -> None:
    """Reads what the parent wants of this process, and then answers its calls."""
    try:
        values, programs, modules = load(calls)
        if programs != "off":
            values.pop("jax_compilation_cache_dir")  # JAX would read and write there in its own way
        _configure_jax(values)
        until_the_end.enter_context(kept_programs(programs))
        for module in modules:
            import_again(module)
        kept = load(calls)
    except Exception as error:
        _send_error(answers, error)
        while calls.read(_CHUNK):  # the parent reads once all is sent
            pass
    while calls.peek(1):
        try:
            function, arguments = load(calls, kept)
            send(answers, ("result", function(*arguments)), kept)
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
    send(answers, ("error", error))


class _Sender(logging.Handler):
    """Sends messages to the parent."""

    def __init__(self, answers: BufferedIOBase) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        """Sends one message."""
        kind = "warning" if record.levelno >= logging.WARNING else "message"
        send(self._answers, (kind, record.getMessage()))


def _end_with(parent: int) -> None:
    """Ends this process once its parent is another one."""
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)
