"""What a name stands for on the command line: entries of the package and entries of users."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import FrameType
from typing import TypeVar

from ihas_jax.errors import InputError

Entry = TypeVar("Entry")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def require_name(name: str, what: str) -> None:
    """Raises: InputError: a name is not made of small letters, digits and _."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} can't be {what}: it must begin with a small letter and have small letters, "
            "digits and _ only."
        )


class Registry(Mapping[str, Entry]):
    """Entries by name, to which users may add theirs.

    Attributes:
      kind: what an entry is, for messages.
      flag: the flag that names one.
      others: what else the flag may name.
      reserved: names that no entry may have, with the reason.
      sources: for each entry of a user, the module that registered it.
    """

    def __init__(
        self,
        kind: str,
        flag: str,
        entries: Mapping[str, Entry],
        *,
        others: tuple[str, ...] = (),
        reserved: Mapping[str, str] | None = None,
    ) -> None:
        self.kind, self.flag, self.others, self.reserved = kind, flag, others, reserved or {}
        self._entries = dict(entries)
        self._taken = {*entries, *others}
        self.sources: dict[str, str] = {}

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str, flag: str = "") -> Entry:
        """The entry with a name.

        Args:
          name: the name.
          flag: another flag that names entries alone, for the message.

        Raises:
          InputError: there is none; the message lists the names.
        """
        if name not in self._entries:
            near = get_close_matches(name, self._entries, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            names = ", ".join(self._entries if flag else [*self.others, *self._entries])
            raise InputError(
                f"--{flag or self.flag} {name} names no {self.kind}.{hint} The {self.kind}s are "
                f"{names}; one of your own must be registered first, on a command line by "
                "--plugins."
            )
        return self._entries[name]

    def register(self, name: str, entry: Entry) -> None:
        """Adds an entry, or replaces one that was added before.

        Raises:
          InputError: the name is not made of small letters, digits and _, is reserved, or is
            that of an entry of the package.
        """
        require_name(name, f"the name of a {self.kind}")
        if name in self.reserved:
            raise InputError(
                f"{name!r} can't be the name of a {self.kind}, since {self.reserved[name]}; choose "
                "another name."
            )
        if name in self._taken:
            raise InputError(f"ihas_jax has a {self.kind} {name!r} already; choose another name.")
        self._entries[name] = entry
        self.sources[name] = _caller()


def _caller() -> str:
    """The module outside of the package that has called it."""
    frame, package = sys._getframe(), __name__.partition(".")[0]
    while frame.f_back and _module(frame).partition(".")[0] == package:
        frame = frame.f_back
    return _module(frame)


def _module(frame: FrameType) -> str:
    """The module of a frame; code without one is taken for the program's."""
    return str(frame.f_globals.get("__name__", "__main__"))
