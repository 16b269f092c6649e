"""Exports the models of a run for programs without this library, as ONNX or StableHLO."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

from dataclasses import dataclass
from pathlib import Path

import tyro

from ihas_jax.errors import run_cli
from ihas_jax.pipeline.plugins import import_file
from ihas_jax.progress import say
from ihas_jax.serving.export.folder import Target, export
from ihas_jax.serving.storage import load_bundle


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Writes the bundle of a run as a folder that programs without this library can use.

    The folder has the model with its router, the vocabularies, an encoder of raw rows in plain
    Python, an example of a call, and a README that says how to do the same in Java or C++.
    """

    run: Path
    """The folder of a finished run, or its bundle."""
    to: Target = "onnx"
    """The format of the model: onnx for onnxruntime in any language, stablehlo for JAX."""
    output: Path
    """The folder to write, which must not exist."""
    plugins: tuple[Path, ...] = ()
    """Python files that register the selection method or click model of the run."""


def main() -> None:
    """Reads the command line, writes the folder."""
    arguments = tyro.cli(Arguments)
    for plugin in arguments.plugins:
        import_file(plugin)
    bundle = load_bundle(arguments.run)
    export(bundle, arguments.output, arguments.to)
    size = sum(path.stat().st_size for path in arguments.output.iterdir())
    say(
        f"{arguments.output} holds {bundle!r} in {size / 1e6:,.1f} MB. Its answers were compared "
        "with those of the bundle; README.md there says how to call it."
    )


if __name__ == "__main__":
    run_cli(main, interrupted="Nothing was written; the same command starts from the beginning.")
