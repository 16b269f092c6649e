"""Importing and using the library leaves a program's logging to the program; odd encodings."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ihas_jax.progress import command_line, say, track
from ihas_jax.root_logger import root_logger_kept

ROOT = Path(__file__).parents[1]


PATH = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
ENVIRONMENT = os.environ | {"PYTHONPATH": PATH}


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=ENVIRONMENT | environment,
        capture_output=True,
        check=False,
    )


def test_a_program_configures_logging_before_or_after_the_import():
    done = python(
        "-c",
        "import logging, tempfile, pathlib, numpy as np\n"
        "import ihas_jax\n"
        "from ihas_jax.training.checkpoint import Checkpoints\n"
        "with Checkpoints(pathlib.Path(tempfile.mkdtemp())) as checkpoints:\n"
        "    checkpoints.save({'a': {'b': np.ones(2)}}, {})\n"
        "assert logging.root.handlers == [] and logging.root.level == logging.WARNING\n"
        "assert logging.getLogger('ihas_jax').handlers == []\n"
        "logging.basicConfig(level=logging.INFO, format='%(name)s says %(message)s')\n"
        "from ihas_jax.progress import say\n"
        "say('a 100% [red]')\n",
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.splitlines()[-1] == b"ihas_jax says a 100% [red]"
    done = python(
        "-c",
        "import logging\n"
        "logging.basicConfig()\n"
        "mine = list(logging.root.handlers)\n"
        "import ihas_jax\n"
        "assert logging.root.handlers == mine and len(mine) == 1\n",
    )
    assert done.returncode == 0, done.stderr.decode()


def test_a_handler_of_another_kind_stays(monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    mine = logging.NullHandler()
    with root_logger_kept():
        logging.basicConfig()
        logging.root.addHandler(mine)
    assert logging.root.handlers == [mine]


def test_a_message_is_one_line_of_characters_that_print(caplog):
    with caplog.at_level(logging.INFO, "ihas_jax"):
        say("a\nb \x1b[31m" + os.fsdecode(b"\xff"))
    assert caplog.messages == [r"a\nb \x1b[31m\xff"]


def test_no_bar_without_a_command_line(capsys):
    with track("work", 3) as bar:
        bar.advance(3)
    assert capsys.readouterr().out == ""


def test_a_command_line_says_everything_once(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(logging.root, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(logging.NullHandler, "handle", lambda _, record: seen.append(record))
    with command_line():
        say("once")
    assert capsys.readouterr().out == "once\n" and not seen


def test_a_command_line_gives_logging_back():
    logger = logging.getLogger("ihas_jax")
    before = (list(logger.handlers), logger.level, logger.propagate)
    with command_line():
        assert len(logger.handlers) == len(before[0]) + 1
    assert (list(logger.handlers), logger.level, logger.propagate) == before


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", r"0.7 +- 0.1 \u7528 \xe9 \xff"),
        ("latin-1", r"0.7 ± 0.1 \u7528 é \xff"),
        ("utf-8", r"0.7 ± 0.1 用 é \xff"),
    ],
)
def test_stdout_and_stderr_take_every_character(monkeypatch, encoding, shown):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    text = "0.7 ± 0.1 用 é " + os.fsdecode(b"\xff")
    with command_line():
        say(text)
    for stream in streams:
        print(text, file=stream, flush=True)
    said = [stream.buffer.getvalue().decode(encoding) for stream in streams]
    assert said == [f"{shown}\n{shown}\n", f"{shown}\n"]


def test_help_and_errors_in_ascii(tmp_path):
    script = ROOT / "experiments" / "describe.py"
    done = python(script, "--help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.decode("ascii")
    done = python(script, tmp_path / "用", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert rb"\u7528: no such folder" in done.stderr
    assert b"Traceback" not in done.stderr


SCRIPT = """
import sys
from pathlib import Path
from ihas_jax.errors import run_cli
from ihas_jax.progress import say, show
def main():
    for number in range(3):
        say(f"message {number}")
    print("a line " * int(sys.argv[1]))
    show("a table")
    Path(sys.argv[2]).write_text("done")
run_cli(main)
"""


@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        (">/dev/full", b"stdout can't be written (No space left on device); the work continues.\n"),
        ("| true", b"stdout can't be written (Broken pipe); the work continues.\n"),
        ("2>/dev/full", b""),
        (">&-", b""),
        (">&- 2>&-", b""),
    ],
)
def test_work_outlives_its_output(tmp_path, redirection, said):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = f"'{sys.executable}' script.py 5000 done {redirection}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=ENVIRONMENT,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1 if said else 0, said)
    assert (tmp_path / "done").read_text() == "done"


def test_a_slow_reader_is_waited_for(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command = [sys.executable, "script.py", "50000", "done"]
    with subprocess.Popen(command, stdout=writer, env=ENVIRONMENT, cwd=tmp_path) as process:
        os.close(writer)
        said = b"".join(iter(lambda: os.read(reader, 1000), b""))
        os.close(reader)
    assert process.returncode == 0
    assert said == b"message 0\nmessage 1\nmessage 2\n" + b"a line " * 50000 + b"\na table\n"
