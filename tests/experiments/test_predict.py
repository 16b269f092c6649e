"""predict.py: predictions of raw files on the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ihas_jax.data.open import open_store
from ihas_jax.data.raw import formats
from ihas_jax.data.raw.ingest import prepare
from ihas_jax.serving.storage import load_bundle, save_bundle
from ihas_jax.training.metrics import score

ROOT = Path(__file__).parents[2]
ROWS = 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bundle_of):
    """A log in two parts, its store with all rows in order, and a bundle in a run."""
    folder = tmp_path_factory.mktemp("predict")
    draw = np.random.default_rng(0)
    log = pl.DataFrame(
        {
            "id": [f"r{n}" for n in range(ROWS)],
            "user": draw.integers(1, 9, ROWS),
            "ad": draw.choice([*"abcd"], ROWS),
            "click": draw.integers(0, 2, ROWS),
        }
    )
    log.write_csv(folder / "log.csv")
    for number, part in enumerate((log[:600], log[600:])):
        part.write_csv(folder / f"day_{number}.csv")
    (folder / "empty.csv").touch()
    raw = formats.table(folder / "log.csv", label="click", categorical=["user", "ad"])
    prepare(raw, folder / "store", min_count=3, split="test")
    schema = open_store(folder / "store").schema
    (folder / "run").mkdir()
    save_bundle(bundle_of(schema, models=2), folder / "run" / "bundle")
    save_bundle(bundle_of(schema), folder / "one")
    return folder


@pytest.fixture(scope="module")
def want(folder):
    """The predictions of the store's rows, their clusters, and the line of their scores."""
    ids, labels = (np.asarray(part) for part in open_store(folder / "store").test)
    bundle = load_bundle(folder / "run")
    probability = bundle.predict_ids(ids)
    return probability, bundle.assign(ids), f"{score(labels, probability)} (label: click)"


@pytest.fixture
def predict(run_script, folder):
    """Predicts in this process; by default the log, by the run, into a file that is not there."""

    def run(output, *flags, files=("log.csv",), run="run"):
        given = ("--run", run, "--input", *files, "--output", output)
        return run_script(folder, "predict.py", *given, *flags)

    return run


def in_process(folder, *flags):
    """The command, to be started as a process."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-W", "error", ROOT / "experiments" / "predict.py", *flags]
    return {"args": command, "cwd": folder, "env": {**os.environ, "PYTHONPATH": path}}


@pytest.mark.parametrize("run", ["run", "run/bundle"])
@pytest.mark.parametrize("files", [["log.csv"], ["day_*.csv", "empty.csv"]])
def test_the_predictions_of_a_log(tmp_path, predict, want, run, files):
    path = tmp_path / "p.parquet"
    done = predict(path, "--keep", "id", files=files, run=run)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == want[2]
    assert lines[-1].startswith(f"{ROWS:,} rows in ")
    assert ("1 empty files skipped; the first: empty.csv" in lines) == (len(files) > 1)
    rows = pl.read_parquet(path)
    assert rows.columns == ["id", "probability", "cluster"]
    assert rows["id"].to_list() == [f"r{n}" for n in range(ROWS)]
    np.testing.assert_allclose(rows["probability"], want[0], rtol=1e-5)
    np.testing.assert_array_equal(rows["cluster"], want[1])
    assert list(tmp_path.iterdir()) == [path]


def test_one_model_writes_no_cluster(tmp_path, predict):
    done = predict(tmp_path / "p.csv", run="one")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.csv").read_text().partition("\n")[0] == "probability"


def test_stdout_has_the_rows_and_nothing_else(folder, want):
    done = subprocess.run(
        **in_process(folder, "--run", "run", "--input", "log.csv", "--output", "-", "--keep", "ad"),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = pl.read_csv(done.stdout)
    assert rows.columns == ["ad", "probability", "cluster"]
    np.testing.assert_allclose(rows["probability"], want[0], rtol=1e-5)
    assert want[2] in done.stderr.decode()


def test_a_pipe_that_nobody_reads_ends_the_work(folder):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        **in_process(folder, "--run", "run", "--input", "log.csv", "--output", "-"),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == "The reader of stdout has ended before all rows were written.\n"


def test_a_closed_stdout_is_said_before_anything_is_read(folder):
    call = in_process(folder, "--run", "none", "--input", "none", "--output", "-")
    call["args"] = ["bash", "-c", '"$@" >&-', "bash", *call["args"]]
    done = subprocess.run(**call, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: --output - is stdout, which is closed; open it, or name a file\n"


SMALL_BLOCKS = """
import runpy, sys
from pathlib import Path
from ihas_jax.data.raw import records
records.BLOCK_BYTES = 500
sys.path.insert(0, str(Path(sys.argv[1]).parent))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_process_killed_in_the_middle_leaves_no_half_file(tmp_path, folder, predict, suffix):
    output, partial = tmp_path / f"p.{suffix}", tmp_path / f".p.{suffix}.partial"
    header, _, rows = (folder / "log.csv").read_text().partition("\n")
    (tmp_path / "long.csv").write_text(f"{header}\n{rows * 60}")
    call = in_process(folder, "--run", "run", "--input", tmp_path / "long.csv", "--output", output)
    call["args"][1:3] = ["-c", SMALL_BLOCKS]
    first, deadline = partial / ("part-3" if suffix == "parquet" else output.name), 120
    with subprocess.Popen(**call) as process:
        while not (first.exists() and first.stat().st_size > 100):
            assert process.poll() is None
            deadline -= 0.01
            assert deadline > 0
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert partial.exists()
    assert not output.exists()
    assert predict(output).returncode == 0
    assert not partial.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": ["none.csv"]}, "none.csv: no such file"),
        ({"files": ["none_*.csv"]}, "none_*.csv: no such file"),
        ({"files": ["empty.csv"]}, "empty.csv is empty"),
        ({"files": ["log.csv", "log.csv"]}, "--input holds log.csv twice"),
        ({"files": ["store/test.ids.npy"]}, "store/test.ids.npy"),
        ({"run": "none"}, "none holds no complete bundle"),
        ({"flags": ["--keep", "key"]}, "log.csv has no column 'key'; its columns are id, user"),
        ({"flags": ["--keep", "id", "id"]}, "the column 'id' is to be kept twice"),
        ({"flags": ["--label", "y"]}, "log.csv has no column 'y'"),
        ({"flags": ["--label", "ad"]}, "log.csv, line 2: the label ad is"),
        ({"flags": ["--separator", ";"]}, "log.csv has no columns 'user', 'ad'; its columns are"),
        ({"output": "p.txt"}, "--output p.txt must end in .parquet or .csv"),
        ({"output": "none/p.csv"}, "--output none/p.csv: there is no folder none; make it first"),
        ({"output": "day_0.csv"}, "day_0.csv exists, and nothing is overwritten"),
        ({"output": "log.csv", "flags": ["--overwrite"]}, "--output log.csv is a file of --input"),
    ],
)
def test_bad_input_is_one_paragraph(folder, predict, changes, message):
    before = {path.name for path in folder.iterdir()}
    call = {"files": ["log.csv"], "run": "run"} | changes
    flags, output = call.pop("flags", ()), call.pop("output", "p.parquet")
    done = predict(output, *flags, **call)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert {path.name for path in folder.iterdir()} == before


