from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest

from ihas_jax.data.open import open_store
from ihas_jax.data.raw import formats
from ihas_jax.data.raw.encoder import encode

ROOT = Path(__file__).parents[2]


def start(folder, *flags):
    """Prepares in a process, any warning being an error."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-W", "error", ROOT / "experiments" / "prepare.py", *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def run(run_script):
    """Prepares in this process."""
    return lambda folder, *flags: run_script(folder, "prepare.py", *flags)


def write_criteo(path, rows=50):
    lines = ("\t".join([str(i % 2), *[str(i % 7)] * 13, *[f"v{i % 3}"] * 26]) for i in range(rows))
    path.write_text("\n".join(lines) + "\n")


def write_avazu(path):
    head = ",".join(["id", "click", *formats.AVAZU_FIELDS])
    path.write_text(head + "\n" + "".join(f"{i},{i % 2}" + ",x" * 22 + "\n" for i in range(50)))


def write_movielens(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-1m/users.dat", "1::F::25::7::55117\n")
        archive.writestr("ml-1m/movies.dat", "10::Toy Story (1995)::Animation|Comedy\n")
        archive.writestr("ml-1m/ratings.dat", "1::10::4::978300760\n" * 50)


@pytest.mark.parametrize(
    ("flags", "write", "fields"),
    [
        (["criteo"], write_criteo, 39),
        (["avazu"], write_avazu, 22),
        (["movielens"], write_movielens, 11),
        (
            ["table", "--label", "click", "--categorical", "hour", "C14", "--numeric", "id"],
            write_avazu,
            3,
        ),
    ],
)
def test_every_format_becomes_a_store(tmp_path, run, flags, write, fields):
    write(tmp_path / "raw")
    done = run(tmp_path, *flags, "--input", "raw", "--output", "store", "--min-count", "3")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"50 rows, {fields} fields" in done.stdout
    data = open_store(tmp_path / "store")
    assert data.train.ids.shape == (40, fields)
    for name in data.schema.names:
        assert name in done.stdout


def test_bad_input_is_one_paragraph_and_exit_code_2(tmp_path, run):
    write_criteo(tmp_path / "raw")
    with (tmp_path / "raw").open("a") as file:
        file.write("1\t2\n")
    command = ("criteo", "--input", "raw", "--output", "store")
    done = start(tmp_path, *command)
    assert done.returncode == 2
    assert done.stderr == (
        "error: raw, line 51: has 2 columns, not 40; mend it, or leave out such rows with "
        "--on-bad-rows skip\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["raw"]
    done = run(tmp_path, *command, "--on-bad-rows", "skip")
    assert done.returncode == 0
    assert "1 bad rows skipped; the first: raw, line 51" in done.stdout
    done = run(tmp_path, *command)
    assert done.returncode == 2
    assert done.stderr.startswith("error: store exists, and nothing is overwritten")


def test_a_misspelt_flag_is_an_error(tmp_path, run):
    done = run(tmp_path, "criteo", "--input", "raw", "--output", "store", "--min-cuont", "3")
    assert done.returncode == 2
    assert "--min-count" in done.stderr


def test_help_explains_every_flag(tmp_path, run):
    shown = run(tmp_path, "table", "--help").stdout
    flags = "input output min-count seed on-bad-rows label categorical numeric quantile bins drop"
    for flag in [*flags.split(), "missing", "separator", "time", "time-format"]:
        assert f"--{flag} " in shown


def test_names_that_are_no_utf8_or_markup_are_shown_and_kept(tmp_path):
    names = ["[red]a|b", "用户", "x" * 200]
    raw = tmp_path / os.fsdecode(b"log\xff.csv")
    rows = "".join(f"{i % 2}{',v' * len(names)}\n" for i in range(50))
    raw.write_text(f"click,{','.join(names)}\n{rows}", encoding="utf-8")
    flags = ("--label", "click", "--categorical", *names, "--output", "store")
    done = start(tmp_path, "table", "--input", raw, *flags)
    assert done.returncode == 0, done.stderr
    for name in names[:2]:
        assert name in done.stdout
    about = json.loads((tmp_path / "store" / "store.json").read_text(encoding="utf-8"))
    assert about["origin"]["sources"] == [r"log\xff.csv"]
    assert open_store(tmp_path / "store").schema.names == tuple(names)


def write_table(path, separator=",", rows=300):
    """A log of every kind of column; `t` is a time in another form, - and NA are missing."""
    frame = pl.DataFrame(
        {
            "id": [f"r{i}" for i in range(rows)],
            "user": [str(i % 7) if i % 9 else "-" for i in range(rows)],
            "ctr": [str(i % 100 / 100) if i % 11 else "NA" for i in range(rows)],
            "t": [f"{1 + i // 24:02}/10/2014 {i % 24:02}" for i in range(rows)],
            "y": [i % 2 for i in range(rows)],
        }
    )
    frame.write_csv(path, separator=separator)


def fields_of(store):
    return [(field.name, field.kind) for field in open_store(store).schema.fields]


def test_without_columns_their_rules_are_guessed_and_printed_first(tmp_path, run):
    write_table(tmp_path / "raw")
    flags = ("table", "--input", "raw", "--label", "y", "--missing", "-", "NA", "\\N")
    done = run(tmp_path, *flags, "--output", "store", "--drop", "id", "--time", "t")
    assert (done.returncode, done.stderr) == (0, "")
    guessed, made = done.stdout.index("Guessed"), done.stdout.index("label rate")
    assert guessed < made
    assert "--categorical user --quantile ctr" in done.stdout[guessed:made]
    assert fields_of(tmp_path / "store") == [("user", "integer"), ("ctr", "quantile")]
    schema = open_store(tmp_path / "store").schema
    assert schema.missing == ("-", "NA", "\\N")
    assert encode(schema, {"user": ["-"], "ctr": ["NA"]}).tolist() == [
        [schema.fields[0].values.index(""), schema.fields[1].values.index("NULL")]
    ]
    done = run(tmp_path, *flags, "--output", "all")
    assert "a different value in nearly every row: --drop it?" in done.stdout
    assert [name for name, _ in fields_of(tmp_path / "all")] == ["id", "user", "t", "ctr"]
    # the next day's log takes rules and words from the store
    done = run(
        tmp_path, "table", "--input", "raw", "--label", "y", "--output", "next",
        "--schema", "store", "--split", "test",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Guessed" not in done.stdout
    assert open_store(tmp_path / "next").schema == schema


def test_every_flag_of_a_table(tmp_path, run):
    write_table(tmp_path / "raw", separator="\t")
    done = run(
        tmp_path, "table", "--input", "raw", "--output", "store", "--label", "y",
        "--separator", "\\t", "--quantile", "ctr", "--bins", "4", "--missing", "NA",
        "--time", "t", "--time-format", "%d/%m/%Y %H", "--split", "chronological",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    (field,) = open_store(tmp_path / "store").schema.fields
    assert (field.kind, len(field.edges)) == ("quantile", 3)
    flags = ("table", "--input", "raw", "--output", "x", "--label", "y", "--separator", "\\t")
    for more, error in (
        (("--drop", "nope"), "--drop: there is no column 'nope'; the columns are id, user, ctr"),
        (("--drop", "ctr", "--quantile", "ctr"), "the column 'ctr' is named and dropped"),
        (("--quantile", "ctr", "--bins", "1", "--missing", "NA"), "bins is 1"),
        (
            ("--categorical", "user", "--time", "t", "--split", "chronological"),
            "raw, line 2: t is '01/10/2014 00', not a number or a time such as 2014-10-21 23:00 "
            "(--time-format is for other times)",
        ),
    ):
        done = run(tmp_path, *flags, *more)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {error}")


def test_fractions_as_counts_are_doubted_in_a_line(tmp_path, run):
    write_table(tmp_path / "raw")
    flags = ("table", "--input", "raw", "--label", "y", "--missing", "-", "NA", "--numeric")
    done = run(tmp_path, *flags, "ctr", "user", "--output", "store")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("--numeric"))
    assert line == (
        "--numeric ctr: 100% of its numbers, from 0 to 0.99, become one category; --quantile keeps "
        "them apart"
    )
    assert fields_of(tmp_path / "store") == [("ctr", "numeric"), ("user", "numeric")]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_nested_folders_and_empty_parts(tmp_path, run, run_script, kind):
    frame = pl.DataFrame({"ad": ["u", "v"] * 10, "price": [1.5, 2.5] * 10, "y": [0, 1] * 10})
    for day in ("2014-10-22", "2014-10-21", "__HIVE_DEFAULT_PARTITION__"):
        folder = tmp_path / "log" / f"dt={day}"
        folder.mkdir(parents=True)
        (folder / "_SUCCESS").touch()
        (folder / "part-1").touch()
        part = frame if day[0] == "2" else frame[:0]
        part.write_csv(folder / "part-0") if kind == "csv" else part.write_parquet(
            folder / "part-0"
        )
    done = run(
        tmp_path, "table", "--input", "log", "--output", "store", "--label", "y",
        "--categorical", "dt", "ad", "--quantile", "price", "--min-count", "2",
        "--time", "dt", "--split", "chronological",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    empty = "4 empty files skipped; the first: log/dt=2014-10-21/part-1"
    assert empty in done.stdout.splitlines()
    about = json.loads((tmp_path / "store" / "store.json").read_text(encoding="utf-8"))
    assert "dt=2014-10-21/part-0" in about["origin"]["sources"]
    data = open_store(tmp_path / "store")
    days, ads, prices = data.schema.fields
    assert (days.kind, days.values) == ("time", ("2014-10-21 00:00:00", "2014-10-22 00:00:00"))
    assert ads.values == ("u", "v")
    assert prices.values == ("2.5 or more", "below 2.5")
    assert data.test.ids[:, 0].tolist() == [1] * 4
    assert data.train.ids[:, 0].tolist() == [0] * 20 + [1] * 12
    shown = run_script(tmp_path, "describe.py", "store").stdout
    (line,) = (line for line in shown.splitlines() if "price" in line)
    assert "quantile" in line
    assert "2.5 or more" in line
