"""Parts of a result that show its numbers: a failed part costs neither numbers nor other parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ihas_jax.names import printable
from ihas_jax.progress import warn


def make_parts(parts: Mapping[str, Callable[[], None]]) -> tuple[str, ...]:
    """Makes each part even if others fail; a failure is one line in the log.

    Args:
      parts: functions that make the parts, by the name of the part (a file by its path).

    Returns:
      The parts that are missing.
    """
    missing = []
    for name, make in parts.items():
        try:
            make()
        except Exception as error:  # a failed figure must not cost the numbers
            first = next(iter(str(error).splitlines()), "")[:200]
            warn(f"{name} could not be made ({type(error).__name__}: {first})")
            missing.append(name)
    return tuple(missing)


def require_parts(missing: Sequence[str], numbers: str | Path) -> None:
    """Ends a script with exit code 1 and one line if parts are missing.

    Args:
      missing: the parts that `make_parts` returned.
      numbers: the file that holds the numbers.
    """
    if missing:
        raise SystemExit(
            printable(
                f"incomplete: the numbers are in {numbers}, but could not be shown in "
                f"{', '.join(missing)}. Run the same command again to make what is missing; "
                "nothing is trained again."
            )
        )
