"""Tries kills, full disks, read-only folders, damaged bytes and random logs on tiny runs."""

from __future__ import annotations

if __name__ == "__main__":
    from ihas_jax.interrupts import catch_interrupts

    catch_interrupts()  # importing what follows takes seconds

import contextlib
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from bench.damage import any_file, look
from bench.disks import mount, starve, tmpfs
from bench.fuzzing import FUZZES, Verdict
from bench.trials import Lab, Tally, finish, one_paragraph, stage_of
from common import machine, markdown_table, write_results

from ihas_jax.errors import InputError, run_cli
from ihas_jax.files import read_json
from ihas_jax.pipeline.parts import require_parts
from ihas_jax.progress import console, say, track
from ihas_jax.reporting.tables import Grid
from ihas_jax.selectors import METHODS

_STAGES = ("base", "search", "choose", "retrain", "evaluate")
_CHAIN = 4
"""The number of kills of one run before it may end."""
_HEADINGS = ("trial", "wanted", "trials", "went wrong", "what came of them")
_TEXTS = (0, 1, 4)


@dataclass(frozen=True)
class Job:
    """The flags of every kind of trial."""

    folder: Path | None = None
    """The folder of the tiny runs; a temporary folder by default."""
    seed: int = 0
    """The seed of random moments, sizes and bytes."""
    results: Path = Path("runs/robustness")
    """The path of the results, without their endings .md and .json."""


@dataclass(frozen=True)
class Kill(Job):
    """Ends runs of all methods by kill -9, some at the rename of a checkpoint."""

    trials: int = 100
    """The number of kills, at random moments."""
    renames: int = 3
    """The number of kills just before or just after the rename of a checkpoint, by turns."""
    methods: tuple[str, ...] = ("none", *METHODS)
    """The methods, which take turns."""

    def tallies(self, lab: Lab, rng: random.Random) -> Iterator[list[Tally]]:
        """Every run is killed a few times and must end bit-equal to one that was not."""
        wanted = "ends bit-equal to the uninterrupted run"
        moments = Tally("kill -9 at a random moment", wanted)
        renames = Tally("kill -9 in a checkpoint's rename", wanted)
        plans = [None] * (self.trials - self.renames)
        chains = [plans[i : i + _CHAIN] for i in range(0, len(plans), _CHAIN)]
        for number, chain in enumerate(chains):
            method = self.methods[number % len(self.methods)]
            _kill_and_finish(lab, method, len(chain), moments, rng)
            yield [moments, renames]
        for number in range(self.renames):
            method = self.methods[number % len(self.methods)]
            side = ("before", "after")[number % 2]
            output = lab.folder / "killed"
            shutil.rmtree(output, ignore_errors=True)
            process = lab.start(method, output, rename=(rng.randint(1, 6), side))
            process.communicate()
            stopped = process.returncode == -signal.SIGKILL
            fault = finish(lab, method, output) if stopped else "the process was not killed"
            renames.count(f"{side} it", fault)
            yield [moments, renames]


def _kill_and_finish(lab: Lab, method: str, kills: int, tally: Tally, rng: random.Random) -> None:
    seconds = lab.reference(method)[1]
    output = lab.folder / "killed"
    shutil.rmtree(output, ignore_errors=True)
    places: list[str] = []
    while len(places) < kills:
        process = lab.start(method, output)
        try:
            stdout, _ = process.communicate(timeout=rng.uniform(0.3, seconds))
            if process.returncode == 0 and (fault := finish(lab, method, output)):
                tally.count(f"{method}, finished before the signal", fault)
            shutil.rmtree(output, ignore_errors=True)  # too late for a kill
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, _ = process.communicate()
            places.append(stage_of(stdout))
    fault = finish(lab, method, output)
    for place in places:
        tally.count(place, fault and f"{method}: {fault}")
    say(f"[kill] {method}: {', '.join(places)}: {fault or 'bit-equal'}")


