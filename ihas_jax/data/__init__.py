"""Encoded click logs: their schema, their rows on disk or in memory, and batches of them."""
