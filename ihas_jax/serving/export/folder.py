"""A bundle as a folder that programs without this library can use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ihas_jax.errors import InputError, as_path, require_type, unwritable
from ihas_jax.files import write_text
from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.export.check import Answer, check
from ihas_jax.serving.export.vocabulary import vocabulary

Target = Literal["onnx", "stablehlo"]
_PACKAGES: dict[Target, tuple[str, tuple[str, ...]]] = {
    "onnx": ("onnx", ("onnx", "onnxruntime")),
    "stablehlo": ("export", ("flatbuffers",)),
}
"""The extra of this library that a target needs, and its packages."""


def export(bundle: Bundle, path: str | Path, to: Target = "onnx") -> None:
    """Writes a bundle as a folder for programs without this library.

    The folder has the model with its router, the vocabularies, an encoder of raw rows and an
    example of a call, which a README explains. It appears only once the model in it has answered
    sampled rows, with every value of each field among them, as the bundle does.

    Args:
      bundle: the bundle.
      path: the folder, which must not exist.
      to: the format of the model: 'onnx', for onnxruntime in any language, or 'stablehlo', for JAX.

    Raises:
      InputError: something stands there, the bundle or the format is something else, a package is
        not installed, the folder can't be written, the model has a part that the format lacks, or
        its answers differ from those of the bundle.
    """
    path = as_path(path, "Name the folder to write.")
    require_type("bundle", bundle, Bundle, "Make one with ihas.load_bundle or ihas.cut.")
    if to not in get_args(Target):
        raise InputError(f"A bundle is exported to {' or '.join(get_args(Target))}, not {to!r}.")
    _require_packages(to)
    partial = path.parent / f".{path.name}.partial"
    try:
        if path.exists() or path.is_symlink():
            raise InputError(f"{path} exists. Nothing was changed; choose another folder.")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(bundle, partial, to)
        check(bundle, _WRITERS[to](bundle, partial))
        partial.rename(path)
    except OSError as error:
        raise unwritable(error, path) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _require_packages(to: Target) -> None:
    """Raises: InputError: a package is not installed."""
    extra, packages = _PACKAGES[to]
    for package in packages:
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise InputError(
                f"An export to {to} needs the package {error.name}. Install it with "
                f"pip install 'ihas_jax[{extra}]'."
            ) from None


def _write(bundle: Bundle, folder: Path, to: Target) -> None:
    """Writes what stands beside the model."""
    content = json.dumps(vocabulary(bundle.schema), ensure_ascii=False, allow_nan=False)
    write_text(folder / "vocabulary.json", content + "\n")
    source = files(__package__) / "files"
    for name, own in (
        ("encode.py", "encode.py"),
        (f"predict_{to}.py", "predict.py"),
        (f"README_{to}.md", "README.md"),
    ):
        text = (source / name).read_text(encoding="utf-8")
        write_text(folder / own, text.replace("FIELDS", str(len(bundle.schema.names))))


def _write_onnx(bundle: Bundle, folder: Path) -> Answer:
    """Writes the model; returns what answers by it."""
    import onnxruntime

    from ihas_jax.serving.export.onnx_model import CLUSTER, IDS, MODEL, PROBABILITY, write

    write(bundle, folder)
    session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])

    def answer(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probs, clusters = session.run([PROBABILITY, CLUSTER], {IDS: ids})
        return probs, clusters

    return answer


def _write_stablehlo(bundle: Bundle, folder: Path) -> Answer:
    """Writes the program and its weights; returns what answers by them."""
    from ihas_jax.serving.export.stablehlo import read, write

    write(bundle, folder)
    return read(folder)


_WRITERS: dict[Target, Callable[[Bundle, Path], Answer]] = {
    "onnx": _write_onnx,
    "stablehlo": _write_stablehlo,
}
