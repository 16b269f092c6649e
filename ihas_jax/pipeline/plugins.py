"""Python files and modules that register click models and methods, for this process and others."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ihas_jax.errors import InputError
from ihas_jax.models import MODELS


def import_file(path: Path) -> None:
    """Imports a Python file as a module, in which its dataclasses find their types.

    Like a script, it may import the files beside it.

    Raises:
      InputError: the path is not that of a Python file.
    """
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"--plugins {path} is not a Python file.")
    name = str(path.resolve()).replace(".", "_")  # pickle takes what precedes a dot for a package
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def modules_of(models: Iterable[str]) -> tuple[str, ...]:
    """Where users registered some click models.

    Returns:
      Modules that can be imported, and files that `import_file` has imported.

    Raises:
      InputError: the program itself has registered one, which another process can't import.
    """
    found = {name: MODELS.sources.get(name) for name in models}
    for name, module in found.items():
        if module == "__main__":
            raise InputError(
                f"Other processes can't import {name!r} from the program that is running. Register "
                "it in a file that the program imports, or work with one process (workers=1)."
            )
    return tuple(dict.fromkeys(_again(module) for module in found.values() if module))


def _again(module: str) -> str:
    """A module that other modules can import, or the file of another one."""
    return str(sys.modules[module].__file__) if os.sep in module else module


def import_again(module: str) -> None:
    """Imports what `modules_of` names in another process."""
    if module.endswith(".py"):
        import_file(Path(module))
    else:
        importlib.import_module(module)
