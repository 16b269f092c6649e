"""Columns of known values, the ways in which users write them, and their required spelling.

A column is a list of plain Python values of one idea (integers, floats, truth values, times,
text). What its values must be spelled as is found by Python alone.
"""

from __future__ import annotations

import datetime as dt
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from ihas_jax.data.raw.canonical import MISSING_WORDS

TEXTS = ("a", "b", "é", "x,y", 'q"q', "new\nline", " a", "NA", "nan", "1.1", "1.10", "0", "用户")


@dataclass(frozen=True)
class Column:
    """A column of known values.

    Attributes:
      idea: What its values are.
      values: [n] values; None is missing.
    """

    idea: str
    values: list[Any]


def random_column(rng: random.Random, rows: int) -> Column:
    """A column of some idea; its values repeat."""
    draw: dict[str, Callable[[], Any]] = {
        "integer": lambda: rng.randint(-3, 40),
        "large": lambda: rng.choice((2**53 + 1, 2**63 + 5, -(2**60), 12345678901)),
        "float": lambda: round(rng.uniform(-3, 3), rng.randint(1, 4)),
        "boolean": lambda: rng.random() < 0.5,
        "date": lambda: dt.datetime(2014, 10, rng.randint(1, 28)),
        "time": lambda: dt.datetime(
            2014, 10, rng.randint(1, 28), rng.randint(0, 23), 30, 5, rng.choice((0, 120_000))
        ),
        "padded": lambda: f"0{rng.randint(1, 40):03}",
        "text": lambda: rng.choice(TEXTS),
        "missing": lambda: None,
    }
    idea = rng.choice(list(draw))
    pool = [draw[idea]() for _ in range(rng.randint(1, 9))]
    gaps = rng.choice((0.0, 0.2))
    values = [None if rng.random() < gaps else rng.choice(pool) for _ in range(rows)]
    # a column of nothing but numbers is one of numbers
    return Column(idea, ["a", *values[1:]] if idea == "text" else values)


def as_words(rng: random.Random, column: Column) -> list[str]:
    """The column as the text of a CSV, in any spelling that says the same."""
    return ["" if value is None else _word(rng, column.idea, value) for value in column.values]


def _word(rng: random.Random, idea: str, value: Any) -> str:
    if idea == "integer":
        return rng.choice((str(value), f"{value}.0", f"{value}.00"))
    if idea == "boolean":
        return str(rng.choice((str(value), str(value).lower(), str(value).upper())))
    if idea == "date":
        return str(rng.choice((value.strftime("%Y-%m-%d"), value.isoformat(), f"{value}.000")))
    if idea == "time":
        east = value.replace(tzinfo=dt.UTC).astimezone(dt.timezone(dt.timedelta(hours=2)))
        return str(rng.choice((str(value), f"{value.isoformat()}Z", east.isoformat())))
    return str(value)


def as_container(rng: random.Random, column: Column) -> Any:
    """The column as a list, an array or a series, of any type that can hold its values."""
    values = column.values
    whole = None not in values
    ways: list[Callable[[], Any]] = [lambda: values, lambda: pl.Series(values, strict=False)]
    if column.idea == "integer":
        ways += [
            lambda: [None if v is None else float(v) for v in values],
            lambda: [math.nan if v is None else np.float32(v) for v in values],
            lambda: [math.nan if v is None else rng.choice((v, float(v), str(v))) for v in values],
            lambda: pl.Series(values, dtype=pl.Int8),
            lambda: pl.Series([None if v is None else f"{v}.0" for v in values], dtype=pl.String),
            lambda: [None if v is None else Decimal(v).scaleb(-1).scaleb(1) for v in values],
            lambda: np.array([math.nan if v is None else v for v in values]),
        ]
    if column.idea == "float":
        ways += [
            lambda: pl.Series(values, dtype=pl.Float64).cast(pl.Float32),
            lambda: [None if v is None else float(np.float32(v)) for v in values],
            lambda: [None if v is None else Decimal(f"{v}0") for v in values],
            lambda: np.array([math.nan if v is None else v for v in values], np.float32),
        ]
    if column.idea == "boolean":
        ways += [
            lambda: [None if v is None else int(v) for v in values],
            lambda: [math.nan if v is None else float(v) for v in values],
            lambda: [math.nan if v is None else v for v in values],
            lambda: ["NaN" if v is None else str(v).upper() for v in values],
        ]
    if column.idea in ("date", "time"):
        units = [pl.Datetime(unit) for unit in ("ms", "us", "ns")]
        ways.append(lambda: pl.Series(values, dtype=rng.choice(units)))
        utc = pl.Datetime("us", "UTC")
        ways.append(lambda: pl.Series(values, dtype=utc).dt.convert_time_zone("Asia/Tokyo"))
        ways.append(lambda: as_words(rng, column))
    if column.idea == "date" and whole:
        ways += [lambda: [v.date() for v in values], lambda: np.array(values, "M8[D]")]
    if column.idea in ("text", "padded"):
        ways += [
            lambda: pl.Series(values, dtype=pl.Categorical),
            lambda: [math.nan if v is None else v for v in values],
            lambda: [None if v is None else v.encode() for v in values],
            lambda: np.array(values, object),
        ]
    return rng.choice(ways)()


def expected(value: Any, idea: str, kind: str) -> str | None:
    """The spelling of a value, by Python alone."""
    if value is None:
        return ""
    if idea == "boolean":
        return str(int(value)) if kind == "integer" else str(value).lower()
    if idea in ("date", "time"):
        text = value.strftime("%Y-%m-%d %H:%M:%S.%f")
        return text.rstrip("0").rstrip(".")
    if idea == "float":
        return str(int(value)) if value == int(value) else repr(value)
    return reference_spelling(value, "text") if idea == "text" else str(value)


def reference_spelling(text: str, kind: str) -> str | None:
    """The spelling of text in a field of a kind, by Python alone."""
    if kind == "text":
        whole = re.fullmatch(r"(-?(?:0|[1-9]\d{0,14}))\.0+", text)
        truth = text in ("True", "TRUE", "False", "FALSE")
        plain = whole[1] if whole else text.lower() if truth else text
        return "0" if plain == "-0" else plain
    absent = text.lower() in MISSING_WORDS
    if kind == "numeric" and absent:
        return "NULL"
    if absent:
        return ""
    if kind == "boolean" and text.lower() in ("true", "false"):
        return text.lower()
    number = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text)
    value = float(text) if number else math.nan
    if kind == "numeric":
        if not math.isfinite(value):
            return None
        integer = int(value)
        return str(int(math.log(integer) ** 2) if integer > 2 else integer - 2)
    if kind == "integer" and re.fullmatch(r"[+-]?\d+", text):
        return str(int(text))
    if kind in ("integer", "float") and math.isfinite(value) and value == int(value):
        return str(int(value))
    return text if kind != "float" or not number else repr(value)