def test_a_bad_row_is_an_error_or_counted(tmp_path, folder, predict):
    bad = tmp_path / "bad.csv"
    lines = (folder / "log.csv").read_text().splitlines()
    bad.write_text("\n".join([*lines[:50], "r,1", *lines[50:]]))
    output = tmp_path / "p.csv"
    done = predict(output, files=[bad])
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {bad}, line 51: has 2 columns, not 4; mend it, or leave out such rows with "
        "--on-bad-rows skip\n"
    )
    assert not output.exists()
    done = predict(output, "--on-bad-rows", "skip", files=[bad])
    assert done.returncode == 0, done.stderr
    assert f"1 bad rows skipped; the first: {bad}, line 51: has 2 columns, not 4" in done.stdout
    assert len(output.read_text().splitlines()) == ROWS + 1


def test_rows_without_a_label_or_of_one_class(tmp_path, folder, predict):
    log = pl.read_csv(folder / "log.csv")
    log.drop("click").write_csv(tmp_path / "new.csv")
    done = predict(tmp_path / "a.csv", files=[tmp_path / "new.csv"])
    assert done.returncode == 0, done.stderr
    assert "AUC" not in done.stdout
    log.with_columns(click=pl.lit("not known")).write_csv(tmp_path / "odd.csv")
    done = predict(tmp_path / "b.csv", files=[tmp_path / "odd.csv"])
    assert done.stderr.endswith("or leave the label unread with --no-score\n")
    done = predict(tmp_path / "b.csv", "--no-score", files=[tmp_path / "odd.csv"])
    assert done.returncode == 0, done.stderr
    log.with_columns(click=0).write_csv(tmp_path / "none.csv")
    done = predict(tmp_path / "c.csv", files=[tmp_path / "none.csv"])
    assert "AUC: not defined: all rows have label 0 - logloss: " in done.stdout


def test_another_file_in_its_place(tmp_path, folder, predict):
    output = tmp_path / "p.csv"
    output.write_text("before")
    assert predict(output).returncode == 2
    assert output.read_text() == "before"
    assert predict(output, "--overwrite").returncode == 0
    assert output.read_text().startswith("probability,cluster\n")


def test_drift_is_said(tmp_path, folder, predict):
    log = pl.read_csv(folder / "log.csv")
    log.with_columns(ad=pl.lit("new")).write_csv(tmp_path / "new.csv")
    done = predict(tmp_path / "p.csv", files=[tmp_path / "new.csv"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning: ad: 100.0% of the rows are other, 0.0% expected" in done.stdout


def test_help_says_what_is_written(run_script, tmp_path):
    shown = " ".join(run_script(tmp_path, "predict.py", "--help").stdout.split())
    assert "`probability`" in shown
    assert "`cluster`" in shown
