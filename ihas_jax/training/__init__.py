"""Optimisers, steps, loops, metrics, checkpoints and devices."""
