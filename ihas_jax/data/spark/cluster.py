"""Work on the processes of a Spark cluster: results in order, progress, shuffles.

Frames of Polars travel between processes as bytes, so that their values are counted and compared
by the same program as on one machine, and Spark needs neither pandas nor PyArrow.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import polars as pl

from ihas_jax.data.spark.failures import SPARK_ERRORS, explained, reported
from ihas_jax.errors import InputError
from ihas_jax.progress import track

if TYPE_CHECKING:
    from pyspark import RDD, SparkContext

_T = TypeVar("_T")
_R = TypeVar("_R")
_POLL_SECONDS = 0.2


def run(
    context: SparkContext, work: Callable[[_T], _R], items: Sequence[_T], description: str
) -> list[_R]:
    """Returns `work(item)` of each item, in order; each is a task of its own.

    Raises:
      InputError: A task raised it (that of the first item counts, and none is tried again), or
        Spark could not finish all tasks.
    """
    if not items:
        return []
    tasks = spread(context.parallelize(items, len(items)), partial(_attempt, work))
    results = []
    for result in collect(tasks, description, len(items)):
        if isinstance(result, InputError):
            raise result
        results.append(result)
    return results


def collect(tasks: RDD[_T], description: str, total: int) -> list[_T]:
    """Collects the results of `total` tasks, those of earlier stages included; shows progress.

    Raises:
      InputError: A task of `spread` or `exchange` raised it, or Spark could not finish all tasks.
    """
    context, group = tasks.context, uuid4().hex

    def work() -> list[_T]:
        context.setJobGroup(group, description, interruptOnCancel=True)
        return tasks.collect()

    with (
        explained(description),
        ThreadPoolExecutor(1) as thread,
        track(description, total, "parts") as progress,
    ):
        coming, done = thread.submit(work), 0
        try:
            while not coming.done():
                wait([coming], _POLL_SECONDS)
                now = max(done, min(_finished(context, group), total))
                progress.advance(now - done)
                done = now
            return coming.result()
        except BaseException:
            with suppress(*SPARK_ERRORS):
                context.cancelJobGroup(group)
            raise


def spread(items: RDD[_T], work: Callable[[_T], Iterable[_R]]) -> RDD[_R]:
    """The results of `work(item)` of each item; an error says which item it came from."""
    return items.mapPartitions(partial(_worked, work))


def exchange(frames: RDD[tuple[int, bytes]], tasks: int, merge: Callable[..., _R]) -> RDD[_R]:
    """Brings the frames of each key together.

    Args:
      frames: Pairs of a key, an integer from 0 on, and a frame.
      tasks: The number of tasks that share the keys.
      merge: Called with a key and the list of its frames.

    Returns:
      The results of `merge`.
    """
    return frames.partitionBy(tasks, int).mapPartitions(partial(_merged, merge))


def to_bytes(frame: pl.DataFrame) -> bytes:
    """A frame as bytes."""
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer, compression="lz4")
    return buffer.getvalue()


def from_bytes(data: bytes) -> pl.DataFrame:
    """The frame that `to_bytes` got."""
    return pl.read_ipc_stream(io.BytesIO(data))


def shares(frame: pl.DataFrame, count: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """The rows of a frame by the hash of their `value`: (share, rows) of `count` shares."""
    if count == 1:
        yield 0, frame
        return
    share = frame.select(share=pl.col("value").hash(0) % count).to_series()
    for number in share.unique():
        yield int(number), frame.filter(share == number)


def _attempt(work: Callable[[_T], _R], item: _T) -> Iterator[_R | InputError]:
    try:
        yield work(item)
    except InputError as error:
        yield InputError(str(error))


def _worked(work: Callable[[_T], Iterable[_R]], items: Iterable[_T]) -> Iterator[_R]:
    for item in items:
        with reported(item):
            yield from work(item)


def _merged(merge: Callable[..., _R], pairs: Iterable[tuple[int, bytes]]) -> Iterator[_R]:
    frames: dict[int, list[bytes]] = {}
    for key, data in pairs:
        frames.setdefault(key, []).append(data)
    for key in sorted(frames):
        with reported():
            yield merge(key, [from_bytes(data) for data in frames.pop(key)])


def _finished(context: SparkContext, group: str) -> int:
    """The finished tasks of all stages of a group of jobs."""
    tracker = context.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    stages = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
    return sum(stage.numCompletedTasks for stage in stages if stage)
