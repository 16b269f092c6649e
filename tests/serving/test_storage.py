"""A bundle on disk: what is loaded predicts, routes and counts as what was saved."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ihas_jax import checksums
from ihas_jax.config import ModelConfig
from ihas_jax.data.open import open_store
from ihas_jax.errors import InputError
from ihas_jax.models.base import SELECTOR, Variables
from ihas_jax.models.forward import init_model
from ihas_jax.selectors.by_value import ScoreRouter
from ihas_jax.selectors.plan import Expert, Plan
from ihas_jax.selectors.selection import Selection
from ihas_jax.serving import storage
from ihas_jax.serving.storage import load_bundle, save_bundle
from ihas_jax.stages.bundles import outcome_bundle, search_bundle
from ihas_jax.stages.run import Run
from ihas_jax.training.checkpoint import Checkpoints

KEPT = (((0,), (1,), ()), ((0, 1), (), (0, 1)), ((1,), (0,), (0,)))
ROUTES = (2, 0, 1)


@pytest.fixture(scope="module")
def run(tiny, small, tmp_path_factory):
    """A run of another model than the searched one."""
    model = dataclasses.replace(tiny.config.model, hidden=(3,))
    config = dataclasses.replace(tiny.config, model=model)
    return Run(config, small, tmp_path_factory.mktemp("storage"), tiny.config.model)


@pytest.fixture(scope="module")
def search(run):
    """A search with random weights, whose embeddings and gates are large enough to differ."""

    def init(key):
        params, stats, constants = init_model(key, run.searched_model)
        params |= {SELECTOR: run.selector.init(key).gates}
        return Variables(jax.tree.map(lambda leaf: 4 * leaf, params), stats, constants)

    variables = jax.jit(init)(jax.random.key(2))
    return SimpleNamespace(variables=variables, steps=())


@pytest.fixture(scope="module")
def saved(run, search):
    """A bundle of three models, and where it is."""
    experts = tuple(Expert(Selection(kept), f"cluster_{c}") for c, kept in enumerate(KEPT))
    centroids = np.eye(3, 6, dtype=np.float32) - np.eye(3, 6, 3, dtype=np.float32)
    plan = Plan(experts, ROUTES, (None,) * 3, centroids, (0.2, 0.3, 0.5))
    retrained = [
        SimpleNamespace(
            variables=jax.jit(lambda c=c, e=e: init_model(jax.random.key(c), run.expert_model(e)))()
        )
        for c, e in enumerate(experts)
    ]
    bundle = outcome_bundle(run, search, plan, retrained)
    save_bundle(bundle, run.workdir / "bundle")
    return bundle, run.workdir / "bundle"


@pytest.fixture
def changed(saved):
    """Rewrites bundle.json with other facts, and with its checksum or not; restores it."""
    path = saved[1] / "bundle.json"
    before = path.read_bytes()

    def change(seal, **facts):
        path.write_text(json.dumps(json.loads(before) | facts))
        if seal:
            checksums.seal(path.parent)
        return path.parent

    yield change
    path.write_bytes(before)
    checksums.seal(path.parent)


def test_each_row_is_predicted_by_the_model_of_its_cluster(saved, small):
    bundle, ids = saved[0], small.train.ids
    clusters = bundle.assign(ids)
    assert set(clusters) == {0, 1, 2}
    every = [served.predict(ids, title="").probs for served in bundle.models]
    expected = [every[ROUTES[c]][row] for row, c in enumerate(clusters)]
    np.testing.assert_allclose(bundle.predict_ids(ids), expected, rtol=1e-6)


def test_what_is_loaded_is_what_was_saved(run, saved, small):
    bundle, found = saved[0], load_bundle(run.workdir)
    ids = small.train.ids
    for name in ("config", "searched", "routes", "kept", "bytes", "router_parameters"):
        assert getattr(found, name) == getattr(bundle, name), name
    assert found.searched == ModelConfig(dim=2, hidden=(4,)) != found.config.model
    sizes = [[(one.parameters, one.bytes) for one in each.models] for each in (found, bundle)]
    assert sizes[0] == sizes[1]
    for name in ("assign", "masks", "predict_ids"):
        np.testing.assert_array_equal(getattr(found, name)(ids), getattr(bundle, name)(ids))


@pytest.mark.parametrize("clusters", [2, 3])
def test_a_compiled_router_is_loaded_as_it_was_saved(saved, small, tmp_path, clusters):
    rng, sizes = np.random.default_rng(0), small.schema.sizes
    router = ScoreRouter(
        rng.integers(-9, 9, clusters - 1, np.int32),
        rng.integers(-9, 9, (clusters - 1, sum(sizes)), np.int16),
        np.append(0, np.cumsum(sizes)[:-1]).astype(np.int32),
    )
    bundle = dataclasses.replace(saved[0], router=router, routes=ROUTES[:clusters])
    save_bundle(bundle, tmp_path / "bundle")
    found, ids = load_bundle(tmp_path), small.train.ids
    assert len(set(bundle.assign(ids))) == clusters
    for name in ("assign", "predict_ids"):
        np.testing.assert_array_equal(getattr(found, name)(ids), getattr(bundle, name)(ids))
    assert found.router_parameters == router.parameters
    with pytest.raises(InputError, match="The bundle has no gates, since a compiled"):
        found.masks(ids)


@pytest.mark.parametrize("version", [3, 4])
def test_a_bundle_whose_arrays_are_a_checkpoint_is_read(
    saved, small, tmp_path, monkeypatch, version
):
    """Format 3 says by two entries what routes rows."""

    def write(folder, arrays):
        with Checkpoints(folder, keep=1) as checkpoints:
            checkpoints.save(arrays, {})

    monkeypatch.setattr(storage, "write_arrays", write)
    save_bundle(saved[0], tmp_path / "former")
    path = tmp_path / "former" / "bundle.json"
    facts = json.loads(path.read_text()) | {"version": version}
    if version == 3:
        assert facts.pop("router") == "exact"
        facts["routed"] = True
    path.write_text(json.dumps(facts))
    checksums.seal(path.parent)
    ids = small.train.ids
    found = load_bundle(path.parent)
    np.testing.assert_array_equal(found.predict_ids(ids), saved[0].predict_ids(ids))
    for place in (path.parent / "arrays").rglob("d/*"):
        place.write_bytes(place.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"arrays holds no undamaged arrays; take another copy"):
        load_bundle(path.parent)


def test_zeros_of_removed_numbers_are_not_stored(saved, small, tmp_path):
    bundle, rng = saved[0], np.random.default_rng(0)
    models = tuple(
        dataclasses.replace(
            served,
            variables=jax.tree.map(
                lambda leaf: leaf * (rng.random(leaf.shape) < 0.2), served.variables
            ),
        )
        for served in bundle.models
    )
    bundle = dataclasses.replace(bundle, models=models)
    save_bundle(bundle, tmp_path / "sparse")
    found, ids = load_bundle(tmp_path / "sparse"), small.train.ids
    np.testing.assert_array_equal(found.predict_ids(ids), bundle.predict_ids(ids))
    assert list((tmp_path / "sparse" / "arrays").glob("models.*.nonzero.npy"))


def test_a_searched_model_selects_after_loading(run, search, small):
    bundle = search_bundle(run, search)
    save_bundle(bundle, run.workdir / "searched")
    found, ids = load_bundle(run.workdir / "searched"), small.train.ids
    ours, theirs = (each.models[0].predict(ids, title="") for each in (found, bundle))
    np.testing.assert_array_equal(ours.probs, theirs.probs)
    np.testing.assert_array_equal(ours.kept, theirs.kept)
    assert 0 < ours.kept.mean() < 1


def test_a_bundle_takes_the_place_of_nothing_unasked(saved, tmp_path):
    path = tmp_path / "mine" / "model"
    save_bundle(saved[0], str(path))
    assert load_bundle(path).parameters == saved[0].parameters
    before = (path / "checksums.json").read_bytes()
    with pytest.raises(InputError, match=r"model exists\. Nothing was changed; choose another"):
        save_bundle(saved[0], path)
    assert (path / "checksums.json").read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"Move away the file that stands where a folder belongs"):
        save_bundle(saved[0], tmp_path / "file" / "model")
    for length in (250, 300):  # the hidden folder has the longer name
        with pytest.raises(
            InputError, match=r"xx can't be written: File name too long\. Choose an"
        ):
            save_bundle(saved[0], tmp_path / ("x" * length))
    with pytest.raises(InputError, match=r"The bundle must be a Bundle, not a str\."):
        save_bundle("bundle", tmp_path / "other")


@pytest.mark.parametrize("path", [None, 3, b"run"])
def test_what_is_no_path_is_refused(saved, path):
    message = rf"A path must be a str or a Path, not a {type(path).__name__}\. Name the folder"
    for call in (load_bundle, open_store, lambda p: save_bundle(saved[0], p)):
        with pytest.raises(InputError, match=message):
            call(path)


def test_ids_that_are_none_of_the_bundle_are_refused(saved, small):
    ids = small.train.ids.copy()
    ids[3, 1] = 3
    with pytest.raises(InputError, match="row 3 of field 'f1'"):
        saved[0].predict_ids(ids)


def test_another_format_is_named(changed):
    with pytest.raises(InputError, match="is in format 1, and this version"):
        load_bundle(changed(True, version=1))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"router": "nearest"}, "router must be 'exact' or .* not 'nearest'"),
        ({"routes": [0, 7]}, r"routes \[0, 7\] for \d+ models"),
        ({"routes": [0, -1]}, r"routes \[0, -1\]"),
        ({"models": []}, "for 0 models"),
        ({"config": None}, r"no complete bundle \(config must be dict, not None"),
        ({"usage": 1}, r"no complete bundle \(usage must be bool, not 1"),
        ({"router": "values"}, "the router values with the field None"),
        ({"grouped_by": 0}, "the router exact with the field 0"),
        ({"router": "values", "grouped_by": 99}, "no field 99 for the router"),
        ({"router": "values", "grouped_by": -1}, "no field -1 for the router"),
        ({"more": 1}, "Record has no value named more"),
        ({"searched": {"name": 3}}, r"no complete bundle \(--model.name must be str, not 3"),
        ({"models": [{"kept": None}]}, r"no complete bundle \(.*missing 4 required"),
    ],
)
def test_facts_that_no_bundle_has_are_refused(changed, facts, message):
    with pytest.raises(InputError, match=message):
        load_bundle(changed(True, **facts))


def test_damage_is_named(changed):
    with pytest.raises(InputError, match=r"bundle\.json is damaged or missing"):
        load_bundle(changed(False, routes=[0, 1, 2]))
