"""Logs that Spark prepares are those of `prepare`; the tests need PySpark and Java."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ihas_jax import progress
from ihas_jax.data.encoded import verify_encoded
from ihas_jax.data.open import open_store
from ihas_jax.data.raw import formats
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.spark.parts import make_parts
from ihas_jax.data.split import SPLITS
from ihas_jax.errors import InputError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
pytestmark = [
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of Py4J
    # JAX warns, if a test before has started it, of the fork that becomes Java
    pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning"),
]


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """Spark on one core."""
    from pyspark import SparkConf, SparkContext

    settings = {
        "spark.master": "local[1]",
        "spark.driver.memory": "1g",
        "spark.ui.enabled": "false",
        "spark.local.dir": str(tmp_path_factory.mktemp("spark")),
        "spark.log.level": "ERROR",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        context = SparkContext(conf=SparkConf().setAll(list(settings.items())))
        yield context
        context.stop()


def both(context, log, folder, unit_bytes=8000, **arguments):
    """Prepares a log by Spark and by `prepare`, compares them, and returns the summary."""
    found = prepare_with_spark(context)(log, folder / "spark", unit_bytes=unit_bytes, **arguments)
    expected = prepare(log, folder / "store", **arguments)
    assert replace(found, seconds=0) == replace(expected, seconds=0)
    schemas = ((folder / name / "schema.json").read_bytes() for name in ("spark", "store"))
    assert next(schemas) == next(schemas)
    same_rows(folder / "spark", folder / "store")
    assert sorted(path.name for path in (folder / "spark").iterdir()) == [
        "checksums.json",
        "schema.json",
        *sorted(SPLITS),
    ]
    return found


def same_rows(folder, store):
    for name in SPLITS:
        splits = (getattr(open_store(path), name) for path in (folder, store))
        for own, other in zip(*splits, strict=True):
            np.testing.assert_array_equal(own, other)


def prepare_with_spark(context):
    from ihas_jax.data.spark.ingest import prepare_with_spark

    return partial(prepare_with_spark, context)


def mixed(rng):
    """A line with columns of every kind; many values are equally frequent."""
    return ",".join(
        [
            str(rng.integers(2)),
            rng.choice(["a", "b", "é", "NA", "", "True", '"x,y"', '"one\ntwo"', '"q""t"']),
            f"{rng.integers(40)}{rng.choice(['', '.0'])}",
            rng.choice(["1.1", "1.10", "2"]),
            rng.choice(["0", "1", "true", "FALSE", "-"]),
            rng.choice(["0.5", "1e3", "-2", "-999"]),
            f"2014-10-{rng.integers(10, 29)} {rng.integers(10, 24)}:00"
            + rng.choice(["", ":00", "Z"]),
            rng.choice(["", "-1", "7", "1000", "-"]),
            f"{rng.normal():.2f}",
        ]
    )


@pytest.fixture
def table(tmp_path):
    """A log in three files, one of them compressed and one empty."""
    rng = np.random.default_rng(0)
    text = "y,text,whole,version,truth,part,t,count,price\n"
    for name in ("a.csv", "c.csv.gz"):
        lines = text + "".join(mixed(rng) + "\n" for _ in range(250))
        opened = gzip.open if name.endswith("gz") else open
        with opened(tmp_path / name, "wt", encoding="utf-8") as file:
            file.write(lines)
    (tmp_path / "b.csv").touch()
    return formats.table(
        *sorted(tmp_path.glob("*.csv*")),
        label="y",
        categorical=["text", "whole", "version", "truth", "part", "t"],
        numeric=["count"],
        quantile=["price"],
        time="t",
        missing=["-", "-999"],
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_count": 3},
        {"split": "chronological", "sample": 0.7, "seed": 2, "bins": 7},
        {"split": "test", "limit_rows": 333, "min_count": 1},
    ],
)
def test_a_table_gets_the_rows_and_ids_of_prepare(context, table, tmp_path, monkeypatch, arguments):
    from ihas_jax.data.spark import counting

    monkeypatch.setattr(counting, "SHARE_BYTES", 3000)  # several shares of a field
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    summary = both(context, table, tmp_path, **arguments)
    kinds = {field.name: field.kind for field in summary.schema.fields}
    assert kinds["version"] == "text"
    assert kinds["whole"] == "integer"
    assert kinds["truth"] == "boolean"
    assert kinds["t"] == "time"
    assert summary.schema.missing == ("-", "-999")
    if "limit_rows" not in arguments:
        assert summary.empty == (tmp_path / "b.csv",)


def test_parquet_and_a_later_log_with_its_schema(context, tmp_path):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "click": rng.integers(0, 2, 500),
            "site": rng.integers(0, 60, 500),
            "when": pl.Series(rng.integers(0, 10**15, 500)).cast(pl.Datetime("us")),
        }
    )
    frame.write_parquet(tmp_path / "day.parquet", row_group_size=50)
    log = formats.table(
        tmp_path / "day.parquet", label="click", categorical=["site", "when"], time="when"
    )
    first = both(context, log, tmp_path, min_count=8, split="chronological")
    (tmp_path / "next").mkdir()
    later = both(context, log, tmp_path / "next", split="test", schema=first.schema)
    assert later.rows == (0, 0, 500)


def test_movielens_is_one_part(context, tmp_path):
    rng = np.random.default_rng(0)
    users, stars = rng.integers(1, 4, 90), rng.integers(1, 6, 90)
    ratings = (f"{users[i]}::1::{stars[i]}::{978300760 - i}" for i in range(90))
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        archive.writestr("users.dat", "1::F::25::7::55117\n2::M::18::1::00123\n3::F::1::0::1\n")
        archive.writestr("movies.dat", "1::Toy Story (1995)::Animation|Comedy\n")
        archive.writestr("ratings.dat", "\n".join(ratings))
    both(context, formats.movielens(tmp_path / "ml-1m.zip"), tmp_path, split="chronological")


def criteo(path, rows=300):
    lines = ["\t".join([str(i % 2), *[str(i % 7)] * 13, *[f"v{i % 3}"] * 26]) for i in range(rows)]
    path.write_text("\n".join([*lines, "1\t2", *lines]) + "\n")
    return formats.criteo(path)


def test_a_bad_row_is_named_or_skipped(context, tmp_path):
    log = criteo(tmp_path / "log")
    with pytest.raises(InputError, match="line 301: has 2 columns, not 40; mend it") as expected:
        prepare(log, tmp_path / "store")
    with pytest.raises(InputError) as found:
        prepare_with_spark(context)(log, tmp_path / "out", unit_bytes=12000)
    assert str(found.value) == str(expected.value)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    summary = both(context, log, tmp_path, on_bad_rows="skip", split="chronological")
    assert summary.bad_rows == 1
    assert "line 301" in str(summary.complaint)


@dataclass(frozen=True)
class Failing:
    """A splitter whose tasks fail while they count values."""

    error: str

    def __call__(self, part):
        if not self.error:
            os._exit(1)
        raise RuntimeError(self.error)
        yield


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "two\nlines of a log",
            "'Counting the parts': RuntimeError in counting.py, line [0-9]+: two lines of a log, "
            "while at work on .*log from line [0-9]+ on. Nothing was written",
        ),
        ("", "'Counting the parts': .*Python worker exited unexpectedly"),
    ],
    ids=["an exception", "the process ends"],
)
def test_a_task_that_fails_is_one_paragraph(context, tmp_path, monkeypatch, error, message):
    from ihas_jax.data.spark import ingest

    log = criteo(tmp_path / "log")
    monkeypatch.setattr(ingest, "find_splitter", lambda *_: Failing(error))
    with pytest.raises(InputError, match=f"Spark could not finish {message}") as found:
        prepare_with_spark(context)(log, tmp_path / "out", on_bad_rows="skip", unit_bytes=12000)
    assert "Traceback" not in str(found.value)
    assert "\tat " not in str(found.value)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_spool_that_is_damaged_before_it_is_counted_is_named(context, tmp_path, monkeypatch):
    from ihas_jax.data.spark import ingest

    log, made = criteo(tmp_path / "log"), []

    def damage(*arguments):
        made.extend(make_parts(*arguments))
        file = made[-1].folder / "rows"
        file.write_bytes(bytes(file.stat().st_size))
        return made

    monkeypatch.setattr(ingest, "make_parts", damage)
    with pytest.raises(InputError) as found:
        prepare_with_spark(context)(log, tmp_path / "out", on_bad_rows="skip", unit_bytes=12000)
    assert str(found.value) == (
        f"{made[-1].folder / 'rows'} is damaged; run the same command again, which will start from "
        "the beginning"
    )


def test_a_killed_process_leaves_nothing_that_opens_and_the_next_begins_anew(context, tmp_path):
    log = criteo(tmp_path / "log")
    # killed where most of the folder is in place
    program = (
        "import os, pathlib\n"
        "rename = pathlib.Path.rename\n"
        "def rename_or_end(self, target):\n"
        "    return os.kill(os.getpid(), 9) if self.name == 'test' else rename(self, target)\n"
        "pathlib.Path.rename = rename_or_end\n"
    )
    done = run_script(tmp_path, program)
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "out").exists()
    left = tmp_path / ".out.partial"
    assert {path.name for path in left.iterdir()} > {"work", "train", "valid", "schema.json"}
    with pytest.raises(InputError, match=r"holds no test\.parquet"):
        open_store(left)
    prepare_with_spark(context)(log, tmp_path / "out", on_bad_rows="skip", min_count=2)
    assert not left.exists()
    prepare(log, tmp_path / "store", on_bad_rows="skip", min_count=2)
    same_rows(tmp_path / "out", tmp_path / "store")
    verify_encoded(tmp_path / "out")
    with pytest.raises(InputError, match="exists, and nothing is overwritten"):
        prepare_with_spark(context)(log, tmp_path / "out")


def test_processes_forget_the_schema_of_an_earlier_log(context, tmp_path):
    for values in ("ab", "ba"):
        text = "".join(f"{i % 2},{values[i % 3 > 0]}\n" for i in range(60))
        (tmp_path / "log").write_text(f"y,s\n{text}")
        both(context, formats.table(tmp_path / "log", label="y", categorical=["s"]), tmp_path)
        shutil.rmtree(tmp_path / "spark")
        shutil.rmtree(tmp_path / "store")


def run_script(folder, before=""):
    """Runs prepare_spark.py on `log` of the folder with one core, after a program."""
    script = EXPERIMENTS / "prepare_spark.py"
    program = f"{before}\nimport runpy\nrunpy.run_path({str(script)!r}, run_name='__main__')"
    flags = ("criteo", "--input", "log", "--output", "out", "--on-bad-rows", "skip")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(EXPERIMENTS), *sys.path))),
        "PYSPARK_SUBMIT_ARGS": "--master local[1] --driver-memory 1g pyspark-shell",
    }
    return subprocess.run(
        [sys.executable, "-c", program, *flags],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_prepares_a_log(tmp_path):
    criteo(tmp_path / "log")
    done = run_script(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "600 rows, 39 fields" in done.stdout
    assert "1 bad rows skipped; the first: log, line 301" in done.stdout
    assert len(open_store(tmp_path / "out").train.labels) == 480
    verify_encoded(tmp_path / "out")


@pytest.mark.parametrize(
    ("act", "code", "message"),
    [
        ("os.kill(os.getpid(), 2)", 130, "interrupted: nothing was written; the same command"),
        (
            "os.kill(SparkContext._gateway.proc.pid, 9)",
            2,
            "error: Spark could not finish 'Counting the parts': its Java process has ended. ",
        ),
    ],
    ids=["Ctrl-C", "Java ends"],
)
def test_an_end_while_values_are_counted_is_told_in_one_paragraph(tmp_path, act, code, message):
    criteo(tmp_path / "log")
    program = (
        "import os\n"
        "from pyspark import SparkContext\n"
        "from ihas_jax.data.spark import ingest\n"
        "count = ingest.count_fields\n"
        "def act_and_count(*arguments, **more):\n"
        f"    {act}\n"
        "    return count(*arguments, **more)\n"
        "ingest.count_fields = act_and_count\n"
    )
    done = run_script(tmp_path, program)
    assert done.returncode == code, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
