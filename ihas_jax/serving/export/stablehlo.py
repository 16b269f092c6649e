"""A bundle as a program of StableHLO, which JAX calls without this library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.export.check import Answer
from ihas_jax.serving.export.program import of_bundle, untraced

PROGRAM, WEIGHTS = "model.stablehlo", "weights.npz"
_PLATFORMS = ("cpu", "cuda", "tpu")


def write(bundle: Bundle, folder: Path) -> None:
    """Writes the program, for any number of rows, and the arrays that it is called with.

    `program.call(weights, ids [B, N] int32)` gives `{"probability": [B], "cluster": [B]}`, where
    weights are the arrays of the file in their order.

    Raises:
      InputError: the model can't be traced for any number of rows.
    """
    function, arrays = of_bundle(bundle)
    leaves, tree = jax.tree.flatten(arrays)

    def answer(weights: list[Any], ids: jax.Array) -> dict[str, jax.Array]:
        with jax.default_matmul_precision("float32"):  # as in `models.chunks`
            found: dict[str, jax.Array] = function(jax.tree.unflatten(tree, weights), ids)
        return found

    (rows,) = export.symbolic_shape("rows")
    ids = jax.ShapeDtypeStruct((rows, len(bundle.schema.names)), np.int32)
    shapes = [jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype) for leaf in leaves]
    try:
        program = export.export(jax.jit(answer), platforms=_PLATFORMS)(shapes, ids)
    except TypeError as error:
        raise untraced(error) from error
    (folder / PROGRAM).write_bytes(program.serialize())
    weights: dict[str, Any] = {str(n): np.asarray(leaf) for n, leaf in enumerate(leaves)}
    np.savez(folder / WEIGHTS, **weights)


def read(folder: Path) -> Answer:
    """What answers by the files of a folder."""
    program = jax.jit(export.deserialize(bytearray((folder / PROGRAM).read_bytes())).call)
    with np.load(folder / WEIGHTS) as file:
        weights = [jax.device_put(file[str(n)]) for n in range(len(file.files))]

    def answer(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = program(weights, ids)
        return np.asarray(found["probability"]), np.asarray(found["cluster"])

    return answer
