"""How processes join a job, and how one that fails ends the others."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time

import jax
import pytest

from ihas_jax.errors import InputError
from ihas_jax.job import Job
from ihas_jax.joining import joined

# the exit codes of both processes, and what process 0 says
FAILURES = {
    "input_0": ([2, 2], r"error: The first process can't go on\."),
    "input_1": ([2, 2], r"error: process 1: Only this process can't go on\."),
    "crash_1": ([1, 1], r"error: process 1: ZeroDivisionError: one over zero"),
    "agreed": ([1, 1], r"FileNotFoundError: .*nothing'"),
    "dies_1": ([2, 9], r"error: Process 1 has ended or can't be reached .* to resume\."),
    "config": ([2, 2], r"error: Process 1 has other choices .* than process 0: seed: 0 -> 1\."),
    "data": ([2, 2], r"error: Process 1 has other .*: 3500 rows.* in process 0, 3600 rows.* there"),
    "folder": ([2, 2], r"error: Process 1 does not see what process 0 wrote into .*run_0\."),
    "taken": ([2, 2], r"error: .*run exists and is not a run"),
    "versions": ([2, 2], r"error: Process 1 has other packages or devices .*: optax 9, not 0"),
    "stage": ([2, 2], r"error: Process 1 has another --stage .*: base and None, not all and None"),
}


@pytest.mark.parametrize("way", FAILURES)
def test_an_error_in_one_process_ends_all_with_that_error(job, tmp_path, way):
    start = time.monotonic()
    codes, said = job(tmp_path, f"fail-{way}").end()
    assert time.monotonic() - start < 60
    wanted, text = FAILURES[way]
    assert codes == wanted, said
    assert re.search(text, said[0]), said[0]
    assert said[0].count("error: ") == (way != "agreed")
    assert ("Traceback" in said[1]) == (way == "crash_1")


def test_a_process_that_gives_no_sign_ends_the_others(job, tmp_path):
    begun = job(tmp_path, "fail-stops_1")
    first, second = begun.processes
    said = first.communicate(timeout=60)[0]
    assert first.returncode == 2
    assert "error: Process 1 has ended or can't be reached any more." in said
    second.kill()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"coordinator": "a:1"}, "--coordinator, --process-id and --process-count are needed"),
        ({"process_id": 0, "process_count": 2}, "are needed together"),
        ({"coordinator": "a", "process_id": 0, "process_count": 2}, "a is not HOST:PORT"),
        ({"coordinator": "a:x", "process_id": 0, "process_count": 2}, "a:x is not HOST:PORT"),
        ({"coordinator": "a:70000", "process_id": 0, "process_count": 2}, "is not HOST:PORT"),
        ({"coordinator": "a:1", "process_id": 2, "process_count": 2}, "--process-id 2 of"),
        ({"coordinator": "a:1", "process_id": -1, "process_count": 2}, "--process-id -1 of"),
        ({"coordinator": "a:1", "process_id": 0, "process_count": 0}, "count from 0"),
        ({"processes": "auto", "process_id": 0}, "--processes auto finds the processes by itself"),
    ],
)
def test_flags_that_name_no_job(flags, text):
    with pytest.raises(InputError, match=re.escape(text)):
        Job(**flags)


def test_a_job_of_one_process_needs_no_other():
    assert Job().alone
    assert Job(coordinator="a:1", process_id=0, process_count=1).alone
    assert not Job(processes="auto").alone


def test_a_job_is_joined_before_anything_is_computed():
    assert jax.devices()
    with (
        pytest.raises(InputError, match="once, before JAX computes anything"),
        joined(Job(coordinator="127.0.0.1:1", process_id=1, process_count=2)),
    ):
        pass


def test_auto_needs_a_job(monkeypatch):
    # nothing is computed before: the message is that of a machine without a job
    def initialize(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(InputError, match=r"--processes auto finds no job"), joined(Job("auto")):
        pass


def test_processes_find_each_other_under_slurm_and_part_together(job, tmp_path):
    def variables(number):
        return {
            "SLURM_JOB_ID": str(os.getpid()),  # from which JAX makes a port
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": "2",
            "SLURM_PROCID": str(number),
            "SLURM_LOCALID": str(number),
            "SLURM_STEP_NUM_NODES": "1",
        }

    found, said = job(tmp_path, "agreement", variables=variables).found_and_said()
    assert [one["every"] for one in found] == [[0, 10], [0, 10]]
    assert "2 processes with 2 devices" in said[0]
    # process 0 waited for the other one, and then worked alone
    assert [one["late"] for one in found] == [0, 1]
    assert found[0]["after"]["streamed"]
    assert found[0]["after"]["batches"] == 8


def test_processes_that_do_not_meet_say_so():
    script = """
import sys
from ihas_jax import job, joining
from ihas_jax.errors import run_cli
job._QUIET_SECONDS, job._START_SECONDS = 1, 3
def main():
    with joining.joined(job.Job(coordinator=sys.argv[1], process_id=1, process_count=2)):
        pass
run_cli(main)
"""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, "-c", script, address], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert f"[Job] waits for the other processes at {address}, for 3 s" in done.stdout
    assert f"error: The processes of the job did not meet at {address} within 3 s." in done.stderr


def test_a_port_that_is_taken_and_a_host_that_is_unknown():
    with socket.create_server(("", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = (
            f"Process 0 can't listen on port .* of --coordinator {address}: Address already in use"
        )
        with (
            pytest.raises(InputError, match=text),
            joined(Job(coordinator=address, process_id=0, process_count=2)),
        ):
            pass
    with (
        pytest.raises(InputError, match=r"--coordinator nosuchhost\.invalid:1234: "),
        joined(Job(coordinator="nosuchhost.invalid:1234", process_id=1, process_count=2)),
    ):
        pass
