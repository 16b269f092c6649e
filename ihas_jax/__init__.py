"""iHAS: instance-wise hierarchical architecture search for click models.

Shape letters, everywhere: B batch, N fields, D embedding size, K = N * D gated coordinates (the
paper's N*), V values (rows of a full table), C clusters, R batches in a round, P devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ihas_jax.lazy import names_of_api

if TYPE_CHECKING:
    from ihas_jax.api import *  # noqa: F403
else:
    __getattr__, __dir__ = names_of_api(__name__)
