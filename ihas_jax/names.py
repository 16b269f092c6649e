"""The names of a user (fields, values, files) as printable text, as Markdown and on terminals."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from rich.text import Text

_SPECIAL = re.compile(r"[\\`*<>\[\]#|~&$]|(?<![^\W_])_|_(?![^\W_])")
"""Characters with a meaning in Markdown; an underscore between letters or digits has none."""


def printable(name: str | Path) -> str:
    r"""Writes a name in characters that can be printed and encoded.

    Control characters become escapes such as `\n` and `\x1b`, as do bytes of file names that are
    not UTF-8, such as `\xff`.
    """
    return "".join(c if c.isprintable() else _escape(c) for c in str(name))


def markdown(name: str | Path) -> str:
    """Writes a name as Markdown text that is displayed as the name, also in the cell of a table."""
    return _SPECIAL.sub(r"\\\g<0>", printable(name))


def code(text: str) -> str:
    """Writes a text, which may contain backticks, as Markdown code."""
    shown = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{shown}{space}{fence}"


def link(name: str) -> str:
    """Writes the name of a file as the target of a Markdown link."""
    return quote(os.fsencode(name))


def terminal(name: str | Path) -> Text:
    """Writes a name for a table or line of Rich, without any markup."""
    return Text(printable(name))


def _escape(character: str) -> str:
    code_point = ord(character)
    if 0xDC80 <= code_point <= 0xDCFF:  # a surrogate: a byte that is not UTF-8
        return f"\\x{code_point - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
