from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ihas_jax.data import formats
from ihas_jax.data.store import open_store

ROOT = Path(__file__).parents[2]


def run(folder, *flags):
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-W", "error", ROOT / "experiments" / "prepare.py", *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )


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
def test_every_format_becomes_a_store(tmp_path, flags, write, fields):
    write(tmp_path / "raw")
    done = run(tmp_path, *flags, "--input", "raw", "--output", "store", "--min-count", "3")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"50 rows, {fields} fields" in done.stdout
    data = open_store(tmp_path / "store")
    assert data.train.ids.shape == (40, fields)
    for name in data.schema.names:
        assert name in done.stdout


def test_bad_input_is_one_paragraph_and_exit_code_2(tmp_path):
    write_criteo(tmp_path / "raw")
    with (tmp_path / "raw").open("a") as file:
        file.write("1\t2\n")
    command = ("criteo", "--input", "raw", "--output", "store")
    done = run(tmp_path, *command)
    assert done.returncode == 2
    assert done.stderr == (
        "error: raw, line 51: has 2 columns, not 40; mend it, or leave out such rows with "
        "--on-bad-rows skip\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["raw"]
    done = run(tmp_path, *command, "--on-bad-rows", "skip")
    assert done.returncode == 0
    assert "1 bad rows left out; the first: raw, line 51" in done.stdout
    done = run(tmp_path, *command)
    assert done.returncode == 2
    assert done.stderr.startswith("error: store exists, and nothing is overwritten")


def test_a_misspelt_flag_is_an_error(tmp_path):
    done = run(tmp_path, "criteo", "--input", "raw", "--output", "store", "--min-cuont", "3")
    assert done.returncode == 2
    assert "--min-count" in done.stderr


def test_help_explains_every_flag(tmp_path):
    shown = run(tmp_path, "table", "--help").stdout
    for flag in ("input", "output", "min-count", "seed", "on-bad-rows", "label", "categorical"):
        assert f"--{flag}" in shown


def test_names_that_are_no_utf8_or_markup_are_shown_and_kept(tmp_path):
    names = ["[red]a|b", "用户", "x" * 200]
    raw = tmp_path / os.fsdecode(b"log\xff.csv")
    rows = "".join(f"{i % 2}{',v' * len(names)}\n" for i in range(50))
    raw.write_text(f"click,{','.join(names)}\n{rows}", encoding="utf-8")
    flags = ("--label", "click", "--categorical", *names, "--output", "store")
    done = run(tmp_path, "table", "--input", raw, *flags)
    assert done.returncode == 0, done.stderr
    for name in names[:2]:
        assert name in done.stdout
    about = json.loads((tmp_path / "store" / "store.json").read_text(encoding="utf-8"))
    assert about["origin"]["sources"] == [r"log\xff.csv"]
    assert open_store(tmp_path / "store").schema.names == tuple(names)
