"""How a user's names (fields, values, files) are written: printable, in Markdown, on terminals."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from rich.text import Text

_SPECIAL = re.compile(r"[\\`*<>\[\]#|~&$]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown may take for itself; an underscore between letters or digits is safe."""


def printable(name: str | Path) -> str:
    r"""A name in characters that can be printed and encoded.

    Control characters become escapes such as `\n` and `\x1b`, and so do the bytes of a file name
    that is not UTF-8, such as `\xff`.
    """
    return "".join(c if c.isprintable() else _escape(c) for c in str(name))


def markdown(name: str | Path) -> str:
    """A name as Markdown text that reads like the name, in a table's cell too."""
    return _SPECIAL.sub(r"\\\g<0>", printable(name))


def code(text: str) -> str:
    """A text as Markdown code, its own backticks included."""
    shown = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{shown}{space}{fence}"


def link(name: str) -> str:
    """A file's name as the target of a Markdown link."""
    return quote(os.fsencode(name))


def terminal(name: str | Path) -> Text:
    """A name for a table or line of Rich, which takes nothing in it for markup."""
    return Text(printable(name))


def _escape(character: str) -> str:
    code_point = ord(character)
    if 0xDC80 <= code_point <= 0xDCFF:  # Python's stand-in for a byte that is not UTF-8
        return f"\\x{code_point - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
