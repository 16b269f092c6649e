"""Predicts the rows of a CSV file with a header: `python predict.py rows.csv`.

It needs onnxruntime and numpy, and the files beside it.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from encode import Encoder

if len(sys.argv) != 2:
    sys.exit("usage: python predict.py FILE")
here = Path(__file__).parent
encode = Encoder(here / "vocabulary.json")
session = onnxruntime.InferenceSession(here / "model.onnx", providers=["CPUExecutionProvider"])
try:
    rows = [*encode.read(sys.argv[1])]
except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
ids = np.array(rows, np.int32).reshape(len(rows), len(encode.fields))  # a file may have no rows
probability, cluster = session.run(["probability", "cluster"], {"ids": ids})
print("probability,cluster")
for p, c in zip(probability, cluster, strict=True):
    print(f"{p:.9g},{c}")
