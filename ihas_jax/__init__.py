"""iHAS: instance-wise hierarchical architecture search for click models.

Shape letters, everywhere: B batch, N fields, D embedding size, K = N * D gated coordinates (the
paper's N*), V values (rows of a full table), C clusters, R batches in a round, P devices.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ihas_jax.api import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        """A name of `ihas_jax.api`, imported when it is first used.

        Importing all of it takes seconds, and a script prepares for Ctrl-C before that.
        """
        if name.isidentifier() and find_spec(f"ihas_jax.{name}"):
            return import_module(f"ihas_jax.{name}")
        api = import_module("ihas_jax.api")
        if name == "__all__" or name in api.__all__:
            return getattr(api, name)
        raise AttributeError(f"module 'ihas_jax' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return [*globals(), *import_module("ihas_jax.api").__all__]
