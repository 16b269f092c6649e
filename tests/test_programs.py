"""Compiled programs are kept in a folder, found again, and never trusted blindly."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import compilation_cache

from ihas_jax import programs
from ihas_jax.errors import InputError
from ihas_jax.programs import Programs, compiling, kept_programs

USE = """
import sys, jax, jax.numpy as jnp
from ihas_jax.programs import compiling, kept_programs
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
with kept_programs():
    value = jax.jit(lambda x: jnp.tanh(x @ x.T).sum())(jnp.linspace(0, 1, 12).reshape(3, 4))
hits = sum(name.endswith("/cache_hits") for name in events)
misses = sum(name.endswith("/cache_misses") for name in events)
print(value.tobytes().hex() if hasattr(value, "tobytes") else value, hits, misses)
"""


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """JAX keeps no programs before a test, and those of all tests after it."""
    kept, before = compilation_cache._cache, jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    monkeypatch.delenv(programs.FOLDER)
    yield
    assert jax.config.jax_compilation_cache_dir is None
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache._cache, compilation_cache._cache_initialized = kept, True


def files(folder):
    return sorted(folder.glob("*/*.program"))


def compute(number):
    """Compiles a program of its own for each number."""
    return jax.jit(lambda x: jnp.sin(x) * number)(jnp.arange(4.0))


def use(folder):
    """The result of a program in a new process, and how often it was found and was not."""
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", USE],
        env=os.environ | {programs.FOLDER: str(folder)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    value, hits, misses = found.stdout.split()
    return value, int(hits), int(misses)


def test_another_process_compiles_nothing_and_computes_the_same(tmp_path):
    first, hits, misses = use(tmp_path)
    assert hits == 0 and misses > 0
    again, hits, misses_now = use(tmp_path)
    assert (again, hits, misses_now) == (first, misses, 0)


def test_a_damaged_program_is_compiled_anew(tmp_path):
    first, _, misses = use(tmp_path)
    for damage in (lambda content: content[: len(content) // 2], lambda content: b""):
        for path in files(tmp_path):
            path.write_bytes(damage(path.read_bytes()))
        assert use(tmp_path) == (first, 0, misses)
    path = files(tmp_path)[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert use(tmp_path) == (first, misses - 1, 1)
    assert use(tmp_path) == (first, misses, 0)


def test_programs_of_another_processor_are_not_used(tmp_path, monkeypatch):
    with kept_programs(str(tmp_path)):
        compute(1)
    own = {path.parent for path in files(tmp_path)}
    read = programs.Path.read_text

    def other(path, *arguments, **options):
        text = read(path, *arguments, **options)
        return text.replace("sse", "xyz").replace("model name", "model name\t: odd\nmodel name")

    monkeypatch.setattr(programs.Path, "read_text", other)
    with kept_programs(str(tmp_path)):
        compute(2)
    assert len({path.parent for path in files(tmp_path)} - own) == 1


def test_nothing_is_left_of_the_block(tmp_path):
    names = ("jax_compilation_cache_dir", *programs._OPTIONS)
    before = {name: getattr(jax.config, name) for name in names}
    with pytest.raises(ZeroDivisionError), kept_programs(str(tmp_path)):
        compute(3)
        raise ZeroDivisionError
    assert {name: getattr(jax.config, name) for name in names} == before
    kept = files(tmp_path)
    assert kept
    compute(4)
    assert files(tmp_path) == kept


def test_the_folder_of_an_outer_block_counts(tmp_path):
    with kept_programs(str(tmp_path / "outer")):
        with kept_programs(str(tmp_path / "inner")):
            compute(5)
        compute(6)
    assert not (tmp_path / "inner").exists()
    assert len(files(tmp_path / "outer")) >= 2


def test_a_folder_of_jax_itself_counts(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    try:
        with kept_programs(str(tmp_path / "ours")):
            assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("way", ["variable", "argument"])
def test_off_keeps_nothing(tmp_path, monkeypatch, way):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if way == "variable":
        monkeypatch.setenv(programs.FOLDER, "off")
    with kept_programs("auto" if way == "variable" else "off"):
        compute(7)
    assert not [*tmp_path.iterdir()]


def test_by_default_programs_are_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with kept_programs():
        compute(8)
    assert files(tmp_path / "ihas_jax" / "programs")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with kept_programs():
        compute(9)
    cache = "Library/Caches" if sys.platform == "darwin" else ".cache"
    (folder,) = (tmp_path / "home" / cache / "ihas_jax" / "programs").iterdir()
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("way", ["variable", "argument"])
def test_a_named_folder_that_can_not_be_made_is_an_error(tmp_path, monkeypatch, way):
    (tmp_path / "file").touch()
    place = str(tmp_path / "file" / "programs")
    monkeypatch.setenv(programs.FOLDER, place)
    with (
        pytest.raises(InputError, match=r"kept in .*: Not a directory.* by --train.programs"),
        kept_programs("auto" if way == "variable" else place),
    ):
        pass


def test_a_cache_that_can_not_be_had_costs_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with kept_programs():
        assert np.allclose(compute(10), 10 * np.sin(np.arange(4)))
    (record,) = caplog.records
    assert "can't be kept in" in record.message and "or off, in the variable" in record.message


def test_a_full_disk_costs_one_warning(tmp_path, monkeypatch, caplog):
    def full(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(programs, "NamedTemporaryFile", full)
    with kept_programs(str(tmp_path)):
        compute(11)
        compute(12)
    (record,) = caplog.records
    assert "No space left on device" in record.message
    assert not files(tmp_path)


def test_a_write_that_fails_leaves_no_part(tmp_path, monkeypatch):
    kept = Programs(tmp_path)
    (tmp_path / "name.program").mkdir()  # in the way of the file
    kept.put("name", b"value")
    assert [path.name for path in tmp_path.iterdir()] == ["name.program"]
    assert kept.get("name") is None


def test_a_read_only_folder_is_read(tmp_path, monkeypatch):
    kept = Programs(tmp_path)
    kept.put("key", b"value")

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "utime", refuse)
    assert kept.get("key") == b"value"


def test_a_folder_that_others_may_write_is_refused(tmp_path):
    with kept_programs(str(tmp_path)):
        compute(15)
    (folder,) = tmp_path.iterdir()
    folder.chmod(0o777)
    with pytest.raises(InputError, match="another user may write"), kept_programs(str(tmp_path)):
        pass


def test_programs_for_other_numbers_of_threads_are_apart(tmp_path, monkeypatch):
    for threads in ("1", "2", "1"):
        monkeypatch.setenv("PJRT_NPROC", threads)
        with kept_programs(str(tmp_path)):
            compute(16)
    assert len([*tmp_path.iterdir()]) == 2


def test_another_path_to_the_folder_finds_the_same_programs(tmp_path):
    first, _, misses = use(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "other")
    assert use(tmp_path / "other") == (first, misses, 0)


def test_readers_see_whole_programs_while_writers_write(tmp_path):
    value = os.urandom(200_000)

    def work(number):
        kept = Programs(tmp_path)
        for _ in range(50):
            if number % 2:
                kept.put("key", value)
            assert kept.get("key") in (None, value)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work, n) for n in range(4)]:
            done.result()
    assert Programs(tmp_path).get("key") == value
    assert len([*tmp_path.iterdir()]) == 1


def test_what_was_not_used_for_the_longest_time_goes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "_LARGEST", 10_000)
    kept, now = Programs(tmp_path / "jaxlib-9"), time.time()
    for number in range(12):
        kept.put(f"p{number}", bytes(1000 - programs._DIGEST))
        os.utime(tmp_path / "jaxlib-9" / f"p{number}.program", (now, now - 100 + number))
    assert kept.get("p0") is not None  # used just now
    old, new = (tmp_path / "jaxlib-9" / f"{name}{programs._PART}" for name in ("old", "new"))
    theirs = tmp_path / "clicks" / f"part-1{programs._PART}"
    theirs.parent.mkdir()
    for part in (old, new, theirs):
        part.touch()
        os.utime(part, (now, now if part == new else now - 1e6))
    with kept_programs(str(tmp_path)):
        pass
    left = {path.stem for path in files(tmp_path)}
    assert left == {"p0", *(f"p{n}" for n in range(4, 12))}
    assert new.exists() and theirs.exists() and not old.exists()


def test_compiling_is_timed():
    with compiling() as clock:
        compute(13)
    seconds = clock.seconds
    assert seconds > 0
    compute(14)
    assert clock.seconds == seconds
