"""Guesses from the first rows of a raw log by which rules its columns should become categories.

    >>> guess_fields(first_rows(formats.table(path, label="click", categorical=names)))

The rules look at the values of a column that are not missing:

- Truth values, times and text are categories.
- Numbers with fractions are cut into bins (quantile). They are text if two spellings are one
  number, such as 1.1 and 1.10.
- Whole numbers are categories, unless most of the rows hold a number that occurs in fewer than
  `min_count` rows. Then they are cut into bins if they do not look like ids.
- Whole numbers look like ids if the name of the column ends in "id", or if the median of the
  distinct numbers lies in the middle half of their range: ids and time stamps are spread evenly,
  while most counts, amounts and durations are small.

A category with a different value in nearly every row teaches nothing and gets a note; so do a
column with one value, and more than a thousand whole numbers that do not look like ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import polars as pl

from ihas_jax.data.raw.canonical import fits_kind, read_numbers, spell
from ihas_jax.data.raw.logs import Log
from ihas_jax.data.schema import CategoryKind, Rule

FIRST_ROWS = 100_000

_FEWEST_ROWS = 100
_OWN = 0.9
_COLLAPSED = 0.95
_MANY = 1000
_KINDS: tuple[CategoryKind, ...] = ("integer", "boolean", "float", "time")
_ID = re.compile(r"(?:^|[^a-z])u?id$|[a-z](?:ID|Id)$")


@dataclass(frozen=True)
class Guess:
    """The proposed rule for one column.

    Attributes:
      column: The name of the column.
      rule: "category" or "quantile".
      kind: The kind of the values.
      distinct: The number of distinct values that are not missing.
      note: A hint for the user, or "".
    """

    column: str
    rule: Rule
    kind: CategoryKind
    distinct: int
    note: str


def first_rows(log: Log, rows: int = FIRST_ROWS) -> pl.DataFrame:
    """The fields of the first usable rows of a log, as text; the time is not read.

    Numeric fields come as their codes, since reading a log spells them.

    Raises:
      InputError: The log cannot be read.
    """
    names = [name for name, _ in log.fields]
    frames = [pl.DataFrame(schema=dict.fromkeys(names, pl.String))]
    for chunk in replace(log, time=None).chunks():
        columns = zip(names, chunk.columns, strict=True)
        frames.append(pl.DataFrame({name: v.gather(codes) for name, (codes, v) in columns}))
        if sum(frame.height for frame in frames) >= rows:
            break
    return pl.concat(frames).head(rows)


def guess_fields(
    frame: pl.DataFrame, *, min_count: int = 10, missing: Iterable[str] = ()
) -> list[Guess]:
    """Guesses the rule of each column; the rules are described at the top of this module.

    Args:
      frame: Rows of a log; all columns are text.
      min_count: Values seen in fewer rows will become "other".
      missing: Words that mean a missing value.
    """
    return [_guess(frame[name], min_count, tuple(missing)) for name in frame.columns]


def find_collapse(texts: pl.Series, missing: Iterable[str] = ()) -> str | None:
    """Describes how the rule `numeric` merges nearly all numbers of a column; None if it does not.

    It does if one or two categories hold 95 % of the numbers and more than two different numbers:
    all shares below 1 have one code, for instance.
    """
    texts = texts.alias("text")  # a name such as "*" is a pattern in Polars
    texts = texts.filter(~texts.is_in(tuple(missing)))
    numbers = pl.DataFrame({"number": read_numbers(texts), "code": spell(texts, "numeric")})
    numbers = numbers.filter(pl.col("number").is_not_null())
    codes = numbers.group_by("code").agg(
        pl.len(),
        pl.col("number").n_unique().alias("distinct"),
        pl.col("number").min().alias("low"),
        pl.col("number").max().alias("high"),
    )
    top = codes.top_k(2, by="len")
    if top["len"].sum() < _COLLAPSED * numbers.height or top["distinct"].sum() <= 2:
        return None
    share, low, high = top.select(
        pl.col("len").sum() / numbers.height, pl.col("low").min(), pl.col("high").max()
    ).row(0)
    become = "two categories" if top.height > 1 else "one category"
    return f"{share:.0%} of its numbers, from {low:g} to {high:g}, become {become}"


def _guess(texts: pl.Series, min_count: int, missing: tuple[str, ...]) -> Guess:
    name, rows = texts.name, len(texts)
    texts = texts.alias("value")  # a name such as "*" is a pattern in Polars
    counts = texts.filter(~texts.is_in(missing)).value_counts(name="rows")
    values = counts["value"]
    kind, note = _kind(values)
    counts = counts.with_columns(value=spell(values, kind)).filter(pl.col("value") != "")
    counts = counts.group_by("value").agg(pl.col("rows").sum())
    distinct, present = counts.height, int(counts["rows"].sum())
    if not distinct:
        return Guess(name, "category", kind, 0, "no value in these rows: --drop it?")
    rule: Rule = "quantile" if kind == "float" else "category"
    rare = int(counts.filter(pl.col("rows") < min_count)["rows"].sum()) / present
    if kind == "integer" and rare > 0.5 and not _looks_like_id(name, counts["value"]):
        rule, note = "quantile", "most values are rare: --categorical if they are ids"
    if rule == "category" and not note:
        if present >= _FEWEST_ROWS and distinct >= _OWN * present:
            note = "a different value in nearly every row: --drop it?"
        elif distinct == 1 and present == rows:
            note = "one value in these rows: --drop it?"
        elif rare > 0.5:
            note = f"rare values in {rare:.0%} of these rows"
        elif kind == "integer" and distinct > _MANY and not _looks_like_id(name, counts["value"]):
            note = "--quantile if these are amounts"
    return Guess(name, rule, kind, distinct, note)


def _kind(values: pl.Series) -> tuple[CategoryKind, str]:
    """The kind of all distinct values, and a note."""
    kind = next((kind for kind in _KINDS if fits_kind(values, kind)), None)
    if kind is None or not (spell(values, kind) != "").any():
        return "text", ""
    if kind in ("integer", "float"):
        pairs = pl.DataFrame({"value": spell(values, kind), "text": spell(values, "text")})
        pairs = pairs.filter(pl.col("value") != "").unique()
        twice = pairs.filter(pl.col("value").is_duplicated()).sort("value", "text")
        if twice.height:
            one, other = twice["text"][:2]
            return "text", f"text, since {one} and {other} are one number: --quantile if it is one"
    return kind, ""


def _looks_like_id(name: str, values: pl.Series) -> bool:
    if _ID.search(name):
        return True
    numbers = read_numbers(values).sort()
    low, high = numbers[0], numbers[-1]
    place = (numbers[len(numbers) // 2] - low) / max(high - low, 1.0)
    return bool(0.25 <= place <= 0.75)
