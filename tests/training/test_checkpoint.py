from __future__ import annotations

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import OptimizerConfig
from ihas_jax.errors import InputError
from ihas_jax.training.checkpoint import Checkpoints
from ihas_jax.training.optimizers import l2_adam
from ihas_jax.training.steps import init_train


def items(value: float):
    params = {"tables": {"w4": jnp.full((3, 4), value)}, "network": {"bias": jnp.zeros(())}}
    return {"params": params, "state": {"optimizer": l2_adam(OptimizerConfig()).init(params)}}


def saved(folder: Path, *values: float) -> Path:
    for value in values:
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(items(value), {"value": value})
    return folder


def restored(folder: Path, *, read_only: bool = False) -> float | None:
    """The value in a folder's newest undamaged checkpoint, by its facts and by its arrays."""
    with Checkpoints(folder, read_only=read_only) as checkpoints:
        found = checkpoints.restore(items(0.0))
    if found is None:
        return None
    trees, facts = found
    np.testing.assert_array_equal(trees["params"]["tables"]["w4"], np.full((3, 4), facts["value"]))
    return facts["value"]


def largest_file(checkpoint: Path) -> Path:
    files = [path for path in (checkpoint / "params").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_round_trip_of_everything_a_training_state_holds(tiny, tmp_path):
    state = init_train(jax.random.key(7), tiny.model, OptimizerConfig())
    before = {
        "params": state.params,
        "state": state.replace(params=None),
        "half": {"weights": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3), "none": {}},
    }
    facts = {"epoch": 3, "best": None, "history": [{"auc": 0.5, "loss": 0.1 + 0.2}]}
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(before, facts)
    with Checkpoints(tmp_path / "run") as checkpoints:
        after, found = checkpoints.restore(jax.tree.map(jnp.zeros_like, before))
    assert found == facts
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def test_a_shape_without_a_place_comes_to_the_first_device(tmp_path):
    saved(tmp_path / "run", 1.0)
    shapes = jax.eval_shape(lambda: items(0.0))
    with Checkpoints(tmp_path / "run") as checkpoints:
        trees, _ = checkpoints.restore(shapes)
    assert trees["params"]["tables"]["w4"].devices() == {jax.devices()[0]}


def test_the_newest_two_are_kept(tmp_path):
    saved(tmp_path / "run", 1.0, 2.0, 3.0, 4.0)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["2", "3"]
    assert restored(tmp_path / "run") == 4.0


def test_nothing_saved_is_none(tmp_path):
    assert restored(tmp_path / "run") is None


def test_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert restored(saved(Path("run"), 1.0)) == 1.0


def truncate(checkpoint: Path) -> None:
    file = largest_file(checkpoint)
    file.write_bytes(file.read_bytes()[:-20])


def flip(checkpoint: Path) -> None:
    flip_a_bit(largest_file(checkpoint))


def drop(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "params")


def damage_checksums(checkpoint: Path) -> None:
    (checkpoint / "checksums.json").write_text('{"facts/met')


def change_fact(checkpoint: Path) -> None:
    metadata = checkpoint / "facts" / "metadata"
    metadata.write_text(metadata.read_text().replace("2.0", "7.0"))


@pytest.mark.parametrize("damage", [truncate, flip, drop, change_fact, damage_checksums])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, capfd, damage):
    folder = saved(tmp_path / "run", 1.0, 2.0)
    damage(folder / "1")
    assert restored(folder) == 1.0
    said = capfd.readouterr()
    assert f"{folder / '1'} is damaged and now called damaged-1" in caplog.text
    assert (folder / "damaged-1").is_dir()
    assert "an earlier checkpoint" in caplog.text
    assert "Traceback" not in said.err
    saved(folder, 3.0)
    caplog.clear()
    assert restored(folder) == 3.0
    assert "damaged" not in caplog.text


def test_all_damaged_starts_anew(tmp_path, caplog):
    folder = saved(tmp_path / "run", 1.0, 2.0)
    flip(folder / "0")
    truncate(folder / "1")
    assert restored(folder) is None
    assert caplog.text.count("is damaged and now called") == 2
    assert restored(saved(folder, 5.0)) == 5.0


def test_read_only_removes_and_makes_nothing(tmp_path, caplog):
    folder = saved(tmp_path / "run", 1.0, 2.0)
    flip(folder / "1")
    before = sorted(folder.rglob("*"))
    assert restored(folder, read_only=True) == 1.0
    assert sorted(folder.rglob("*")) == before
    assert f"{folder / '1'} is damaged" in caplog.text
    assert restored(tmp_path / "nowhere", read_only=True) is None
    assert not (tmp_path / "nowhere").exists()


def test_an_undamaged_checkpoint_that_cannot_be_restored_stays(tmp_path, monkeypatch):
    folder = saved(tmp_path / "run", 1.0, 2.0)
    before = sorted(folder.rglob("*"))

    def fail(*given):
        raise MemoryError("no room")

    monkeypatch.setattr(Checkpoints, "_read", fail)
    with pytest.raises(
        InputError, match=r"is not damaged, but .*MemoryError: no room.* enough memory"
    ):
        restored(folder)
    assert sorted(folder.rglob("*")) == before


def test_a_checkpoint_of_other_arrays_names_the_version_that_wrote_it(tmp_path):
    folder = saved(tmp_path / "run", 1.0)
    before = sorted(folder.rglob("*"))
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(
            InputError, match=r"is not damaged, but .* the version of ihas_jax that wrote"
        ),
    ):
        checkpoints.restore({"params": {"other": np.zeros(1)}})
    assert sorted(folder.rglob("*")) == before


def test_a_save_that_was_killed_before_its_checksums_counts(tmp_path):
    folder = saved(tmp_path / "run", 1.0, 2.0)
    (folder / "1" / "checksums.json").unlink()
    assert restored(folder) == 2.0


def test_what_a_killed_save_left_is_ignored(tmp_path):
    folder = saved(tmp_path / "run", 1.0, 2.0)
    shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
    flip(folder / "2.orbax-checkpoint-tmp")
    assert restored(folder) == 2.0
    assert restored(saved(folder, 3.0)) == 3.0
