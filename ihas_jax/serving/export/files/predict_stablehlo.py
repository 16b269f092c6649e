"""Predicts the rows of a CSV file: `python predict.py rows.csv`.

It needs jax, flatbuffers and numpy, and the files beside it.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from encode import Encoder
from jax import export

if len(sys.argv) != 2:
    sys.exit("usage: python predict.py FILE")
here = Path(__file__).parent
encode = Encoder(here / "vocabulary.json")
program = jax.jit(export.deserialize(bytearray((here / "model.stablehlo").read_bytes())).call)
with np.load(here / "weights.npz") as file:
    weights = [jax.device_put(file[str(n)]) for n in range(len(file.files))]
try:
    rows = [*encode.read(sys.argv[1])]
except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
ids = np.array(rows, np.int32).reshape(len(rows), len(encode.fields))  # a file may have no rows
# each number of rows is compiled once: fill batches up to a few sizes
answer = program(weights, ids)
print("probability,cluster")
for p, c in zip(answer["probability"].tolist(), answer["cluster"].tolist(), strict=True):
    print(f"{p:.9g},{c}")
