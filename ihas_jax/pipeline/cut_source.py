"""What sizes are cut from: the bundle of a run, its rows, and what it has learnt."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError
from ihas_jax.files import read_json, write_json
from ihas_jax.pipeline.about import ABOUT, read_about
from ihas_jax.pipeline.present_front import METRICS
from ihas_jax.pipeline.workdir import fingerprint
from ihas_jax.progress import say
from ihas_jax.serving.bundle import Bundle
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages.bundles import with_usage
from ihas_jax.stages.cut import can_be_cut
from ihas_jax.stages.lessons import has_predictions, read_lessons
from ihas_jax.stages.run import Run
from ihas_jax.stages.teachers import teachers_of

SIZES = "sizes"
"""The folder of the sizes of a cut that are trained on."""
_SOURCE = "source.json"


def open_source(path: Path, data: Dataset) -> tuple[Bundle, Path]:
    """The bundle of a finished run, which knows how values are used, and the folder of the run.

    Args:
      path: the folder of the run, or that of its bundle.
      data: the log of the run.

    Raises:
      InputError: there is no bundle, or it is of another log, or the run of other rows.
    """
    bundle = load_bundle(path)
    _require_log(bundle, data)
    folder = path if (path / ABOUT).exists() else path.resolve().parent
    if not (folder / ABOUT).exists():
        say("[cut] the bundle is without its run, so whether --data has its rows can't be checked")
    elif read_about(folder).data != fingerprint(data):
        raise InputError(
            f"{folder} is a run on other rows than those of --data, whose validation rows it may "
            "have learnt from. Pass the --data of that run."
        )
    if bundle.usage is None and can_be_cut(bundle):
        bundle = with_usage(Run(bundle.config, data, folder), bundle)
    return bundle, folder


def lessons_of(folder: Path, bundle: Bundle, data: Dataset) -> np.ndarray | None:
    """What a run has learnt of the training rows in place of clicks, if anything.

    Raises:
      InputError: it had teachers, and what they say is not there; or it is a compression that has
        not ended, or a cut, which can't tell.
    """
    names = [teacher.name for teacher in teachers_of(bundle.config)]
    kind = read_about(folder).kind if (folder / ABOUT).exists() else None
    if kind == "cut":
        raise InputError(
            f"{folder} holds a cut of a run, and does not know what that run has learnt from. Pass "
            "the folder of the run itself as --run."
        )
    if kind == "compression":
        if not (folder / METRICS).exists():
            raise InputError(
                f"{folder} has no {METRICS}, which says what its model has learnt from. Run the "
                "same compress.py command, which made the folder, again."
            )
        metrics = read_json(folder / METRICS)
        names = metrics["teachers"] if metrics["chosen"]["taught"] else []
    if not names:
        alone = "" if kind else "the bundle is without its run, so "
        say(f"[cut] {alone}each size learns from clicks")
        return None
    run, listed = Run(bundle.config, data, folder), ", ".join(names)
    if not all(has_predictions(run, name) for name in names):
        raise InputError(
            f"{folder} does not hold what the teachers {listed} say, from which its model has "
            "learnt. Pass the folder of the finished run as --run."
        )
    say(f"[cut] each size learns what the teachers say: {listed}")
    return read_lessons(run, names).labels


def require_same(own: Run, bundle: Bundle, taught: np.ndarray | None, *, retrain: bool) -> None:
    """Keeps in the folder of a cut what its sizes are made from.

    Args:
      own: the cut.
      bundle: the bundle that is cut.
      taught: what sizes learn in place of clicks, if anything.
      retrain: whether the sizes are trained on.

    Raises:
      InputError: the folder holds sizes that are made from something else.
    """
    path = own.workdir / _SOURCE
    content = {
        "weights": _checksum(jax.tree.leaves(bundle.models[0].variables)),
        "retrained": retrain,
        "lessons": None if taught is None else _checksum([taught]),
    }
    if not path.exists():
        if any((own.workdir / name).exists() for name in (SIZES, METRICS)):
            raise InputError(
                f"{own.workdir} has cuts, but no {_SOURCE}, which says what they are made from. "
                "Choose another --output."
            )
        write_json(path, content)
        return
    words = {
        "weights": "cuts of another run",
        "retrained": "cuts that were not trained on" if retrain else "cuts that were trained on",
        "lessons": "cuts that have learnt from other labels",
    }
    found = read_json(path, "Choose another --output.")
    for key, value in content.items():
        if found.get(key) != value:
            raise InputError(f"{own.workdir} holds {words[key]}. Choose another --output.")


def _checksum(arrays: Sequence[Any]) -> str:
    digest = 0
    for one in arrays:
        digest = zlib.crc32(np.ascontiguousarray(one).data, digest)
    return f"{digest:08x}"


def _require_log(bundle: Bundle, data: Dataset) -> None:
    """Raises: InputError: a log has other fields or values than the models of a bundle."""
    ours, theirs = data.schema, bundle.schema
    same = ours.names == theirs.names and ours.sizes == theirs.sizes
    if not same or any(
        list(a.values) != list(b.values) for a, b in zip(ours.fields, theirs.fields, strict=True)
    ):
        raise InputError(
            "The log of --data (by default the synthetic one) has other fields or values than the "
            "log of --run. Pass the --data of that run."
        )
