"""Calls in other processes: places, messages, errors, what is copied, and how processes end."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.data.checks import is_mapped
from ihas_jax.data.open import open_store
from ihas_jax.errors import InputError
from ihas_jax.pipeline.walk import Walk
from ihas_jax.pipeline.workers import together, usual_workers
from ihas_jax.programs import kept_in
from ihas_jax.progress import say, warn


@pytest.mark.parametrize(
    ("cores", "gigabytes", "backend", "workers"),
    [
        (1, 1, "cpu", 1),
        (3, 1, "cpu", 3),
        (16, 1, "cpu", 4),
        (16, 3, "cpu", 2),
        (16, 100, "cpu", 1),
        (16, 1, "gpu", 1),
    ],
)
def test_the_usual_workers_have_a_core_and_memory_each(
    monkeypatch, cores, gigabytes, backend, workers
):
    """A machine of 16 GB, half of which is left to others."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 16_000_000}.get)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert usual_workers(1e9 * gigabytes) == workers


def results(calls, workers=2, kept=(), modules=()):
    with together(calls, workers, kept, modules) as finished:
        return dict(finished)


def first(*values):
    return values[0]


def test_results_have_the_places_of_their_calls():
    """The first call ends last."""
    calls = [("a", time.sleep, (0.5,)), *((f"{i}", abs, (-i,)) for i in range(1, 5))]
    with together(calls, 2) as finished:
        found = list(finished)
    assert dict(found) == {0: None, 1: 1, 2: 2, 3: 3, 4: 4}
    assert [place for place, _ in found][-1] == 0


def test_processes_are_as_many_as_were_asked_for():
    found = results([(str(i), os.getpid, ()) for i in range(6)])
    assert os.getpid() not in found.values() and len(set(found.values())) <= 2


THREADS = """[
    path.read_text().strip()
    for module in [__import__("jax").jit(lambda x: x + 1)(1.0) and __import__("pathlib")]
    for path in module.Path("/proc/self/task").glob("*/comm")
]"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads have names on Linux alone")
def test_a_process_has_one_thread_of_xla_and_is_bound_to_no_core():
    """Tests have a core to themselves otherwise, and so one thread anyhow."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count()))
    try:
        calls = [(str(i), eval, (THREADS,)) for i in range(2)]
        found = results([*calls, ("cores", os.sched_getaffinity, (0,))])
        everywhere = os.sched_getaffinity(0)
    finally:
        os.sched_setaffinity(0, own)
    assert [found[i].count("tf_XLAEigen") for i in range(2)] == [1, 1]
    assert found[2] == everywhere


@pytest.mark.parametrize("own", [None, "true"])
def test_a_process_takes_of_an_accelerator_what_it_needs_or_what_the_user_says(monkeypatch, own):
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    monkeypatch.delenv(name, raising=False)
    if own:
        monkeypatch.setenv(name, own)
    assert results([("memory", os.getenv, (name,))]) == {0: own or "false"}


def test_messages_of_other_processes_are_logged_here(caplog):
    with caplog.at_level("INFO", "ihas_jax"):
        results([("one", say, ("half of it",)), ("two", warn, ("careful",))])
    said = sorted((record.levelname, record.getMessage()) for record in caplog.records)
    assert said == [("INFO", "one: half of it"), ("WARNING", "two: careful")]


def test_errors_arrive_as_they_were_raised(tmp_path):
    with pytest.raises(InputError, match="nothing"):
        results([("store", open_store, (tmp_path / "nothing",))])
    with pytest.raises(ZeroDivisionError) as caught:
        results([("division", divmod, (1, 0))])
    assert "In another process" in caught.value.__notes__[0]


def test_errors_of_files_and_pipes_are_those_of_the_call():
    """A process that answers with one has not ended."""
    for error, call in ((EOFError, (pickle.loads, (b"",))), (BrokenPipeError, (broken, ()))):
        with pytest.raises(error) as caught:
            results([("call", *call)], modules=(__file__,))
        assert "In another process" in caught.value.__notes__[0]


def broken():
    raise BrokenPipeError


def test_an_error_that_can_not_be_copied_keeps_its_words():
    code = """
class Own(Exception):
    def __init__(self, *, words): super().__init__(words)
raise Own(words="no more")
"""
    with pytest.raises(RuntimeError, match="Own: no more") as caught:
        results([("own", exec, (code, {}))])
    assert "In another process" in caught.value.__notes__[0]


