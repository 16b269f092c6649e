"""Folders of parts as one log."""

from pathlib import Path

import polars as pl
import pytest

from ihas_jax.data.raw import formats
from ihas_jax.data.raw.parts import find_parts
from ihas_jax.errors import InputError


def write_day(folder, day, frame, kind="csv", part="part-0"):
    folder = folder / f"dt={day}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}.{kind}"
    frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    return path


FRAME = pl.DataFrame({"ad": ["u", "v"], "y": [0, 1]})


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_folders_name_columns(tmp_path, kind, read):
    days = ("2014-10-21", "a%20b%2Fc", "__HIVE_DEFAULT_PARTITION__", "x=y")
    paths = [write_day(tmp_path / "site=9", day, FRAME, kind) for day in days]
    log = formats.table(*paths, label="y", categorical=["ad", "dt", "site"], time="dt")
    assert formats.columns_of(*paths) == ("ad", "y", "site", "dt")
    rows, bad, complaints = read(log)
    assert rows == [(0, "u", "2014-10-21", "9"), (1, "v", "2014-10-21", "9")]
    assert bad == 6
    assert "dt is 'a b/c', not a number or a time" in complaints[0]
    log = formats.table(*paths, label="y", categorical=["dt", "site"])
    texts = ("2014-10-21", "a b/c", "", "x=y")
    assert read(log)[0] == [(y, text, "9") for text in texts for y in (0, 1)]
    only = formats.table(*paths, label="site", categorical=["dt"])
    assert read(only)[1] == 8  # the label is 9
    own = FRAME.with_columns(dt=pl.lit("inside"))
    path = write_day(tmp_path / "own", "outside", own, kind)
    assert read(formats.table(path, label="y", categorical=["dt"]))[0][0] == (0, "inside")


def test_nothing_but_columns_of_folders(tmp_path, read, write):
    paths = []
    for label in (0, 1):
        folder = tmp_path / f"day=7/y={label}"
        folder.mkdir(parents=True)
        paths.append(write(folder / "a.csv", "ad\nu\nv\n"))
    log = formats.table(*paths, label="y", categorical=["day"])
    assert read(log)[0] == [(0, "7"), (0, "7"), (1, "7"), (1, "7")]


def test_folders_must_name_the_same_columns(tmp_path, write):
    paths = write_day(tmp_path, "1", FRAME), write(tmp_path / "b.csv", "ad,y\nu,1\n")
    with pytest.raises(InputError, match=r"folders that name other columns \(none, and dt\)"):
        formats.table(*paths, label="y", categorical=["ad"])
    folder = tmp_path / "dt=%ff"
    folder.mkdir()
    path = write(folder / "a.csv", "ad,y\nu,1\n")
    with pytest.raises(InputError, match=r"dt=%ff' is not UTF-8"):
        formats.table(path, label="y", categorical=["ad"])


def test_parts_are_found_at_any_depth_and_sorted_by_path(tmp_path):
    names = ["b=2/x=1/p.csv", "b=2/p.csv", "a.csv", "b=10/p.csv", "c/d/e.csv", "_b=1/p.csv"]
    for name in [*names, "_SUCCESS", ".hidden", "_tmp/p.csv", "b=2/.p.csv.crc"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "nothing").mkdir()
    want = ["_b=1/p.csv", "a.csv", "b=10/p.csv", "b=2/p.csv", "b=2/x=1/p.csv", "c/d/e.csv"]
    assert find_parts([tmp_path]) == tuple(tmp_path / name for name in want)
    found = find_parts([tmp_path / "b=*/p.csv", tmp_path / "gone.csv", tmp_path / "*.gz"])
    others = ["b=10/p.csv", "b=2/p.csv", "gone.csv", "*.gz"]
    assert found == tuple(tmp_path / name for name in others)
    (tmp_path / "[1].csv").touch()
    assert find_parts([tmp_path / "[1].csv"]) == (tmp_path / "[1].csv",)
    with pytest.raises(InputError, match=r"a\.csv twice"):
        find_parts([tmp_path / "a.csv", tmp_path])
    with pytest.raises(InputError, match="nothing holds no files"):
        find_parts([tmp_path / "a.csv", tmp_path / "nothing"])
    (tmp_path / "c/back").symlink_to(tmp_path)
    with pytest.raises(InputError, match="back leads back to a folder that it lies in"):
        find_parts([tmp_path])


def test_patterns_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_day(tmp_path, "1", FRAME)
    assert find_parts([Path("dt=*")]) == (Path("dt=1/part-0.csv"),)
