"""One damaged byte in a run, and the effect on the run."""

from __future__ import annotations

import contextlib
import io
import json
import random
from pathlib import Path

from bench.trials import Lab, bundle_digest
from ihas_jax.errors import InputError
from ihas_jax.pipeline.fit import fit


def any_file(run: Path, rng: random.Random) -> Path:
    """A file with content; the many files of checkpoints are not likelier than the rest."""
    place = run
    while place.is_dir():
        place = rng.choice(sorted(path for path in place.iterdir() if _bytes(path)))
    return place


def _bytes(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() else [path]
    return sum(part.stat().st_size for part in inside if part.is_file())


def look(lab: Lab, method: str, copy: Path, source: Path, file: Path) -> tuple[str, str]:
    """The outcome of a damaged run, and what is wrong with it, if anything."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            found = fit(lab.config(method), lab.data, copy).metrics
            digest = bundle_digest(copy)
    except InputError as error:
        named = any(part in str(error) for part in (file.name, str(file.parent)))
        named = named or str(copy / "bundle") in str(error)
        return "refused and named", "" if named else f"not named: {error}"
    except Exception as error:
        return "crash", f"{type(error).__name__}: {error}"
    wanted = json.loads((source / "metrics.json").read_bytes())
    for metrics in (found, wanted):
        metrics["seconds"].pop("evaluate")
        metrics["seconds"].pop("compiling")
        metrics.pop("microseconds", None)
    if json.loads(json.dumps(found)) != wanted or digest != bundle_digest(source):
        return "wrong number", "other numbers than before the damage"
    lines = [line for line in said.getvalue().splitlines() if "damaged" in line]
    named = any(str(place) in line for line in lines for place in (file, *_checkpoints(file)))
    if lines and not named:
        return "another file named", f"{lines}"
    return ("named, then equal" if named else "harmless: equal"), ""


def _checkpoints(file: Path) -> list[Path]:
    """The checkpoint to which a file belongs, which errors name in its place; else the file."""
    return [folder for folder in file.parents if folder.name.isdigit()]
