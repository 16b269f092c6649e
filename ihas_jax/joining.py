"""How a process joins a job."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import jax

from ihas_jax import processes
from ihas_jax.errors import InputError
from ihas_jax.progress import say, silent
from ihas_jax.watch import Watch, is_loss

_START_SECONDS = 300
_LEAVE_SECONDS = 60
_VERSIONS = ("ihas_jax", "jax", "jaxlib", "numpy", "flax", "optax", "orbax-checkpoint")


@dataclass(frozen=True)
class Job:
    """The processes that work together, each on its own part of the batches.

    Attributes:
      processes: Whether this process works alone, or joins the job that Slurm, Open MPI, Kubernetes
        or a TPU has started.
      coordinator: The address of process 0 as HOST:PORT, for a job that was started otherwise.
      process_id: The number of this process, from 0.
      process_count: The number of all processes.

    Raises:
      InputError: only some of the last three are given, or a number is out of range.
    """

    processes: Literal["one", "auto"] = "one"
    coordinator: str | None = None
    process_id: int | None = None
    process_count: int | None = None

    def __post_init__(self) -> None:
        given = (self.coordinator, self.process_id, self.process_count)
        if all(value is None for value in given):
            return
        if self.processes == "auto":
            raise InputError(
                "--processes auto finds the processes by itself; leave --coordinator, --process-id "
                "and --process-count out, or --processes."
            )
        if self.coordinator is None or self.process_id is None or self.process_count is None:
            raise InputError(
                "--coordinator, --process-id and --process-count are needed together; "
                "experiments/launch.py gives them to processes of one machine."
            )
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise InputError(
                f"--coordinator {self.coordinator} is not HOST:PORT; write the name or address of "
                "the machine of process 0 and a free port there, such as node1:8476."
            )
        if self.process_count < 1 or not 0 <= self.process_id < self.process_count:
            raise InputError(
                f"--process-id {self.process_id} of --process-count {self.process_count} is no "
                "process; processes count from 0."
            )

    @property
    def alone(self) -> bool:
        """Whether the job is one process."""
        return self.processes == "one" and self.process_count in (None, 1)


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
    _initialize(job)
    if processes.client() is None:  # a job of one process
        yield
        return
    watch = Watch()
    watch.start()
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
    sys.stdout.flush()
    with silent(), Path(os.devnull).open("wb") as nowhere:
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
    first, *others = processes.every(own)
    for number, other in enumerate(others, 1):
        if differing := [name for name in own if other[name] != first[name]]:
            lines = [f"{name} {other[name]}, not {first[name]}" for name in differing]
            raise InputError(
                f"Process {number} has other packages or devices than process 0: "
                f"{'; '.join(lines)}. Install the same versions everywhere, and give each process "
                "as many devices."
            )


def _initialize(job: Job) -> None:
    """Connects to the first process.

    Raises:
      InputError: there is no job, the first process can't be reached, or it is too late to join.
    """
    # the service takes SIGTERM away from the process
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            job.coordinator,
            job.process_count,
            job.process_id,
            cluster_detection_method=None if job.coordinator is None else "deactivate",
            initialization_timeout=_START_SECONDS,
            shutdown_timeout_seconds=_LEAVE_SECONDS,
        )
    except ValueError as error:
        raise InputError(
            f"--processes auto finds no job ({error}). Start the processes by srun, mpirun, "
            "Kubernetes or on a TPU, by experiments/launch.py on one machine, or give each "
            "--coordinator, --process-id and --process-count."
        ) from None
    except jax.errors.JaxRuntimeError as error:
        first = str(error).partition("\n")[0][:200]
        raise InputError(
            f"The processes of the job did not meet within {_START_SECONDS} s at "
            f"{job.coordinator or 'the address that was found'} ({first}). Check that all of them "
            "start, and that the port of process 0 is free and can be reached."
        ) from None
    except RuntimeError:
        raise InputError(
            "A process joins a job once, before JAX computes anything or counts its devices. Open "
            "`with ihas_jax.joined(...)` first."
        ) from None
