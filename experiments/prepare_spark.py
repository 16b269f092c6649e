"""Prepares a raw log on a Spark cluster: `spark-submit prepare_spark.py criteo --input DIR ...`.

The flags, rows, splits and ids are those of `prepare.py`; the output is a folder of Parquet.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    # importing what follows takes seconds
    catch_interrupts("nothing was written; the same command starts from the beginning")

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import tyro
from prepare import Avazu, Criteo, MovieLens, Table, report

from ihas_jax.errors import InputError, run_cli

if TYPE_CHECKING:
    from pyspark import SparkContext

Command = (
    Annotated[Criteo, tyro.conf.subcommand("criteo")]
    | Annotated[Avazu, tyro.conf.subcommand("avazu")]
    | Annotated[MovieLens, tyro.conf.subcommand("movielens")]
    | Annotated[Table, tyro.conf.subcommand("table")]
)


@contextmanager
def connect() -> Iterator[SparkContext]:
    """Connects to the cluster that spark-submit names, by default all cores of this machine."""
    try:
        from py4j.protocol import Py4JError, Py4JJavaError
        from pyspark import SparkConf, SparkContext
        from pyspark.errors import PySparkRuntimeError
    except ImportError:
        raise InputError(
            "prepare_spark.py needs PySpark and Java 17: pip install 'ihas_jax[spark]'"
        ) from None
    # the processes of the cluster run this interpreter, unless the user names another
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    conf = SparkConf().setAppName("ihas_jax prepare").set("spark.ui.showConsoleProgress", "false")
    # an error is one paragraph, which tracebacks of every attempt would hide
    conf.setIfMissing("spark.log.level", "OFF")
    handler = signal.getsignal(signal.SIGINT)
    try:
        context = SparkContext(conf=conf)
    except PySparkRuntimeError as error:
        raise InputError(
            f"Spark did not start ({error}); it needs Java 17 or later, in the PATH or as JAVA_HOME"
        ) from None
    except Py4JJavaError as error:
        reason = error.java_exception.getMessage()
        raise InputError(
            f"Spark did not start ({reason}); check the flags of spark-submit"
        ) from None
    signal.signal(signal.SIGINT, handler)  # PySpark has replaced it by its own
    try:
        yield context
    finally:
        with suppress(Py4JError, ConnectionError):  # if Java has ended
            context.stop()


def main() -> None:
    """Reads the command line and prepares the log."""
    job = tyro.cli(Command, description=__doc__)
    with connect() as context:
        from ihas_jax.data.spark.ingest import prepare_with_spark  # it needs PySpark

        summary = prepare_with_spark(
            context,
            job.open(),
            job.output,
            min_count=job.min_count,
            seed=job.seed,
            on_bad_rows=job.on_bad_rows,
            split=job.split,
            sample=job.sample,
            limit_rows=job.limit_rows,
            schema=job.old_schema,
            bins=job.bins if isinstance(job, Table) else Table.bins,
        )
    report(summary, job.output)


if __name__ == "__main__":
    run_cli(main, interrupted="nothing was written; the same command starts from the beginning")
