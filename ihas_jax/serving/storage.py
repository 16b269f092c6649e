"""A bundle on disk: facts as JSON, the schema, and arrays as a checkpoint."""

from __future__ import annotations

import json
import operator
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ihas_jax import checksums
from ihas_jax.config import Config, ModelConfig, from_json, to_json
from ihas_jax.data.schema import Schema
from ihas_jax.errors import InputError, disk_error, require_type
from ihas_jax.files import write_json
from ihas_jax.flags import config_from_json, config_to_json
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING, Model, Variables
from ihas_jax.models.forward import init_model
from ihas_jax.nn.embedding import init_table
from ihas_jax.selectors.base import Selecting, Selector
from ihas_jax.selectors.by_value import ValueRouter
from ihas_jax.selectors.registry import build_selector
from ihas_jax.selectors.routing import AnyRouter, Router, router_variables
from ihas_jax.selectors.search import init_search
from ihas_jax.selectors.usage import Usage
from ihas_jax.serving.bundle import Bundle, Served
from ihas_jax.training.checkpoint import Checkpoints
from ihas_jax.training.steps import TABLES

VERSION = 3
"""Format of bundles and of the folders of runs; it changes with the layout of checkpoints."""
_ANEW = (
    "Delete that folder and run the command that made it again with the same flags: its last step "
    "writes it again."
)


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
    path = Path(path)
    require_type("bundle", bundle, Bundle, "Make one with ihas.load_bundle or ihas.cut.")
    if not replace and (path.exists() or path.is_symlink()):
        raise InputError(f"{path} exists. Nothing was changed; choose another folder.")
    try:
        _save(bundle, path)
    except OSError as error:
        if problem := disk_error(error, path):
            raise problem from None
        raise


def _save(bundle: Bundle, path: Path) -> None:
    """Writes a bundle in the place of what stands there."""
    arrays: dict[str, Any] = {
        "models": {str(i): _filled(_own(bundle.models, i)) for i in range(len(bundle.models))}
    }
    if isinstance(bundle.router, ValueRouter):
        arrays["router"] = {"of_value": bundle.router.of_value}
    elif bundle.router is not None:
        centroids = {"centroids": bundle.router.centroids}
        arrays["router"] = _filled(bundle.router.variables) | centroids
    if bundle.usage is not None:
        arrays["usage"] = bundle.usage._asdict()
    facts = {
        "version": VERSION,
        "config": config_to_json(bundle.config),
        "searched": to_json(bundle.searched),
        "models": [
            {
                "kept": served.model.embedding.kept,
                "stored_values": served.model.embedding.stored_values,
                "selects": served.transform is not None,
                "parameters": served.parameters,
                "bytes": served.bytes,
                "table_of_first": _shares_table(bundle.models, i),
            }
            for i, served in enumerate(bundle.models)
        ],
        "routes": bundle.routes,
        "routed": isinstance(bundle.router, Router),
        "grouped_by": _group_field(bundle),
        "usage": bundle.usage is not None,
    }
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    bundle.schema.save(partial / "schema.json")
    with Checkpoints(partial / "arrays", keep=1) as checkpoints:
        checkpoints.save(arrays, {})
    write_json(partial / "bundle.json", facts)
    checksums.seal(partial)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    partial.rename(path)


