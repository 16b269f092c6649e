"""launch.py: two processes that are killed in every stage, one or the other, and resume."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ihas_jax.errors import InputError

# where a process is killed, and which one; iHAS's stages in their order
ENDS = {
    "base": (lambda run: run.in_epoch("base", 0), 1),
    "search": (lambda run: run.in_epoch("search", 0), 0),
    "choose": (lambda run: run.begins("choose"), 1),
    "retrain": (lambda run: run.in_epoch("retrain/cluster_1", 0), 1),
    "evaluate": (lambda run: run.begins("evaluate"), 0),
}
SECONDS = 600


@pytest.fixture(scope="module")
def launched(command, unbound):
    """`launched(output, *flags)`: starts a job of two processes."""

    def start(output, *flags):
        script, *rest = command.arguments(*flags, output=output)
        launch = Path(script).with_name("launch.py")
        process = subprocess.Popen(
            [sys.executable, launch, "--processes", "2", "--", script, *rest],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=command.folder,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "COLUMNS": "100"},
        )
        unbound(process)
        return process

    return start


def children(process):
    """The processes of a job, by their numbers."""
    found = {}
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    for pid in map(int, text.split()):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        if "--process-id" in words:
            found[int(words[words.index("--process-id") + 1])] = pid
    return found


def kill(process, number, there):
    """Kills a process of a job where its run is `there`; False where the job was faster."""
    deadline = time.monotonic() + SECONDS
    while process.poll() is None:
        assert time.monotonic() < deadline, "never got there"
        if not there():
            time.sleep(0.005)
            continue
        pids = children(process)
        os.kill(pids[0], signal.SIGSTOP)  # it works on the folder
        inside = there()
        if inside:
            os.kill(pids[number], signal.SIGKILL)
        os.kill(pids[0], signal.SIGCONT)
        if inside:
            return True
    return False


@pytest.fixture(scope="module")
def whole(command, launched):
    """A run of two processes in one go."""
    output = command.folder / "two"
    process = launched(output)
    said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    return output, said


@pytest.fixture(scope="module")
def killed(command, launched, written):
    """A run of which a process was killed in every stage; code, seconds and words of each job."""
    output, before = command.folder / "killed", command.folder / "killed before"
    found = {}
    for name, (there, number) in ENDS.items():
        for _ in range(5):
            shutil.rmtree(before, ignore_errors=True)
            if output.exists():
                shutil.copytree(output, before)
            process = launched(output)
            inside = kill(process, number, lambda there=there: there(written(output)))
            start = time.monotonic()
            said = process.communicate(timeout=SECONDS)
            found[name] = process.returncode, time.monotonic() - start, said
            if inside:
                break
            assert process.returncode == 0, said
            shutil.rmtree(output)
            before.rename(output)
        assert inside
    process = launched(output)
    said = process.communicate(timeout=SECONDS)
    found["end"] = process.returncode, 0.0, said
    return output, found


@pytest.mark.parametrize("stage", ENDS)
def test_the_others_end_when_a_process_is_killed(killed, stage):
    code, seconds, (_, stderr) = killed[1][stage]
    assert code != 0
    assert seconds < 60
    if ENDS[stage][1] == 1:
        assert "Process 1 has ended or can't be reached any more." in stderr
    assert "launch.py: process" in stderr


def test_the_same_command_ends_well(killed):
    code, _, said = killed[1]["end"]
    assert code == 0, said
    assert "damaged" not in said[0]


def test_a_run_that_was_killed_equals_one_in_one_go(killed, whole, written, assert_equal_trees):
    ours, theirs = written(killed[0]), written(whole[0])
    assert ours.metrics() == theirs.metrics()
    assert_equal_trees(ours.served(), theirs.served())


def test_another_number_of_processes_goes_on(command, killed, whole):
    output = command.folder / "one after two"
    shutil.copytree(whole[0], output)
    for name in ("retrain", "bundle"):
        shutil.rmtree(output / name)
    (output / "metrics.json").unlink()
    seconds = json.loads((output / "stages.json").read_text())
    kept = {name: value for name, value in seconds.items() if name not in ("retrain", "evaluate")}
    (output / "checksums.json").unlink()
    (output / "stages.json").write_text(json.dumps(kept))
    done = command(output=output)
    assert done.returncode == 0, done.stderr
    ours, theirs = (json.loads((p / "metrics.json").read_text()) for p in (output, whole[0]))
    for model in ("base", "search", "ihas"):
        assert ours[model]["auc"] == pytest.approx(theirs[model]["auc"], abs=1e-5)
        assert ours[model]["logloss"] == pytest.approx(theirs[model]["logloss"], abs=1e-5)


def test_a_job_prints_once(whole):
    stdout, stderr = whole[1]
    assert stdout.count("[Job] 2 processes with 2 devices work together") == 1
    assert stdout.count("[evaluate] starts") == 1
    assert stdout.count("Test split") == 1
    assert stderr == ""


def test_ctrl_c_ends_a_job(command, launched, written):
    output = command.folder / "interrupted"
    process = launched(output, "--train.max-epochs", "500", "--train.patience", "500")
    deadline = time.monotonic() + SECONDS
    while not written(output).begins("base"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for pid in (*children(process).values(), process.pid):  # as a terminal does
        os.kill(pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    # JAX may add its own words where process 1 is so late that process 0 has not waited for it
    lines = [line for line in stderr.splitlines() if "Traceback" in line or "interrupted" in line]
    assert set(lines) == {"interrupted: run the same command again to resume"}


@pytest.fixture
def launch(script):
    return script("launch")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, ["0,1", "2,3"]),
        ({"CUDA_VISIBLE_DEVICES": "3,GPU-1"}, ["3", "GPU-1"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, [None, None]),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "JAX_PLATFORMS": "cpu"}, [None, None]),
    ],
)
def test_gpus_are_dealt_out(launch, environment, expected):
    found = launch.devices_of(environment, 2)
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in found] == expected


def test_gpus_that_processes_can_not_share(launch):
    with pytest.raises(InputError, match=r"3 processes can't share 4 GPUs evenly\."):
        launch.devices_of({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 3)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--processes", "2"), r"There is no command to start; put it behind two dashes"),
        (("--processes", "2", "--", "walk.py"), r"There is no script walk\.py"),
        (("--processes", "0", "--", "run.py"), r"--processes must be 1 or more, not 0\."),
    ],
)
def test_commands_that_start_nothing(run_script, tmp_path, flags, text):
    done = run_script(tmp_path, "launch.py", *flags)
    assert done.returncode == 2
    assert re.search(text, done.stderr)


def test_a_process_that_hangs_after_another_failed_is_ended(launch):
    sleeps = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    fails = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    assert launch.await_all([sleeps, fails], grace=0.5) == 3
    assert sleeps.returncode == -signal.SIGKILL