@dataclass(frozen=True)
class Full(Job):
    """Fills the disk (a small tmpfs) while a run is in each of its stages."""

    trials: int = 24
    """The number of disk sizes to try, from nearly none to the size of the run."""
    stages: tuple[str, ...] = _STAGES
    """The stages that begin on a disk without any space."""

    def tallies(self, lab: Lab, rng: random.Random) -> Iterator[list[Tally]]:
        """A run ends with one paragraph, and with more space ends bit-equal."""
        wanted = "one paragraph, resumes, ends bit-equal"
        tally, starved = Tally("disk full", wanted), Tally("disk full before a stage", wanted)
        disk = lab.folder / "disk"
        with tmpfs(disk, "size=32m") as refused:
            wanted_stages = [n for n, stage in enumerate(_STAGES, 1) if stage in self.stages]
            for stage in () if refused else _STAGES[: max(wanted_stages, default=0)]:
                if stage in self.stages:
                    fault = starve(lab, disk, stage)
                    starved.count(stage, fault)
                    say(f"[full] {stage}: {fault or 'one paragraph'}")
                    yield [starved, tally]
                lab.run("ihas", disk / "run", "--stage", stage)
            if self.stages and not refused:
                starved.count("the whole run", finish(lab, "ihas", disk / "run"))
        size = sum(path.stat().st_blocks for path in lab.reference("ihas")[0].rglob("*")) // 2
        for trial in range(self.trials):
            kilobytes = max(8, round(size * (trial + rng.random()) / self.trials))
            with tmpfs(disk, f"size={kilobytes}k") as refused:
                if refused:
                    tally.not_done = starved.not_done = refused
                    yield [starved, tally]
                    return
                code, stdout, stderr = lab.run("ihas", disk / "run")
                if code == 0:
                    tally.count("enough space")
                    yield [starved, tally]
                    continue
                mount("-o", "remount,size=256m", str(disk))
                fault = "" if one_paragraph(code, stderr) else f"exit code {code}: {stderr[-500:]}"
                tally.count(stage_of(stdout), fault or finish(lab, "ihas", disk / "run"))
                say(f"[full] {kilobytes} KB: {stderr.strip()[:150]}")
                yield [starved, tally]


@dataclass(frozen=True)
class ReadOnly(Job):
    """Makes the folder of a run read-only before each of its stages."""

    def tallies(self, lab: Lab, rng: random.Random) -> Iterator[list[Tally]]:
        """Each stage ends with one paragraph; when it can write again, the run ends bit-equal."""
        tally = Tally("read-only folder", "one paragraph, resumes, ends bit-equal")
        disk = lab.folder / "disk"
        with tmpfs(disk, "size=256m") as refused:
            if refused:
                tally.not_done = refused
                yield [tally]
                return
            for stage in _STAGES:
                mount("-o", "remount,ro", str(disk))
                code, _, stderr = lab.run("ihas", disk / "run", "--stage", stage)
                fault = "" if one_paragraph(code, stderr) else f"exit code {code}: {stderr[-500:]}"
                say(f"[readonly] {stage}: {stderr.strip()[:150]}")
                mount("-o", "remount,rw", str(disk))
                code, _, stderr = lab.run("ihas", disk / "run", "--stage", stage)
                tally.count(stage, fault or (f"does not resume: {stderr[-500:]}" if code else ""))
            tally.count("the whole run", finish(lab, "ihas", disk / "run"))
        yield [tally]


