"""A bundle for programs without this library: ONNX and StableHLO."""
