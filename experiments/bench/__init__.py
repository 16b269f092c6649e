"""The parts of benchmark.py: workloads, PyTorch's side, and what is measured."""