@dataclass(frozen=True)
class Damage(Job):
    """Changes one byte of one file, of finished runs and of runs that lack their evaluation."""

    trials: int = 200
    """The number of damaged bytes, each in a copy of a run."""
    methods: tuple[str, ...] = ("ihas", "pep", "optembed", "adafs_soft")
    """The methods, which take turns."""

    def tallies(self, lab: Lab, rng: random.Random) -> Iterator[list[Tally]]:
        """Each damaged file is named, or every number is as before."""
        tallies = {
            lacking: Tally(f"damaged byte, {what}", "named, or harmless: never another number")
            for lacking, what in ((False, "finished run"), (True, "run without its evaluation"))
        }
        for trial in range(self.trials):
            method, lacking = self.methods[trial // 2 % len(self.methods)], trial % 2 == 1
            source, copy = lab.reference(method)[0], lab.folder / "changed-byte"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(source, copy)
            if lacking:
                shutil.rmtree(copy / "bundle")
                (copy / "metrics.json").unlink()
            file = any_file(copy, rng)
            content = bytearray(file.read_bytes())
            place = rng.randrange(len(content))
            content[place] ^= rng.randint(1, 255)
            file.write_bytes(content)
            what, fault = look(lab, method, copy, source, file)
            about = f"{method}, byte {place} of {file.relative_to(copy)}"
            tallies[lacking].count(what, fault and f"{about}: {fault}")
            say(f"[damage] {about}: {what} {fault}")
            yield list(tallies.values())


@dataclass(frozen=True)
class Fuzz(Job):
    """Prepares random logs of known values and damaged files, and encodes random rows."""

    trials: int = 10_000
    """The number of logs and rows to try."""

    def tallies(self, lab: Lab, rng: random.Random) -> Iterator[list[Tally]]:
        """Every value gets its own id, or one clear error is raised and no file is left."""
        wanted = "each value has its id, or one clear error and nothing left"
        tallies = {name: Tally(name, wanted) for name in FUZZES}
        with track("Fuzzing", self.trials, "trials") as progress:
            for trial in range(self.trials):
                name, seed = list(FUZZES)[trial % len(FUZZES)], rng.getrandbits(32)
                with tempfile.TemporaryDirectory(dir=lab.folder) as folder:
                    try:
                        verdict = FUZZES[name](random.Random(seed), Path(folder))
                    except Exception as error:
                        verdict = Verdict("crash", f"{type(error).__name__}: {error}")
                about = verdict.fault and f"seed {seed}: {verdict.fault}"
                tallies[name].count(verdict.outcome, about)
                progress.advance(1)
        yield list(tallies.values())


Command = (
    Annotated[Kill, tyro.conf.subcommand("kill")]
    | Annotated[Full, tyro.conf.subcommand("full")]
    | Annotated[ReadOnly, tyro.conf.subcommand("readonly")]
    | Annotated[Damage, tyro.conf.subcommand("damage")]
    | Annotated[Fuzz, tyro.conf.subcommand("fuzz")]
)


def main() -> None:
    """Reads the command line, does the trials, writes and prints their table."""
    job = tyro.cli(Command, description=__doc__)
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = job.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        lab = Lab(folder.resolve())
        for tallies in job.tallies(lab, random.Random(job.seed)):
            _save(job.results, type(job).__name__.lower(), tallies, time.monotonic() - start)
    rows = [_row(asdict(tally)) for tally in tallies]
    console.print(Grid("", _HEADINGS, rows, _TEXTS))
    say(f"Results: {job.results}.md and .json")
    if any(tally.faults or tally.not_done for tally in tallies):
        raise InputError(f"Trials failed or could not be done; {job.results}.md says which.")


def _save(results: Path, name: str, tallies: list[Tally], seconds: float) -> None:
    """Writes the tallies of one subcommand to the results, which keep those of the others."""
    path = Path(f"{results}.json")
    content = read_json(path) if path.exists() else {}
    found = [asdict(tally) for tally in tallies]
    content[name] = {"provenance": machine(), "seconds": round(seconds), "tallies": found}

    def lines() -> list[str]:
        text = ["# Robustness", ""]
        for part in content.values():
            text += [*part["provenance"], f"- time: {part['seconds']} s", ""]
            text += markdown_table(_HEADINGS, map(_row, part["tallies"]), _TEXTS)
            faults = [f"- {fault}" for tally in part["tallies"] for fault in tally["faults"]]
            text += ["", *faults, *([""] if faults else [])]
        return text

    require_parts(write_results(results, content, lines), path)


def _row(tally: dict[str, Any]) -> tuple[str, ...]:
    came = ", ".join(f"{name}: {number}" for name, number in tally["outcomes"].items())
    total = sum(tally["outcomes"].values())
    came = f"not done: {tally['not_done']}" if tally["not_done"] else came
    return tally["name"], tally["wanted"], str(total), str(len(tally["faults"])), came


if __name__ == "__main__":
    run_cli(main)
