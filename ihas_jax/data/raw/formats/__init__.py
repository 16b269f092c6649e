"""The readable formats of raw click logs: Criteo, Avazu, MovieLens-1M, and any CSV or Parquet.

Each function returns a small frozen `Log`, ready for `ihas_jax.data.raw.ingest.prepare`.
"""

from __future__ import annotations

from ihas_jax.data.raw.formats.headers import columns_of, require_columns
from ihas_jax.data.raw.formats.parquet import ParquetLog, is_parquet
from ihas_jax.data.raw.formats.published import (
    AVAZU_FIELDS,
    CRITEO_FIELDS,
    avazu,
    criteo,
    movielens,
)
from ihas_jax.data.raw.formats.tables import open_table, table
from ihas_jax.data.raw.formats.text import TextLog

__all__ = [
    "AVAZU_FIELDS",
    "CRITEO_FIELDS",
    "ParquetLog",
    "TextLog",
    "avazu",
    "columns_of",
    "criteo",
    "is_parquet",
    "movielens",
    "open_table",
    "require_columns",
    "table",
]
