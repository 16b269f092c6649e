"""A job of several processes, and how one of them meets the others."""

from __future__ import annotations

import os
import socket
import sys
import threading
from dataclasses import dataclass
from typing import Literal

import jax

from ihas_jax.errors import InputError
from ihas_jax.progress import warn

_QUIET_SECONDS, _START_SECONDS, _LEAVE_SECONDS = 10, 300, 60


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


def connect(job: Job) -> None:
    """Connects to the first process.

    Raises:
      InputError: there is no job, the first process can't be reached, or it is too late to join.
    """
    _check_address(job)
    where = job.coordinator or "the address that was found"
    meeting = _Meeting(where)
    meeting.start()
    # the service takes SIGTERM away from the process
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            job.coordinator,
            job.process_count,
            job.process_id,
            cluster_detection_method=None if job.coordinator is None else "deactivate",
            initialization_timeout=_START_SECONDS + _LEAVE_SECONDS,  # JAX would end the process
            shutdown_timeout_seconds=_LEAVE_SECONDS,
        )
    except ValueError as error:
        raise InputError(
            f"--processes auto finds no job ({error}). Start the processes by srun, mpirun, "
            "Kubernetes or on a TPU, by experiments/launch.py on one machine, or give each "
            "--coordinator, --process-id and --process-count."
        ) from None
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f"{_not_met(where)} JAX says: {str(error).splitlines()[0][:200]}"
        ) from None
    except RuntimeError:
        raise InputError(
            "A process joins a job once, before JAX computes anything or counts its devices. Open "
            "`with ihas_jax.joined(...)` first."
        ) from None
    finally:
        meeting.over.set()


def _check_address(job: Job) -> None:
    """Raises: InputError: the host of process 0 is not known, or its port is taken."""
    if job.coordinator is None:
        return
    host, _, port = job.coordinator.rpartition(":")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
        if job.process_id == 0:
            socket.create_server(("", int(port))).close()
    except socket.gaierror as error:
        raise InputError(f"--coordinator {job.coordinator}: {error.strerror}.") from None
    except OSError as error:
        raise InputError(
            f"Process 0 can't listen on port {port} of --coordinator {job.coordinator}: "
            f"{os.strerror(error.errno or 0)}. Choose another port, for all processes."
        ) from None


class _Meeting(threading.Thread):
    """Says that a process waits for the others, and ends it if they do not come."""

    def __init__(self, where: str) -> None:
        super().__init__(daemon=True, name="meeting")
        self._where, self.over = where, threading.Event()

    def run(self) -> None:
        """Waits until the processes have met."""
        if self.over.wait(_QUIET_SECONDS):
            return
        warn(
            f"[Job] waits for the other processes at {self._where}, for {_START_SECONDS} s at most"
        )
        if not self.over.wait(_START_SECONDS - _QUIET_SECONDS):
            print(f"error: {_not_met(self._where)}", file=sys.stderr, flush=True)
            os._exit(2)


def _not_met(where: str) -> str:
    return (
        f"The processes of the job did not meet at {where} within {_START_SECONDS} s. Check that "
        "all of them start, each with its own --process-id, and can reach the machine of process 0."
    )