def load_bundle(path: str | Path) -> Bundle:
    """Reads the bundle of a run from the folder of the run or that of the bundle.

    Raises:
      InputError: there is no complete bundle, or it is of another version.
    """
    path = Path(path)
    path = path / "bundle" if (path / "bundle").is_dir() else path
    if damaged := checksums.damaged(path):
        raise InputError(
            f"{path / damaged[0]} is damaged: its checksum differs from the one that was recorded. "
            + _ANEW
        )
    try:
        facts = json.loads((path / "bundle.json").read_text(encoding="utf-8"))
        require_version(path, facts)
        config = config_from_json(facts["config"])
        searched = from_json(ModelConfig, facts["searched"])
        schema = Schema.load(path / "schema.json")
        models = [_model(config, schema, about) for about in facts["models"]]
        routes = tuple(facts["routes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no complete bundle ({error}). A run writes it in its last stage; run "
            "experiments/run.py to the end, then pass its --output folder."
        ) from None
    selects = any(about["selects"] for about in facts["models"])
    source = build_model(searched, schema.sizes)
    selector = build_selector(config, source, 1) if selects or facts["routed"] else None
    clusters = len(routes) if facts["routed"] else 0
    field = facts.get("grouped_by")
    over_first = [bool(about.get("table_of_first")) for about in facts["models"]]
    like = jax.eval_shape(lambda: _shapes(config, models, source, selector, selects, clusters))
    for i, over in enumerate(over_first):
        if over:
            del like["models"][str(i)]["params"][TABLES]
            like["models"][str(i)].pop("constants", None)
    if field is not None:
        like["router"] = {"of_value": jax.ShapeDtypeStruct((schema.sizes[field],), jnp.uint8)}
    if facts.get("usage"):
        like["usage"] = _usage_shapes(source)
    with Checkpoints(path / "arrays", read_only=True) as checkpoints:
        found = checkpoints.restore(like)
    if found is None:
        raise InputError(f"{path} holds no undamaged arrays. {_ANEW}")
    arrays = found[0]
    for i, over in enumerate(over_first):
        if over:
            _take_table(arrays["models"][str(i)], arrays["models"]["0"])
    served = tuple(
        Served(
            source if about["selects"] else model,
            Variables(**({"params": {}} | arrays["models"][str(i)])),
            about["parameters"],
            about["bytes"],
            Selecting(selector) if about["selects"] and selector else None,
        )
        for i, (model, about) in enumerate(zip(models, facts["models"], strict=True))
    )
    router: AnyRouter | None = None
    if field is not None:
        router = ValueRouter(field, np.asarray(arrays["router"]["of_value"]))
    if facts["routed"] and selector is not None:
        kept = arrays["router"]
        variables = Variables(kept["params"], kept.get("stats", {}))
        router = Router(source, selector, variables, kept["centroids"])
    usage = Usage(**jax.tree.map(np.asarray, arrays["usage"])) if "usage" in arrays else None
    return Bundle(config, searched, schema, served, routes, router, usage)


def require_version(path: Path, about: dict[str, Any]) -> None:
    """Raises: InputError: a folder was written in another format."""
    found = about.get("version", 1) if isinstance(about, dict) else "unknown"
    if found != VERSION:
        raise InputError(
            f"{path} is in format {found}, and this version of ihas_jax reads and writes format "
            f"{VERSION}. Run the same command with a new --output, or use the version that wrote "
            "the folder."
        )


def _usage_shapes(model: Model) -> dict[str, Any]:
    """Arrays that have the shapes of those of a usage."""
    spec = model.embedding
    vectors, dim = spec.vectors_per_field, spec.dim // spec.vectors_per_field
    curvature = (len(spec.sizes), vectors, dim, dim)
    return {
        "counts": np.zeros(sum(spec.sizes), np.int64),
        "curvature": np.zeros(curvature, np.float64),
    }


def _group_field(bundle: Bundle) -> int | None:
    """The position of the field by whose values rows are routed, if they are."""
    return bundle.router.field if isinstance(bundle.router, ValueRouter) else None


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


def _model(config: Config, schema: Schema, about: dict[str, Any]) -> Model:
    """The click model of an entry of bundle.json."""
    kept, stored = about["kept"], about["stored_values"]
    return build_model(
        config.model,
        schema.sizes,
        kept=None if kept is None else tuple(tuple(field) for field in kept),
        stored_values=None if stored is None else tuple(stored),
    )


def _shapes(
    config: Config,
    models: list[Model],
    source: Model,
    selector: Selector | None,
    selects: bool,
    clusters: int,
) -> dict[str, Any]:
    """Arrays that have the shapes of those in a bundle."""
    key = jax.random.key(0)
    if selects and selector is not None:
        variables = [init_search(key, config, source, selector).variables]
    else:
        variables = [init_model(key, model) for model in models]
    arrays: dict[str, Any] = {"models": {str(i): _filled(one) for i, one in enumerate(variables)}}
    if clusters and selector is not None:
        spec = source.embedding
        weights, tables = selector.init(key), {EMBEDDING: init_table(key, spec)}
        centroids = {"centroids": jnp.zeros((clusters, spec.coordinates))}
        arrays["router"] = _filled(router_variables(tables, weights)) | centroids
    return arrays


def _filled(variables: Variables) -> dict[str, Any]:
    """The parts of variables that hold arrays, since a checkpoint has no empty parts."""
    return {name: tree for name, tree in variables._asdict().items() if jax.tree.leaves(tree)}
