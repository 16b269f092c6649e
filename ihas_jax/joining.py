"""How a process works in a job, from the first to the last thing that it does there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path

import jax

from ihas_jax import processes
from ihas_jax.errors import InputError
from ihas_jax.interrupts import before_ending
from ihas_jax.job import Job, connect
from ihas_jax.progress import say, silent
from ihas_jax.watch import Watch, is_loss

_VERSIONS = ("ihas_jax", "jax", "jaxlib", "numpy", "flax", "optax", "orbax-checkpoint")


@contextmanager
def joined(job: Job) -> Iterator[None]:
    """Joins a job while the block runs; an error in the block ends all of its processes.

    This comes before anything that JAX computes. At the end of the block each process waits for the
    others, and then computes by itself.

    Raises:
      InputError: there is no such job, the first process can't be reached, it is too late to join,
        or the processes have other packages or other numbers of devices.
    """
    if job.alone:
        yield
        return
    connect(job)
    if processes.client() is None:  # a job of one process
        yield
        return
    watch = Watch()
    watch.start()
    with before_ending(watch.say_goodbye):
        try:
            with nullcontext() if processes.is_first() else _unheard():
                devices = len(jax.devices())
                say(f"[Job] {processes.number()} processes with {devices} devices work together")
                _require_alike()
                with _ending_together():
                    yield
        except BaseException as error:
            if isinstance(error, SystemExit) and not error.code:
                raise
            text = watch.fail(error)
            if is_loss(error):
                raise InputError(text) from None
            raise
        finally:
            watch.stop()
            processes.leave()


@contextmanager
def _ending_together() -> Iterator[None]:
    """Waits at the end of the block until all processes are there, if it ends well."""
    try:
        yield
    except SystemExit as end:
        if not end.code:
            processes.every(None)
        raise
    processes.every(None)


@contextmanager
def _unheard() -> Iterator[None]:
    """Lets a process print nothing but errors while the block runs."""
    with silent():
        if sys.stdout is None:  # it was closed, and another file may have its number
            yield
            return
        with Path(os.devnull).open("wb") as nowhere:
            sys.stdout.flush()
            stdout = os.dup(1)
            os.dup2(nowhere.fileno(), 1)  # XLA prints, too
            try:
                yield
            finally:
                sys.stdout.flush()
                os.dup2(stdout, 1)
                os.close(stdout)


def _require_alike() -> None:
    """Raises: InputError: a process has other packages or devices than the first one."""
    own = {name: version(name) for name in _VERSIONS}
    own["devices"] = f"{jax.local_device_count()} ({jax.default_backend()})"
    if found := processes.odd_one(own):
        number, first, other = found
        differing = [name for name in own if other[name] != first[name]]
        lines = [f"{name} {other[name]}, not {first[name]}" for name in differing]
        raise InputError(
            f"Process {number} has other packages or devices than process 0: {'; '.join(lines)}. "
            "Install the same versions everywhere, and give each process as many devices."
        )