def test_what_can_not_be_read_is_an_error(tmp_path):
    """The objects that are kept are more than a pipe holds."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        results([("a", abs, (1,))], kept=(bytes(1 << 20),), modules=("no_such_module",))
    np.save(tmp_path / "rows.npy", np.arange(12))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    (tmp_path / "rows.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"rows\.npy"):
        results([("copy", np.asarray, (mapped,))])
    with pytest.raises(FileNotFoundError, match=r"rows\.npy"):
        results([("a", abs, (1,))], kept=(mapped,))


def test_modules_are_imported_first(tmp_path):
    (tmp_path / "own.py").write_text("import sys\n\nsys.own = 3\n")
    found = results(
        [("own", eval, ("__import__('sys').own",))], modules=(str(tmp_path / "own.py"),)
    )
    assert found == {0: 3}


def test_jax_is_configured_as_here():
    name = "jax_default_matmul_precision"
    before = getattr(jax.config, name)
    assert before != "highest"
    try:
        jax.config.update(name, "highest")
        assert results([("jax", eval, (f"__import__('jax').config.{name}",))]) == {0: "highest"}
    finally:
        jax.config.update(name, before)


def test_files_of_the_working_directory_are_no_modules(tmp_path, monkeypatch):
    for name in ("queue", "pickle", "jax"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('a file of the user')")
    monkeypatch.chdir(tmp_path)
    assert results([("a", abs, (-1,))]) == {0: 1}


def test_a_result_that_can_not_be_copied_is_an_error():
    with pytest.raises(TypeError, match="pickle"):
        results([("stream", open, (os.devnull,))])


def test_a_process_that_ends_by_itself_names_call_and_remedy():
    with pytest.raises(InputError, match=r"works at dnn has ended .*code 3.* --workers 1"):
        results([("dnn", os._exit, (3,)), ("other", time.sleep, (30,))])


def test_mapped_arrays_are_opened_anew_and_others_copied(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(12, dtype=np.int32).reshape(6, 2))
    mapped = np.asarray(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    strided = mapped[:, ::2]
    for array in (mapped, mapped[2:][1:], mapped[6:], strided, np.arange(3.0)):
        (found,) = results([("copy", np.asarray, (array,))]).values()
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
    part = mapped[3:]
    (found,) = results([("copy", np.asarray, (part,))]).values()
    base = found.base
    assert isinstance(base, np.memmap) and Path(base.filename) == tmp_path / "rows.npy"
    np.testing.assert_array_equal(found, [[6, 7], [8, 9], [10, 11]])


def test_maps_that_differ_from_their_files_are_copied(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(6))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    changed = np.load(tmp_path / "rows.npy", mmap_mode="c")
    changed[2] = 20
    for array in (mapped.copy(), mapped.astype(np.int32), np.asarray(mapped.copy())[1:], changed):
        (found,) = results([("copy", np.asarray, (array,))]).values()
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype
    assert is_mapped(mapped[1:]) and not is_mapped(mapped.copy())


def test_kept_objects_are_not_copied_back():
    data, other = {"rows": np.arange(4)}, {"rows": np.arange(4)}
    found = results([("kept", dict, ([("a", data), ("b", other)],))], kept=(data,))[0]
    assert found["a"] is data and found["b"] is not other
    np.testing.assert_array_equal(found["b"]["rows"], other["rows"])


def test_arrays_of_jax_keep_their_values_and_donated_ones_are_none():
    whole, spent = jnp.arange(3.0), jnp.ones(3)
    jax.jit(lambda x: x + 1, donate_argnums=0)(spent)
    found = results([("arrays", dict, ([("whole", whole), ("spent", spent)],))])[0]
    assert found["spent"] is None
    np.testing.assert_array_equal(found["whole"], whole)


def test_the_processes_end_with_the_block():
    with together([("pid", os.getpid, ()), ("long", time.sleep, (60,))], 2) as finished:
        place, pid = next(finished)
        assert place == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_processes_end_with_a_parent_that_is_killed(tmp_path):
    code = """
import os, time
from ihas_jax.pipeline.workers import together, usual_workers
with together([("pid", os.getpid, ()), ("long", time.sleep, (60,))], 2) as finished:
    print(next(finished)[1], flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    end = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists():
        state = Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if state == "Z":
            break
        assert time.monotonic() < end, "a process outlives its parent"
        time.sleep(0.1)


def test_workers_leave_an_interrupt_to_their_parent():
    with together([("pid", os.getpid, ()), ("long", time.sleep, (1,))], 1) as finished:
        _, pid = next(finished)
        os.kill(pid, signal.SIGINT)
        assert next(finished) == (1, None)


def test_workers_ignore_interrupts_before_they_import_what_takes_long(monkeypatch):
    processes, start = [], subprocess.Popen

    def popen(*arguments, **named):
        processes.append(start(*arguments, **named))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    end = time.monotonic() + 30
    with together([("a", abs, (-1,))], 1) as finished:
        while True:
            assert time.monotonic() < end, "a process does not ignore interrupts"
            status = Path(f"/proc/{processes[0].pid}/status").read_text()
            ignored = int(re.search(r"SigIgn:\s*(\w+)", status)[1], 16)
            if ignored >> (signal.SIGINT - 1) & 1:
                break
        assert "jaxlib" not in Path(f"/proc/{processes[0].pid}/maps").read_text()
        assert list(finished) == [(0, 1)]


def test_steps_beside_each_other_are_counted_and_named(caplog):
    events = []
    walk = Walk("Work", 4, lambda kind, facts: events.append(facts["step"]), workers=2)
    with caplog.at_level("INFO", "ihas_jax"):
        assert walk.each([("a", abs, (-1,)), ("b", abs, (-2,)), ("c", abs, (-3,))]) == [1, 2, 3]
        assert walk.each([("d", first, (4,))]) == [4]  # a single call needs no process
    said = [record.getMessage().split(", about")[0] for record in caplog.records]
    assert said[0] == "[Work] steps 1 to 3 of 4, 2 at a time"
    assert sorted(events) == list("abcd")
    assert [line.rsplit(" ", 1)[0] for line in said[1:4]] == [
        f"[Work] {done} of 4 steps are done, the last one is" for done in (1, 2, 3)
    ]
    assert said[4] == "[Work] step 4 of 4: d"


def compiled():
    """Where a process keeps programs, once it has compiled one."""

    def seventeen_times(x):
        return 17 * x

    jax.jit(seventeen_times)(jnp.arange(3.0))
    return kept_in()


def test_programs_are_kept_where_the_parent_keeps_its_own():
    """The same program is found by the next process."""
    before = kept_in()
    assert before != "off"
    assert results([("program", compiled, ())]) == {0: before}
    own = "*/jit_seventeen_times-*.program"  # other tests keep theirs meanwhile
    programs = sorted(Path(before).glob(own))
    assert programs
    assert results([("program", compiled, ())]) == {0: before}
    assert sorted(Path(before).glob(own)) == programs
