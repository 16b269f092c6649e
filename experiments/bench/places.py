"""Where work of a measurement runs: CPU devices of one process, or several processes of a job."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import jax
from launch import free_port

from ihas_jax.job import Job
from ihas_jax.joining import joined

Found = TypeVar("Found")


def on_devices(number: int, work: Callable[..., Found], *arguments: Any) -> Found:
    """What a function of a module returns in a new process that has as many CPU devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={number}"
    try:
        with _processes(1) as pool:
            return pool.submit(_alone, work, *arguments).result()
    finally:
        os.environ["XLA_FLAGS"] = flags


def in_processes(number: int, work: Callable[..., Found], *arguments: Any) -> Found:
    """What a function of a module returns in the first process of a job with a CPU device each."""
    address = f"127.0.0.1:{free_port()}"
    jobs = [Job(coordinator=address, process_id=i, process_count=number) for i in range(number)]
    with _processes(number) as pool:
        found = [pool.submit(_together, job, work, *arguments) for job in jobs]
        first, *_ = [each.result() for each in found]
        return first


def _processes(number: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn"))


def _alone(work: Callable[..., Found], *arguments: Any) -> Found:
    jax.config.update("jax_platforms", "cpu")
    return work(*arguments)


def _together(job: Job, work: Callable[..., Found], *arguments: Any) -> Found:
    jax.config.update("jax_platforms", "cpu")  # before the job looks for devices
    with joined(job):
        return work(*arguments)
