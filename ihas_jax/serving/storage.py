"""A bundle on disk: facts as JSON, the schema, and a file for each array."""

from __future__ import annotations

import operator
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ihas_jax import checksums
from ihas_jax.config import to_json
from ihas_jax.data.schema import Schema
from ihas_jax.errors import InputError, as_path, require_type, unwritable
from ihas_jax.files import write_json
from ihas_jax.flags import config_from_json, config_to_json
from ihas_jax.models import build_model
from ihas_jax.models.base import TABLES, Model, Variables
from ihas_jax.models.forward import init_model
from ihas_jax.models.local import hold
from ihas_jax.processes import by_first
from ihas_jax.selectors.base import Selecting, Selector, with_weights
from ihas_jax.selectors.by_value import ValueRouter
from ihas_jax.selectors.registry import build_selector
from ihas_jax.selectors.usage import Usage
from ihas_jax.serving import routers
from ihas_jax.serving.arrays import read_arrays, write_arrays
from ihas_jax.serving.bundle import Bundle, Served
from ihas_jax.serving.record import FORMAT, NAME, ModelRecord, Record, read_record


@by_first
def save_bundle(bundle: Bundle, path: str | Path, *, replace: bool = False) -> None:
    """Writes a bundle to a folder, which appears only once it is complete.

    Args:
      bundle: the bundle.
      path: the folder, from which `load_bundle` reads it.
      replace: whether the bundle takes the place of what stands there.

    Raises:
      InputError: something stands there that is not to be replaced, the bundle is something else,
        or the folder can't be written.
    """
    path = as_path(path, "Name the folder to write.")
    require_type("bundle", bundle, Bundle, "Make one with ihas.load_bundle or ihas.cut.")
    try:
        if not replace and (path.exists() or path.is_symlink()):
            raise InputError(f"{path} exists. Nothing was changed; choose another folder.")
        _save(bundle, path)
    except OSError as error:
        raise unwritable(error, path) from None


def _save(bundle: Bundle, path: Path) -> None:
    """Writes a bundle in the place of what stands there."""
    arrays: dict[str, Any] = {
        "models": {
            str(i): routers.filled(_own(bundle.models, i)) for i in range(len(bundle.models))
        }
    }
    if bundle.router is not None:
        arrays["router"] = routers.arrays_of(bundle.router)
    if bundle.usage is not None:
        arrays["usage"] = bundle.usage._asdict()
    record = Record(
        FORMAT,
        config_to_json(bundle.config),
        bundle.searched,
        tuple(
            ModelRecord(
                kept=served.model.embedding.kept,
                stored_values=served.model.embedding.stored_values,
                selects=served.transform is not None,
                parameters=served.parameters,
                bytes=served.bytes,
                table_of_first=_shares_table(bundle.models, i),
            )
            for i, served in enumerate(bundle.models)
        ),
        bundle.routes,
        routers.kind_of(bundle.router),
        bundle.router.field if isinstance(bundle.router, ValueRouter) else None,
        usage=bundle.usage is not None,
    )
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    bundle.schema.save(partial / "schema.json")
    write_arrays(partial / "arrays", arrays)
    write_json(partial / NAME, to_json(record))
    checksums.seal(partial)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    partial.rename(path)


