"""Serves the model of a run over HTTP: `serve.py --run RUN --port P`."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts("the service has ended")  # importing what follows takes seconds

import os
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

from ihas_jax.config.bounds import Bound, Positive, check_fields
from ihas_jax.errors import InputError, run_cli
from ihas_jax.programs import kept_programs
from ihas_jax.progress import say
from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.storage import load_bundle

_LOOPBACK = ("127.0.0.1", "localhost")
_CONNECTIONS, _BACKLOG = 1000, 256
_INTERRUPTED = 130
"""The exit code after Ctrl-C, also in a background job, whose shell makes it ignore Ctrl-C."""
_PORT = Bound(lambda port: 0 <= port < 2**16, "must lie between 0 and 65535, not")


@dataclass(frozen=True)
class Arguments:
    """Serves the model of a run over HTTP, until Ctrl-C.

    POST /predict takes one row as a JSON object with a value for each field, or a list of such
    rows, and answers with the probability of a click of each and, where the run has several models,
    its cluster. GET /model says what the fields are, GET /health whether the service works, and GET
    /metrics counts requests, rows and unknown values for Prometheus. The page at / predicts a row
    that a person fills in.
    """

    run: Path
    """The folder of a run, or of its bundle."""
    port: Annotated[int, _PORT] = 8000
    """The port; 0 takes a free one."""
    host: str = "127.0.0.1"
    """The address to listen on; by default no other machine reaches the service.
    The service knows no passwords: let others reach it only through a server that does."""
    max_rows: Positive[int] = 10_000
    """The largest number of rows of a request."""
    max_bytes: Positive[int] = 8 << 20
    """The largest number of bytes of a request."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range."""
        check_fields(self)


def main() -> None:
    """Reads the command line, loads the models and serves them."""
    arguments = tyro.cli(Arguments)
    packages = ("starlette", "uvicorn", "prometheus_client")
    if lacking := [name for name in packages if not find_spec(name)]:
        raise InputError(
            f"The service needs {', '.join(lacking)}: run pip install 'ihas_jax[serve]'."
        )
    bundle = load_bundle(arguments.run)
    with listen(arguments.host, arguments.port) as listener:
        say("Compiling; the service answers in some seconds.")
        with kept_programs():
            bundle.warm_up()
        serve(bundle, arguments, listener)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
      InputError: the address or the port can't be had.
    """
    try:
        return socket.create_server((host, port), backlog=_BACKLOG)
    except OSError as error:
        code = error.errno or 0  # below 0 where the name has no address
        why = os.strerror(code) if code > 0 else error.strerror
        raise InputError(
            f"--host {host} --port {port} can't be listened on ({why}); choose "
            "another port, or 0 for a free one."
        ) from None


def serve(bundle: Bundle, arguments: Arguments, listener: socket.socket) -> None:
    """Serves until a signal ends the process."""
    import uvicorn

    from ihas_jax.serving.http.app import Limits, make_app

    # a name of this machine alone, so that no page of another site reaches a service on loopback
    hosts = _LOOPBACK if arguments.host in _LOOPBACK else ("*",)
    limits = Limits(arguments.max_rows, arguments.max_bytes)
    config = uvicorn.Config(
        make_app(bundle, limits, hosts),
        log_config=None,
        access_log=False,
        lifespan="off",
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=5,
    )
    host, port = listener.getsockname()[:2]
    say(f"Serving {arguments.run} at http://{host}:{port}; Ctrl-C ends the service.")
    uvicorn.Server(config).run(sockets=[listener])
    raise SystemExit(_INTERRUPTED)  # any other signal has ended the process


if __name__ == "__main__":
    run_cli(main, interrupted="the service has ended")
