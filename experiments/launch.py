"""Starts the processes of a job on this machine, each with the same command, and ends with them."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import tyro

from ihas_jax.errors import InputError, run_cli
from ihas_jax.interrupts import before_ending
from ihas_jax.watch import LAUNCHER

_FAREWELL = 15.0
"""Seconds that launch.py waits after Ctrl-C for processes that take longer than it."""
_GRACE = 60.0
"""Seconds that the other processes have to end by themselves once one has failed."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Starts the processes of a job on this machine, and ends with them.

    Write their command after two dashes: launch.py --processes 2 -- run.py --data data/criteo. It
    is run.py or seeds.py with its flags. The GPUs are dealt out evenly among the processes.
    """

    processes: int
    """How many processes share the work."""


def main() -> None:
    """Parses the command line, starts the processes, and exits as the first that failed."""
    before, command = _halves(sys.argv[1:])
    arguments = tyro.cli(Arguments, args=before)
    if arguments.processes < 1:
        raise InputError(f"--processes must be 1 or more, not {arguments.processes}.")
    script = _script(command)
    port = free_port()
    parts = devices_of(os.environ, arguments.processes)
    parent = {LAUNCHER: str(os.getpid())}
    begun = []
    for number, devices in enumerate(parts):
        flags = ["--coordinator", f"127.0.0.1:{port}", "--process-id", str(number)]
        flags += ["--process-count", str(len(parts))]
        begun.append(
            subprocess.Popen([sys.executable, *script, *flags], env=os.environ | devices | parent)
        )
    signal.signal(signal.SIGTERM, lambda *_: _send(begun, signal.SIGTERM))
    with before_ending(lambda: _await_end(begun, _FAREWELL)):
        try:
            code = await_all(begun)
        except KeyboardInterrupt:  # a terminal sends it to the processes, too
            _end(begun, signal.SIGINT)
            raise
    if code:
        raise SystemExit(code)


def _halves(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before and behind two dashes."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:place]], [*arguments[place + 1 :]]


def _script(command: Sequence[str]) -> list[str]:
    """The command with the path of its script.

    Raises:
      InputError: there is none, or no such script.
    """
    if not command:
        raise InputError(
            "There is no command to start; put it behind two dashes, as in launch.py --processes 2 "
            "-- run.py --data data/criteo."
        )
    name, *flags = command
    path = next((p for p in (Path(name), Path(__file__).parent / name) if p.is_file()), None)
    if path is None:
        raise InputError(f"There is no script {name}; name run.py, seeds.py or the path of one.")
    return [str(path), *flags]


def devices_of(
    environment: dict[str, str] | os._Environ[str], processes: int
) -> list[dict[str, str]]:
    """The variables that deal the accelerators of this machine out to processes.

    Raises:
      InputError: their number is not a multiple of the processes.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        devices = [*takewhile(_names_gpu, named.split(","))]
    else:
        found = Path("/proc/driver/nvidia/gpus")
        devices = [str(i) for i in range(len([*found.iterdir()]))] if found.is_dir() else []
    if not devices or environment.get("JAX_PLATFORMS") == "cpu":
        return [{} for _ in range(processes)]
    if len(devices) % processes:
        raise InputError(
            f"{processes} processes can't share {len(devices)} GPUs evenly. Choose a number that "
            "divides them, or name the GPUs to use in CUDA_VISIBLE_DEVICES."
        )
    each = len(devices) // processes
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(devices[each * i : each * (i + 1)])}
        for i in range(processes)
    ]


def _names_gpu(name: str) -> bool:
    """Whether CUDA takes a name for a GPU; it ignores the names behind another one."""
    return name.isdigit() or name.startswith(("GPU-", "MIG-"))


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def await_all(begun: Sequence[subprocess.Popen[bytes]], grace: float = _GRACE) -> int:
    """The exit code of the first process that failed, or 0; ends the others if they hang."""
    while not (failed := _failed(begun)) and any(process.poll() is None for process in begun):
        time.sleep(0.1)
    if not failed:
        return 0
    number, code = failed
    if code < 0:
        name = signal.Signals(-code).name
        print(f"launch.py: process {number} was ended by {name}.", file=sys.stderr)
    _await_end(begun, grace)
    _end(begun, signal.SIGKILL)
    return code if code > 0 else 128 - code


def _await_end(begun: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Waits until all processes have ended, for some seconds at most."""
    end = time.monotonic() + seconds
    while any(process.poll() is None for process in begun) and time.monotonic() < end:
        time.sleep(0.1)


def _failed(begun: Sequence[subprocess.Popen[bytes]]) -> tuple[int, int] | None:
    """Number and exit code of a process that has failed."""
    codes = [process.poll() for process in begun]
    return next(((i, code) for i, code in enumerate(codes) if code), None)


def _send(begun: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in begun:
        if process.poll() is None:
            process.send_signal(number)


def _end(begun: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    """Ends the processes that still run."""
    _send(begun, number)
    for process in begun:
        process.wait()


if __name__ == "__main__":
    run_cli(main)
