"""Logs that Spark prepares are those of `prepare`; the tests need PySpark and Java."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ihas_jax import progress
from ihas_jax.data.open import open_store
from ihas_jax.data.raw import formats
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.data.split import SPLITS
from ihas_jax.errors import InputError

pytestmark = [
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of Py4J
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
    data, store = open_store(folder / "spark"), open_store(folder / "store")
    for name in SPLITS:
        for own, other in zip(getattr(data, name), getattr(store, name), strict=True):
            np.testing.assert_array_equal(own, other)
    assert sorted(path.name for path in (folder / "spark").iterdir()) == [
        "schema.json",
        *sorted(SPLITS),
    ]
    return found


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
    from ihas_jax.data.spark import ingest

    monkeypatch.setattr(ingest, "SHARE_BYTES", 3000)  # several shares of a field
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
    with pytest.raises(InputError, match="line 301: has 2 columns, not 40; mend it, or leave out"):
        prepare_with_spark(context)(log, tmp_path / "out", unit_bytes=12000)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    summary = both(context, log, tmp_path, on_bad_rows="skip", split="chronological")
    assert summary.bad_rows == 1
    assert "line 301" in str(summary.complaint)


def test_what_a_killed_process_left_is_removed(context, tmp_path):
    log = criteo(tmp_path / "log")
    left = tmp_path / ".out.partial"
    (left / "spool" / "old").mkdir(parents=True)
    (left / "train").mkdir()
    (left / "train" / "part-000000-000000.parquet").touch()
    prepare_with_spark(context)(log, tmp_path / "out", on_bad_rows="skip")
    assert not left.exists()
    assert len(open_store(tmp_path / "out").train.labels) == 480
    with pytest.raises(InputError, match="exists, and nothing is overwritten"):
        prepare_with_spark(context)(log, tmp_path / "out")


def test_processes_forget_the_schema_of_an_earlier_log(context, tmp_path):
    for values in ("ab", "ba"):
        text = "".join(f"{i % 2},{values[i % 3 > 0]}\n" for i in range(60))
        (tmp_path / "log").write_text(f"y,s\n{text}")
        both(context, formats.table(tmp_path / "log", label="y", categorical=["s"]), tmp_path)
        shutil.rmtree(tmp_path / "spark")
        shutil.rmtree(tmp_path / "store")


def test_the_script_prepares_a_log(tmp_path):
    criteo(tmp_path / "log")
    script = Path(__file__).parents[2] / "experiments" / "prepare_spark.py"
    flags = ("--input", "log", "--output", "out", "--on-bad-rows", "skip")
    done = subprocess.run(
        [sys.executable, script, "criteo", *flags],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYSPARK_SUBMIT_ARGS": "--master local[1] --driver-memory 1g pyspark-shell",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "600 rows, 39 fields" in done.stdout
    assert "1 bad rows skipped; the first: log, line 301" in done.stdout
    assert len(open_store(tmp_path / "out").train.labels) == 480
