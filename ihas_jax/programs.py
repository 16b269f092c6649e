"""Compiled programs that later runs use again, in a folder of the user's cache.

JAX finds a program by what it computes, how it is compiled, and its own version. This module says
where programs are, lets any number of processes write and read them at the same time, takes
nothing that is damaged or made for another processor, and bounds the folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import jax
from jax._src import compilation_cache  # JAX has no public way to another cache than its own
from jax._src.compilation_cache_interface import CacheInterface

from ihas_jax.errors import InputError
from ihas_jax.progress import warn

FOLDER = "IHAS_JAX_PROGRAMS"
"""The variable that names the folder of programs, or says 'off'."""
_OPTIONS = {  # JAX leaves quick and small programs out by default, of which a run has many
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    "jax_persistent_cache_enable_xla_caches": "none",  # others would tie programs to a path
}
_COMPILED = "/jax/core/compile/backend_compile_duration"
_LARGEST = 2e9
"""Bytes of the folder above which the programs that were not used for the longest time go."""
_LEFT = 86_400.0
"""Seconds after which a part of a file was left by a process that was killed."""
_DIGEST = hashlib.sha256().digest_size
_NAME, _PROGRAM, _PART = "jaxlib-", ".program", ".program-part"


@contextmanager
def kept_programs(place: str = "auto") -> Iterator[None]:
    """Keeps the programs that are compiled while the block runs, and uses those that are kept.

    Nothing changes in a block within another one, or where JAX keeps programs by itself
    (`JAX_COMPILATION_CACHE_DIR`).

    Args:
      place: a folder, or 'off', or 'auto' for the variable `IHAS_JAX_PROGRAMS`, and where it is
        not set for `ihas_jax/programs` in the user's cache folder.

    Raises:
      InputError: the folder that was named can't be made.
    """
    named = os.environ.get(FOLDER, "") if place == "auto" else place
    if named == "off" or _option("jax_compilation_cache_dir") is not None:
        yield
        return
    programs = _opened(named)
    if programs is None:
        yield
        return
    before = {name: _option(name) for name in _OPTIONS}
    compilation_cache.reset_cache()
    for name, value in {**_OPTIONS, "jax_compilation_cache_dir": str(programs.folder)}.items():
        jax.config.update(name, value)
    compilation_cache._cache, compilation_cache._cache_initialized = programs, True
    try:
        yield
    finally:
        for name, value in {**before, "jax_compilation_cache_dir": None}.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def _opened(named: str) -> Programs | None:
    """The folder of programs; None, with a warning, where the usual one can't be had."""
    try:
        root = Path(named).expanduser() if named else _usual()
        programs = Programs(root / _machine())
        _sweep(root)
        return programs
    except (OSError, RuntimeError) as error:
        where = named or getattr(error, "filename", None) or "the cache folder"
        problem = (
            f"Compiled programs can't be kept in {where}: "
            f"{getattr(error, 'strerror', None) or error}. Name another folder, or off, in the "
            f"variable {FOLDER} or by --train.programs."
        )
        if named:
            raise InputError(problem) from None
        _warn_once(problem)
        return None


_warn_once = cache(warn)


def kept_in() -> str:
    """Where programs are kept now, for `kept_programs` in another process."""
    kept = compilation_cache._cache
    return str(kept.folder.parent) if isinstance(kept, Programs) else "off"


@dataclass
class Compiling:
    """How long programs were compiled, or read from the folder.

    Attributes:
      seconds: the time so far.
    """

    seconds: float = 0.0

    def _add(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _COMPILED:
            self.seconds += duration_secs


@contextmanager
def compiling() -> Iterator[Compiling]:
    """Measures how long programs are compiled while the block runs."""
    found = Compiling()
    jax.monitoring.register_event_duration_secs_listener(found._add)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(found._add)


class Programs(CacheInterface):
    """Files of programs, which JAX reads and writes: a digest, and then what JAX wrote.

    The time of a file is that of its last use.

    Attributes:
      folder: where the files are.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the folder, which only its owner may enter: a program runs with the user's rights.

        Raises:
          OSError: it can't be made, or others may write there.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        about = folder.stat()
        if about.st_uid != os.getuid() or about.st_mode & 0o022:
            raise OSError(errno.EPERM, "another user may write programs there", str(folder))
        self.folder = self._path = folder
        self._writes = True

    def get(self, key: str) -> bytes | None:
        """What was put there; None for nothing, or for a file that is damaged."""
        path = self._file(key)
        try:
            content = path.read_bytes()
            digest, value = content[:_DIGEST], content[_DIGEST:]
            if hashlib.sha256(value).digest() == digest:
                with suppress(OSError):  # the folder may be read-only
                    os.utime(path)
                return value
            path.unlink()
        except OSError:  # there is none, another process removed it, or it can't be read
            pass
        return None

    def put(self, key: str, value: bytes) -> None:
        """Writes a file, all or nothing; where that fails, a warning says so once."""
        if not self._writes:
            return
        try:
            with ExitStack() as failing:
                with NamedTemporaryFile(suffix=_PART, dir=self.folder, delete=False) as part:
                    failing.callback(Path(part.name).unlink)
                    part.write(hashlib.sha256(value).digest() + value)
                Path(part.name).replace(self._file(key))
                failing.pop_all()
        except OSError as error:
            self._writes = False
            warn(
                f"Compiled programs can't be kept in {self.folder}: {error.strerror}. The next run "
                f"compiles them again. Free some space, or name another folder in {FOLDER}."
            )

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}{_PROGRAM}"


def _option(name: str) -> Any:
    """The value of an option of JAX."""
    return getattr(jax.config, name)


def _usual() -> Path:
    """The folder of programs in the cache folder of the user."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "ihas_jax" / "programs"
    caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path.home() / caches / "ihas_jax" / "programs"


def _machine() -> str:
    """A name of the version of JAX's compiler, of the processor and of the threads it is for."""
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    threads = os.environ.get("PJRT_NPROC") or str(len(affinity) or os.cpu_count())
    facts = [platform.machine(), platform.processor(), threads]
    with suppress(OSError):
        names = ("model name", "flags", "CPU part", "Features")
        first, *_ = Path("/proc/cpuinfo").read_text().split("\n\n")
        facts += [line for line in first.splitlines() if line.startswith(names)]
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    return f"{_NAME}{version('jaxlib')}-{digest[:12]}"


def _sweep(root: Path) -> None:
    """Removes programs that were not used for the longest time, down to nine tenths of the bound.

    Raises:
      OSError: the folder can't be read.
    """
    found, now = [], time.time()
    for path in root.glob(f"{_NAME}*/*"):
        with suppress(OSError):  # another process has removed it, or it is another user's
            about = path.stat()
            if path.suffix == _PART and now - about.st_mtime > _LEFT:
                path.unlink()
            elif path.suffix == _PROGRAM:
                found.append((about.st_mtime, about.st_size, path))
    total = sum(size for _, size, _ in found)
    if total <= _LARGEST:
        return
    for _, size, path in sorted(found):
        if total <= 0.9 * _LARGEST:
            break
        with suppress(OSError):
            path.unlink(missing_ok=True)
        total -= size
