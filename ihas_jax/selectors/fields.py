"""The number of fields that a method keeps, and their choice."""

from __future__ import annotations

import jax
from jax import Array, lax

from ihas_jax.errors import InputError
from ihas_jax.nn.embedding import EmbeddingSpec


def fields_to_keep(flag: str, wanted: int | None, spec: EmbeddingSpec) -> int:
    """The wanted number of fields; by default half of them, rounded down, but at least one.

    Args:
      flag: the flag that sets the number, for the message.
      wanted: the number, or None for the default.
      spec: the table before selection.

    Raises:
      InputError: the table has fewer fields.
    """
    fields = len(spec.sizes)
    if wanted is None:
        return max(1, fields // 2)
    if wanted > fields:
        raise InputError(
            f"--{flag} {wanted} keeps more fields than the log has, which is {fields}. Choose "
            "fewer, or leave the flag out to keep half of them."
        )
    return wanted


def top_fields(scores: Array, count: int) -> Array:
    """1 for the `count` largest of scores `[..., N]`, the first of equal ones; 0 for the rest."""
    _, best = lax.top_k(scores, count)
    return jax.nn.one_hot(best, scores.shape[-1], dtype=scores.dtype).sum(axis=-2)
