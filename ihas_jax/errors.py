"""The exception whose message is for the user, and how a command line shows it."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from ihas_jax.interrupts import RESUME, interruptible
from ihas_jax.progress import command_line

_REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some of your quota",
    errno.EFBIG: "Allow larger files",
    errno.EROFS: "Make the place writable",
    errno.EACCES: "Get the permission",
    errno.EPERM: "Get the permission",
    errno.EIO: "Check the disk",
    errno.EEXIST: "Move away what stands there",
    errno.ENOTDIR: "Move away the file that stands where a folder belongs",
    errno.EISDIR: "Move away the folder that stands where a file belongs",
}
"""The remedy for a file that can't be written or read, by the code of the error."""
_CODE = re.compile(r"os_error_code='(\d+)'|\(os error (\d+)\)")
"""The code in an error of TensorStore or Polars."""


class InputError(Exception):
    """A file, a line, a flag or a folder that the user gave cannot be used.

    The message is one paragraph that says what is wrong, where, and what the remedy is.
    """


def require_type(what: str, value: object, kind: type, remedy: str) -> None:
    """Raises: InputError: a value has not the type that a function needs."""
    if not isinstance(value, kind):
        given = type(value).__name__
        raise InputError(f"The {what} must be a {kind.__name__}, not a {given}. {remedy}")


def as_path(path: object, remedy: str) -> Path:
    """A path that was given as text or as an object.

    Raises:
      InputError: it is of another type.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"A path must be a str or a Path, not a {type(path).__name__}. {remedy}")
    return Path(path)


def disk_error(
    error: BaseException, where: object = None, then: str = "try again"
) -> InputError | None:
    """Turns an error of the disk (full, read only, in the way, ...) into one paragraph.

    Args:
      error: the error of Python, TensorStore or Polars.
      where: the file or folder to name if the error names none.
      then: what to do once the disk is in order.

    Returns:
      The error to raise, or None for an error of any other kind.
    """
    code = error.errno if isinstance(error, OSError) else None
    if code is None and (found := _CODE.search(str(error))):
        code = int(found[1] or found[2])
    if code not in _REMEDIES:
        return None
    place = getattr(error, "filename", None) or where or "A file"
    return InputError(f"{place} can't be used: {os.strerror(code)}. {_REMEDIES[code]} and {then}.")


def unwritable(error: BaseException, path: object) -> InputError:
    """The error to raise where a new file or folder can't be written, for whatever reason."""
    reason = getattr(error, "strerror", None) or error
    return disk_error(error, path) or InputError(
        f"{path} can't be written: {reason}. Choose another place."
    )


def run_cli(main: Callable[[], None], *, interrupted: str = RESUME) -> None:
    """Runs the `main` of a script.

    An `InputError` or an error of the disk becomes one paragraph on stderr and exit code 2. After
    Ctrl-C one line says what to do next, and the exit code is 130. The exit code is 1 if the work
    is done, but stdout or stderr did not take all of its output.
    """
    try:
        with interruptible(interrupted), command_line() as lost:
            main()
        if lost:
            raise SystemExit(1)
    except (InputError, OSError) as error:
        problem = error if isinstance(error, InputError) else disk_error(error)
        if problem is None:
            raise
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
