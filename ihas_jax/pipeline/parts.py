"""Parts of a result that show its numbers: a failed part costs neither numbers nor other parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ihas_jax.files import write_json, write_text
from ihas_jax.names import markdown, printable
from ihas_jax.progress import warn
from ihas_jax.reporting.drawing import FigureNames, save_figure


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


def write_results(
    results: Path,
    content: dict[str, Any],
    lines: Callable[[], list[str]],
    draw: Callable[[], Figure] | None = None,
    names: FigureNames | None = None,
) -> tuple[str, ...]:
    """Writes a script's results: JSON first, then Markdown, then a figure.

    Args:
      results: path of the files without .json, .md and .png.
      content: the JSON file's.
      lines: the Markdown file's.
      draw: the figure, if there is one.
      names: how it shows the names of the user that stand in it.

    Returns:
      The files that could not be made; that of the JSON file raises.
    """
    results.parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(f"{results}.json"), content)
    text, figure = Path(f"{results}.md"), Path(f"{results}.png")

    def write_markdown() -> None:
        note = [names.note(markdown), ""] if names and names.stand_ins else []
        write_text(text, "\n".join([*lines(), *note]))

    parts: dict[str, Callable[[], None]] = {str(text): write_markdown}
    if draw is not None:
        fonts = names.fonts if names else ()
        parts[str(figure)] = lambda: save_figure(figure, draw, fonts)
    return make_parts(parts)
