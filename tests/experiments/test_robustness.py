from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from ihas_jax import checksums
from ihas_jax.errors import InputError, disk_error
from ihas_jax.files import write_json
from ihas_jax.interrupts import RESUME

LINE = "interrupted: run the same command again to resume\n"


@pytest.fixture(scope="module")
def said(command, finished):
    """A small version of each kind of trial, in a folder that they share."""

    # its programs are those of the other tests' runs
    lab, compiled = command.folder / "lab", command.folder.parent / "compiled"
    lab.mkdir()
    compiled.mkdir(exist_ok=True)
    (lab / "compiled").symlink_to(compiled)
    # and its undisturbed run of iHAS is theirs
    reference = lab / "reference" / "ihas"
    shutil.copytree(finished[0], reference / "run")
    (reference / "seconds").write_text("10.0")

    def trial(kind, *flags):
        results = command.folder / "robustness"
        place = ("--folder", lab, "--results", results)
        robustness = type(command)(command.folder, "robustness.py")
        done = robustness(kind, *place, *flags)
        return done, json.loads(results.with_suffix(".json").read_text())[kind]["tallies"]

    return trial


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("kill", ("--trials", 2, "--renames", 1, "--methods", "none")),
        ("full", ("--trials", 2, "--stages", "base")),
        ("damage", ("--trials", 6, "--methods", "none")),
    ],
)
def test_a_few_trials_of_each_kind(said, kind, flags):
    done, tallies = said(kind, *flags)
    for tally in tallies:
        assert tally["faults"] == []
        if tally["not_done"]:  # not where file systems can't be mounted
            assert kind == "full" and "can't be mounted here" in tally["not_done"]
            assert done.returncode == 2
            pytest.skip(tally["not_done"])
        assert sum(tally["outcomes"].values()) > 0
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("seconds", [0.15, 0.6, 1.2])
def test_ctrl_c_while_importing_is_one_line(command, tmp_path, seconds):
    process = command.start(output=tmp_path / "run")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, LINE)


def test_ctrl_c_while_stderr_is_redirected_is_one_line(tmp_path):
    """As it is while a checkpoint is written, by code that does not end in time."""
    code = (
        "import os, time\n"
        "from ihas_jax.errors import run_cli\n"
        "def main():\n"
        f"    os.dup2(os.open({str(tmp_path / 'held')!r}, os.O_WRONLY | os.O_CREAT), 2)\n"
        "    print('inside', flush=True)\n"
        "    time.sleep(60)\n"
        "run_cli(main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "inside\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, LINE)


def test_ctrl_c_inside_c_code_ends_the_process():
    """C code that answers to no signal, as a compilation does not."""
    code = (
        "import ctypes\n"
        "from ihas_jax.errors import run_cli\n"
        "def main():\n"
        "    c, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)\n"
        "    c.pthread_mutex_init(mutex, None)\n"
        "    c.pthread_mutex_lock(mutex)\n"
        "    print('begins', flush=True)\n"
        "    c.pthread_mutex_lock(mutex)\n"
        "run_cli(main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "begins\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (130, LINE)


def test_an_interrupt_that_is_swallowed_still_ends_the_process():
    code = (
        "import os, signal, time\n"
        "from ihas_jax.errors import run_cli\n"
        "def main():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except BaseException:\n"
        "        raise ValueError('something else') from None\n"
        "run_cli(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, LINE)


def test_a_disk_error_is_one_paragraph():
    code = (
        "import errno, os\n"
        "from ihas_jax.errors import run_cli\n"
        "def main():\n"
        "    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/some/file')\n"
        "run_cli(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: /some/file can't be used: No space left on device. Free")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("standing", "wanted", "remedy"),
    [
        ("file", "folder", "Move away what stands there"),
        ("file", "file in it", "Move away the file that stands where a folder belongs"),
        ("folder", "file", "Move away the folder that stands where a file belongs"),
    ],
)
def test_what_is_in_the_way_is_one_paragraph(tmp_path, standing, wanted, remedy):
    place = tmp_path / "students"
    place.touch() if standing == "file" else place.mkdir()
    make = {
        "folder": lambda: place.mkdir(),
        "file in it": lambda: (place / "a").write_text(""),
        "file": lambda: place.write_text(""),
    }
    with pytest.raises(OSError) as error:
        make[wanted]()
    found = str(disk_error(error.value))
    assert found.startswith(f"{place}") and f"{remedy} and try again." in found
    assert str(disk_error(error.value, then=RESUME)).endswith(f"{remedy} and {RESUME}.")


def test_an_error_of_polars_has_a_code_of_the_disk():
    with pytest.raises(pl.exceptions.ComputeError) as error:
        pl.DataFrame({"a": [1]}).write_parquet("/dev/full")
    assert str(disk_error(error.value, "p.parquet")).startswith("p.parquet can't be used: No space")


@pytest.mark.parametrize("name", ["metrics.json", "stages.json", "config.json"])
def test_another_digit_in_a_file_that_is_read_back_is_named(command, finished, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    text = (run / name).read_text()
    place = next(i for i, letter in enumerate(text) if letter in "12345678")
    (run / name).write_text(text[:place] + str(int(text[place]) + 1) + text[place + 1 :])
    done = command(output=run)
    assert done.returncode == 2
    assert f"{run / name} can't be read (it has another checksum" in done.stderr


def test_a_changed_report_is_named_and_left_alone(command, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    (run / "report.md").write_text("my notes")
    done = command(output=run)
    assert done.returncode == 0
    assert f"{run / 'report.md'} has been changed or damaged" in done.stdout
    assert (run / "report.md").read_text() == "my notes"


def test_a_file_is_believed_before_and_after_its_replacement(tmp_path):
    """Whatever moment a process is killed at, one of the two contents is there and is intact."""
    checksums.start(tmp_path)
    file = tmp_path / "facts.json"
    write_json(file, {"value": 1})
    before = file.read_bytes()
    write_json(file, {"value": 2})
    assert checksums.intact(file)
    file.write_bytes(before)  # the checksums were written, the file was not replaced yet
    assert checksums.intact(file)
    file.write_bytes(before.replace(b"1", b"3"))
    assert not checksums.intact(file)
    write_json(file, {"value": 4})
    assert checksums.intact(file)


def test_unreadable_checksums_are_named(tmp_path):
    checksums.start(tmp_path)
    write_json(tmp_path / "facts.json", {})
    (tmp_path / "checksums.json").write_text('{"facts')
    with pytest.raises(InputError, match=r"checksums\.json is damaged"):
        checksums.intact(tmp_path / "facts.json")
