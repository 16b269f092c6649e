"""Packages whose names are imported when they are first used.

Importing all of a package takes seconds. A script prepares for Ctrl-C before that, and a process
that only predicts needs no code of trainings.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def names_of_api(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package that offers the names that its `api` imports.

    A name is imported from the module from which `api` imports it, and `api` itself is only read.
    """

    def get(name: str) -> Any:
        if name.isidentifier() and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        homes = _homes(package)
        if name == "__all__":
            return sorted(homes)
        if name in homes:
            return getattr(import_module(homes[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return [*vars(sys.modules[package]), *_homes(package)]

    return get, names


@cache
def _homes(package: str) -> dict[str, str]:
    """The modules from which the `api` of a package imports its names."""
    spec = find_spec(f"{package}.api")
    source = spec.loader.get_source(spec.name)  # type: ignore[union-attr]
    return {
        alias.name: str(node.module)
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
