"""Keeps Orbax, which configures the root logger of the user, from changing it.

Orbax and Grain (which imports Orbax) are imported here, so that their import changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def root_logger_kept() -> Iterator[None]:
    """Removes the handlers that the block gives the root logger; it also decorates functions.

    A root logger that has a handler before the block is left alone.
    """
    configured = bool(logging.root.handlers)
    try:
        yield
    finally:
        if not configured:
            for handler in logging.root.handlers[:]:
                if type(handler) is logging.StreamHandler:  # as logging.basicConfig adds
                    logging.root.removeHandler(handler)


with root_logger_kept():
    import grain.python as grain
    import orbax.checkpoint as ocp

__all__ = ["grain", "ocp", "root_logger_kept"]