def load_bundle(path: str | Path, *, split_tables: bool | None = None) -> Bundle:
    """Reads the bundle of a run from the folder of the run or that of the bundle.

    Args:
      path: the folder.
      split_tables: whether the devices hold the rows of large tables between them, which then also
        stay in the memory of the machine; by default where whole tables would not fit on each.

    Raises:
      InputError: there is no complete bundle, it is of another version, or the path is no path.
    """
    path = as_path(path, "Name the folder of a run, or of its bundle.")
    path = path / "bundle" if (path / "bundle").is_dir() else path
    if damaged := checksums.damaged(path):
        raise InputError(
            f"{path / damaged[0]} is damaged or missing: a checksum says what it held. Take "
            "another copy of the bundle, or delete the folder and run the command that made it "
            "again with the same flags: its last step writes it again."
        )
    try:
        record = read_record(path)
        config = config_from_json(record.config)
        schema = Schema.load(path / "schema.json")
        if record.grouped_by is not None and record.grouped_by not in range(len(schema.names)):
            raise ValueError(f"no field {record.grouped_by} for the router to look up")
        models = [
            build_model(config.model, schema.sizes, kept=one.kept, stored_values=one.stored_values)
            for one in record.models
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} holds no complete bundle ({error}). A run writes it in its last stage; run "
            "experiments/run.py to the end, then pass its --output folder."
        ) from None
    selects = any(one.selects for one in record.models)
    source = build_model(record.searched, schema.sizes)
    gated = selects or record.router == "exact"
    selector = build_selector(config, source, 1) if gated else None
    like = jax.eval_shape(
        lambda: {
            "models": _model_shapes(models, source, selector if selects else None),
            "router": routers.shapes_of(record, schema, source, selector),
        }
    )
    for i, one in enumerate(record.models):
        if one.table_of_first:
            del like["models"][str(i)]["params"][TABLES]
            like["models"][str(i)].pop("constants", None)
    if like["router"] is None:
        del like["router"]
    if record.usage:
        like["usage"] = _usage_shapes(source)
    if record.version < FORMAT:
        from ihas_jax.serving.former import read_checkpoint  # Orbax takes a second to import

        arrays = read_checkpoint(path / "arrays", like)
    else:
        arrays = read_arrays(path / "arrays", like)
    of_models = hold(arrays["models"], split_tables)
    for i, one in enumerate(record.models):
        if one.table_of_first:
            _take_table(of_models[str(i)], of_models["0"])
    served = tuple(
        Served(
            source if one.selects else model,
            Variables(**({"params": {}} | of_models[str(i)])),
            one.parameters,
            one.bytes,
            Selecting(selector) if one.selects and selector else None,
        )
        for i, (model, one) in enumerate(zip(models, record.models, strict=True))
    )
    router = routers.make(record, arrays.get("router", {}), source, selector, split_tables)
    usage = Usage(**jax.tree.map(np.asarray, arrays["usage"])) if "usage" in arrays else None
    return Bundle(config, record.searched, schema, served, record.routes, router, usage)


def _usage_shapes(model: Model) -> dict[str, Any]:
    """Arrays that have the shapes of those of a usage."""
    spec = model.embedding
    vectors, dim = spec.vectors_per_field, spec.dim // spec.vectors_per_field
    curvature = (len(spec.sizes), vectors, dim, dim)
    return {
        "counts": np.zeros(sum(spec.sizes), np.int64),
        "curvature": np.zeros(curvature, np.float64),
    }


def _shares_table(models: tuple[Served, ...], i: int) -> bool:
    """Whether a model has the very table of the first one, and the constants that belong to it."""
    variables = [models[j].variables for j in (0, i)]
    first, own = (jax.tree.leaves((one.params[TABLES], one.constants)) for one in variables)
    return i > 0 and len(own) == len(first) and all(map(operator.is_, own, first))


def _own(models: tuple[Served, ...], i: int) -> Variables:
    """The variables of a model without what the first one has for it."""
    variables = models[i].variables
    if not _shares_table(models, i):
        return variables
    params = {name: tree for name, tree in variables.params.items() if name != TABLES}
    return Variables(params, variables.stats)


def _take_table(arrays: dict[str, Any], first: dict[str, Any]) -> None:
    """Gives the arrays of a model the table of the first one, and what belongs to it."""
    arrays["params"] = arrays["params"] | {TABLES: first["params"][TABLES]}
    if "constants" in first:
        arrays["constants"] = first["constants"]


def _model_shapes(models: list[Model], source: Model, selector: Selector | None) -> dict[str, Any]:
    """Arrays that have the shapes of those of models, or of a searched one that selects."""
    key = jax.random.key(0)
    if selector is not None:
        variables = [with_weights(init_model(key, source), selector.init(key))]
    else:
        variables = [init_model(key, model) for model in models]
    return {str(i): routers.filled(one) for i, one in enumerate(variables)}
