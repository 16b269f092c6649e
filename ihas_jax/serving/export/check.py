"""The check of an export: it answers as its bundle does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ihas_jax.errors import InputError
from ihas_jax.progress import track
from ihas_jax.serving.bundle import Bundle

TOLERANCE = 1e-5
"""How far a probability may be from that of the bundle."""
_FEWEST_ROWS, _MOST_ROWS, _CHUNK_ROWS = 1 << 12, 1 << 18, 1 << 14

Answer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Probabilities and clusters `[n]` of ids `[n, N]` int32."""


def sample_ids(sizes: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Ids `[n, N]` of rows in which every value of a field occurs, if it has at most 2^18."""
    rng = np.random.default_rng(seed)
    rows = min(max(_FEWEST_ROWS, *sizes), _MOST_ROWS)
    columns = [np.resize(rng.permutation(size), rows) for size in sizes]
    return np.stack([rng.permutation(column) for column in columns], axis=1).astype(np.int32)


def check(bundle: Bundle, answer: Answer) -> None:
    """Compares the answers of an export with those of its bundle, on `sample_ids`.

    Raises:
      InputError: a probability differs by more than `TOLERANCE`, or a cluster at all.
    """
    ids = sample_ids(bundle.schema.sizes)
    clusters = bundle.assign_checked(ids, "[export] clusters of the bundle")
    probs = bundle.predict_assigned(ids, clusters, "[export] predictions of the bundle")
    with track("[export] check", len(ids)) as bar:
        for start in range(0, len(ids), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            found, of_cluster = answer(ids[part])
            other = np.flatnonzero(of_cluster != clusters[part])
            if len(other):
                raise InputError(
                    f"The export sends {len(other)} of {len(found)} sampled rows to another "
                    "cluster than the bundle, so nothing was written. Sums of its exact router "
                    "round in another order; train with --cluster.router compiled, whose sums "
                    "don't round."
                )
            gap = float(np.abs(found - probs[part]).max())
            if not gap <= TOLERANCE:
                raise InputError(
                    f"A prediction of the export differs by {gap:.1e} from that of the bundle, "
                    f"which is more than {TOLERANCE:.0e}, so nothing was written. Please report "
                    f"the click model, {bundle.config.model.name}."
                )
            bar.advance(len(found))
