"""Predicts the rows of a CSV file with a header: `python predict.py rows.csv`.

It needs onnxruntime and numpy, and the files beside it.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from encode import Encoder

here = Path(__file__).parent
encode = Encoder(here / "vocabulary.json")
session = onnxruntime.InferenceSession(here / "model.onnx", providers=["CPUExecutionProvider"])
with Path(sys.argv[1]).open(encoding="utf-8", newline="") as file:
    ids = np.array([encode(row) for row in csv.DictReader(file)], np.int32)
ids = ids.reshape(len(ids), session.get_inputs()[0].shape[1])  # a file may have no rows
probability, cluster = session.run(["probability", "cluster"], {"ids": ids})
print("probability,cluster")
for p, c in zip(probability, cluster, strict=True):
    print(f"{p:.9g},{c}")
