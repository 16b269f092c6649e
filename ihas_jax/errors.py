"""The one exception that speaks to the person at the keyboard."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ihas_jax.progress import command_line

_GO_ON = "run the same command again to go on from here"


class InputError(Exception):
    """Something the user gave cannot be used: a file, a line, a flag, a folder.

    The message is one paragraph that names what is wrong, where, and the remedy.
    """


def run_cli(main: Callable[[], None], *, interrupted: str = _GO_ON) -> None:
    """Runs a script's `main`; an `InputError` becomes one paragraph on stderr and exit code 2.

    Ctrl-C exits with 130 and says in one line what to do next.
    """
    try:
        with command_line():
            main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"interrupted: {interrupted}", file=sys.stderr)
        raise SystemExit(130) from None
