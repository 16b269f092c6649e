"""Flax modules and their maths: embedding tables, gates, the MLP."""
