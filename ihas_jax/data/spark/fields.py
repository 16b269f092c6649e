"""The kinds and the vocabularies of the fields of a log, whose values many processes counted.

What each share of a field tells of its kind is combined here, and what each share keeps makes up
the vocabulary. Vocabularies have to fit in memory, and the distinct numbers of a quantile field.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from ihas_jax.data.raw.counted import (
    KINDS,
    cut_edges,
    fitting_kinds,
    holds_values,
    merged_counts,
    number_counts,
    number_pairs,
    spelled_counts,
    vocabulary,
)
from ihas_jax.data.raw.logs import Log
from ihas_jax.data.schema import CategoryKind, Field, FieldKind
from ihas_jax.data.spark.cluster import collect, exchange, from_bytes, spread, to_bytes
from ihas_jax.data.spark.counting import Counted, Keys

if TYPE_CHECKING:
    from pyspark import RDD


def count_fields(
    counted: RDD[Counted],
    log: Log,
    keys: Keys,
    *,
    min_count: int,
    bins: int,
    tasks: int,
) -> tuple[Field, ...]:
    """Makes the fields of counted values, as `count_field` of one machine does.

    Args:
      counted: The result of `count_values`, which is kept by Spark while it is needed.
      log: The log.
      keys: The shares of its columns.
      min_count: Values seen in fewer rows are not kept.
      bins: The largest number of bins of a quantile field.
      tasks: The tasks that count the values.
    """
    kinds = _find_kinds(counted, log, keys, tasks)
    edges = _find_edges(counted, log, min_count, bins, keys)
    spelled = spread(counted, partial(_spell, tuple(kinds), edges, log.missing, keys))
    least = tuple(1 if kind == "quantile" else min_count for kind in kinds)
    merged = exchange(spelled, keys.tasks, partial(_keep, keys, least))
    fields = []
    found = collect(merged, "Counting", 2 * keys.tasks)
    for number, ((name, _), kind) in enumerate(zip(log.fields, kinds, strict=True)):
        own = [entry[1:] for entry in found if entry[0] == number]
        rows, known = (sum(entry[place] for entry in own) for place in (0, 1))
        values = vocabulary([from_bytes(kept) for *_, kept in own])
        share = 1 - known / rows if rows else None
        fields.append(Field(name, values, kind, edges.get(number, ()), share))
    return tuple(fields)


def _find_kinds(counted: RDD[Counted], log: Log, keys: Keys, tasks: int) -> list[FieldKind]:
    """The kind of each field, see `vocabulary.find_kind`."""
    categories = [n for n, (_, rule) in enumerate(log.fields) if rule == "category"]
    judged = spread(counted, partial(_judge, frozenset(categories), log.missing))
    shown = collect(judged, "Counting the parts", tasks + keys.tasks)
    found: dict[int, CategoryKind] = {}
    for number in categories:
        own = [entry for entry in shown if entry[0] == number]
        fitting = [kind for kind in KINDS if all(kind in kinds for _, kinds, _ in own)]
        some = any(holds for *_, holds in own)
        found[number] = fitting[0] if fitting and some else "text"
    numbers = dict(pair for pair in found.items() if pair[1] in ("integer", "float"))
    if numbers:
        pairs = spread(counted, partial(_pairs, numbers, log.missing, keys))
        doubles = exchange(pairs, keys.tasks, partial(_merge_doubles, keys))
        for number, double in collect(doubles, "Comparing numbers", 2 * keys.tasks):
            if double:
                found[number] = "text"
    rules: list[FieldKind] = []
    for number, (_, rule) in enumerate(log.fields):
        rules.append(found[number] if rule == "category" else rule)
    return rules


def _find_edges(
    counted: RDD[Counted], log: Log, min_count: int, bins: int, keys: Keys
) -> dict[int, tuple[float, ...]]:
    """The edges of each quantile field, by its number; the distinct numbers are collected."""
    numbers = frozenset(n for n, (_, rule) in enumerate(log.fields) if rule == "quantile")
    if not numbers:
        return {}
    frames = spread(counted, partial(_numbers, numbers, log.missing))
    found = collect(frames, "Finding bins", keys.tasks)
    return {
        number: cut_edges([from_bytes(data) for n, data in found if n == number], bins, min_count)
        for number in numbers
    }


def _texts(data: bytes, missing: tuple[str, ...]) -> pl.Series:
    texts = from_bytes(data)["value"]
    return texts.filter(~texts.is_in(missing)) if missing else texts


def _judge(
    categories: frozenset[int], missing: tuple[str, ...], counted: Counted
) -> Iterator[tuple[int, tuple[CategoryKind, ...], bool]]:
    """The kinds that fit a share, and whether it has values that are not missing."""
    number, data = counted
    if number in categories:
        texts = _texts(data, missing)
        kinds = fitting_kinds(texts)
        yield number, tuple(kinds), bool(kinds) and holds_values(texts, kinds[0])


def _pairs(
    kinds: dict[int, CategoryKind], missing: tuple[str, ...], keys: Keys, counted: Counted
) -> Iterator[tuple[int, bytes]]:
    number, data = counted
    if number in kinds:
        yield from keys.pairs(number, number_pairs(_texts(data, missing), kinds[number]))


def _merge_doubles(keys: Keys, key: int, frames: Sequence[pl.DataFrame]) -> tuple[int, bool]:
    """Whether a number of a share has two spellings as text."""
    double = pl.concat(frames).unique()["value"].is_duplicated().any()
    return keys.column(key), bool(double)


def _numbers(
    numbers: frozenset[int], missing: tuple[str, ...], counted: Counted
) -> Iterator[Counted]:
    number, data = counted
    if number in numbers:
        frame = from_bytes(data)
        rows = frame.get_column("train", default=frame["count"])
        yield number, to_bytes(number_counts(frame["value"], rows, missing))


def _spell(
    kinds: tuple[FieldKind, ...],
    edges: dict[int, tuple[float, ...]],
    missing: tuple[str, ...],
    keys: Keys,
    counted: Counted,
) -> Iterator[tuple[int, bytes]]:
    number, data = counted
    frame = from_bytes(data).select("value", "count")
    spelled = spelled_counts(frame, kinds[number], missing, edges.get(number, ()))
    yield from keys.pairs(number, merged_counts([spelled]))


def _keep(
    keys: Keys, least: tuple[int, ...], key: int, frames: Sequence[pl.DataFrame]
) -> tuple[Any, ...]:
    """The column, the rows, the rows of kept values, and the kept values of a share."""
    number, merged = keys.column(key), merged_counts(frames)
    kept = merged.filter(pl.col("count") >= least[number])
    return number, int(merged["count"].sum()), int(kept["count"].sum()), to_bytes(kept)
