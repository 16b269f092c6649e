"""Finds the splitter of a log; the distinct times of a chronological split are collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from ihas_jax.data.raw.logs import Log
from ihas_jax.data.spark.cluster import collect, from_bytes, run
from ihas_jax.data.spark.counting import count_values, share_out
from ihas_jax.data.spark.parts import Part
from ihas_jax.data.spark.splitters import (
    AllTest,
    AtRandom,
    InOrder,
    Splitter,
    find_boundaries,
    sum_ties,
)
from ihas_jax.data.spark.spooling import Spooled
from ihas_jax.data.split import SplitRule, random_cuts

if TYPE_CHECKING:
    from pyspark import SparkContext


def find_splitter(
    context: SparkContext,
    log: Log,
    parts: Sequence[Part],
    units: Sequence[Spooled],
    split: SplitRule,
    seed: int,
) -> Splitter:
    """The splitter that gives the rows the splits of `prepare`.

    Args:
      context: The connection to the cluster.
      log: The log.
      parts: Its parts.
      units: The units that the parts were made of.
      split: The rule.
      seed: The seed of random splits.

    Raises:
      InputError: Some times are numbers, and others are not; or Spark could not count them.
    """
    rows = sum(part.kept for part in parts)
    if split == "test":
        return AllTest()
    if split == "random":
        return AtRandom(seed, random_cuts(rows, seed))
    if log.time is None:
        return InOrder(rows)
    column = len(log.fields)
    keys = share_out(context, units, [column])
    counted = count_values(context, parts, AllTest(), [column], (), keys)
    found = collect(counted, "Counting times", len(parts) + keys.tasks)
    unplaced = find_boundaries(pl.concat(from_bytes(data) for _, data in found), log.time_format)
    ties = run(context, unplaced.count_ties, parts, "Finding the splits")
    return replace(unplaced, ties=sum_ties(ties))
