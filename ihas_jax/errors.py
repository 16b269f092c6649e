"""The one exception that speaks to the person at the keyboard."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable

from ihas_jax.interrupts import GO_ON, interruptible
from ihas_jax.progress import command_line

_REMEDIES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some of your quota",
    errno.EFBIG: "Allow larger files",
    errno.EROFS: "Make the place writable",
    errno.EACCES: "Get the permission",
    errno.EPERM: "Get the permission",
    errno.EIO: "Look after the disk",
}
"""What to do about a disk that does not take or give a file, by the code of its error."""
_CODE = re.compile(r"os_error_code='(\d+)'")


class InputError(Exception):
    """Something the user gave cannot be used: a file, a line, a flag, a folder.

    The message is one paragraph that names what is wrong, where, and the remedy.
    """


def disk_error(error: BaseException, where: object = None) -> InputError | None:
    """An error of the disk (full, read only, not permitted, ...) in one paragraph.

    None for errors of any other kind.

    Args:
      error: what was raised, by Python or by TensorStore.
      where: the file or folder to name where the error names none.
    """
    code = error.errno if isinstance(error, OSError) else None
    if code is None and (found := _CODE.search(str(error))):
        code = int(found[1])
    if code not in _REMEDIES:
        return None
    place = getattr(error, "filename", None) or where or "A file"
    return InputError(
        f"{place} can't be used: {os.strerror(code)}. {_REMEDIES[code]} and run the same command "
        "again; what was finished or saved before is not lost."
    )


def run_cli(main: Callable[[], None], *, interrupted: str = GO_ON) -> None:
    """Runs a script's `main`; an `InputError` becomes one paragraph on stderr and exit code 2.

    So does an error of the disk. Ctrl-C exits with 130 and says in one line what to do next. The
    exit code is 1 where the work is done, but stdout or stderr did not take all of its output.
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
