"""What went wrong on a Spark cluster, in one paragraph.

Spark turns an error of a task into text, whose form changes between versions: the traceback, frames
of Java, notes of its own. So a task puts what the user should read between two marks.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException

from ihas_jax.errors import InputError

SPARK_ERRORS = (Py4JError, PySparkException, ConnectionError)
_PACKAGE = Path(__file__).parents[2]
_REPORT = re.compile(r"<<ihas_jax (\[(?:true|false), .*?\]) ihas_jax>>")
_JAVA_REASON = re.compile(r"most recent failure: (?:Lost task .*?\): )?(.*)")


@runtime_checkable
class Placed(Protocol):
    """Something that was made from rows of a log; `place` says which."""

    @property
    def place(self) -> str:
        """The file and the line or row with which the rows begin."""


class TaskError(Exception):
    """An error of a task, with the paragraph that the user gets."""


@contextmanager
def reported(item: object = None) -> Iterator[None]:
    """Turns an error in the block, which works on an item of a task, into a `TaskError`."""
    try:
        yield
    except Exception as error:
        text = str(error)
        if not isinstance(error, InputError):
            frames = traceback.extract_tb(error.__traceback__)
            frame = [f for f in frames if Path(f.filename).is_relative_to(_PACKAGE)][-1]
            text = f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
            text += f": {' '.join(str(error).split())}" if str(error) else ""
            text += f", while at work on {item.place}" if isinstance(item, Placed) else ""
        report = json.dumps([isinstance(error, InputError), text])
        raise TaskError(f"<<ihas_jax {report} ihas_jax>>") from error


@contextmanager
def explained(description: str) -> Iterator[None]:
    """Turns errors of Spark in the block into one paragraph that says which work was not finished.

    Raises:
      InputError: A task failed, or Spark has ended.
    """
    try:
        yield
    except SPARK_ERRORS as error:
        raise _explain(error, description) from error


def _explain(error: Exception, description: str) -> InputError:
    """The error of a task, or the reason why Spark did not finish."""
    if found := _REPORT.search(str(error)):
        own, reason = json.loads(found[1])
        if own:
            return InputError(reason)
    elif isinstance(error, Py4JNetworkError | ConnectionError):
        reason = "its Java process has ended"
    else:
        text = str(getattr(error, "java_exception", error))
        short = _JAVA_REASON.search(text)
        reason = (short[1] if short else text.partition("\n")[0]) or type(error).__name__
    return InputError(
        f"Spark could not finish {description!r}: {reason.rstrip('.')}. Nothing was written; the "
        "same command starts from the beginning. A lost process often means too little memory "
        "(--executor-memory, --driver-memory); spark.log.level=WARN among the flags of "
        "spark-submit (--conf) makes Spark say more."
    )
