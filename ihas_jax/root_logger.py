"""The root logger is the user's: Orbax, whose first message sets it up, leaves it as it was.

Grain, which imports Orbax, and Orbax are imported here so that this is true of imports too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def root_logger_kept() -> Iterator[None]:
    """Takes handlers that a block's calls gave the root logger off again; decorates functions too.

    A root logger with a handler, such as a user's, is given none.
    """
    configured = bool(logging.root.handlers)
    try:
        yield
    finally:
        if not configured:
            for handler in logging.root.handlers[:]:
                if type(handler) is logging.StreamHandler:  # what logging.basicConfig adds
                    logging.root.removeHandler(handler)


with root_logger_kept():
    import grain.python as grain
    import orbax.checkpoint as ocp

__all__ = ["grain", "ocp", "root_logger_kept"]
