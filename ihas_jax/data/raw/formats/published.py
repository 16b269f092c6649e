"""The logs that are published: Criteo, Avazu and MovieLens-1M."""

from __future__ import annotations

from pathlib import Path

from ihas_jax.data.raw.formats.tables import table
from ihas_jax.data.raw.formats.text import TextLog
from ihas_jax.data.raw.logs import Fields, Log
from ihas_jax.data.raw.movielens import MOVIELENS_FIELDS, MovieLensLog

CRITEO_FIELDS: Fields = (
    *((f"I{i}", "numeric") for i in range(1, 14)),
    *((f"C{i}", "category") for i in range(1, 27)),
)
AVAZU_FIELDS = (
    *("hour", "C1", "banner_pos", "site_id", "site_domain", "site_category"),
    *("app_id", "app_domain", "app_category", "device_id", "device_ip", "device_model"),
    *("device_type", "device_conn_type", *(f"C{i}" for i in range(14, 22))),
)


def criteo(*paths: Path) -> Log:
    """Criteo's `train.txt`: tab separated, no header, a label, I1 to I13, C1 to C26."""
    names = ("label", *(name for name, _ in CRITEO_FIELDS))
    return TextLog(paths, "label", CRITEO_FIELDS, names, separator="\t", quoted=False)


def avazu(*paths: Path) -> Log:
    """Avazu's `train.csv`: a header; the 22 columns from `hour` on are fields, `id` is not."""
    return table(*paths, label="click", categorical=AVAZU_FIELDS, time="hour")


def movielens(path: Path) -> Log:
    """MovieLens-1M as published, `ml-1m.zip`: a rating above 3 is a click."""
    fields: Fields = tuple((name, "category") for name in MOVIELENS_FIELDS)
    return MovieLensLog((path,), "liked", fields, time="time")
