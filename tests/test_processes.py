"""Two processes of a job give what one process with two devices gives."""

from __future__ import annotations

import json

import pytest

RUNS = (
    *(
        "ihas",
        "streamed",
        "split",
        "shared",
        "undivided",
        "pep",
        "optfs",
        "optembed",
        "adafs",
        "rotated",
    ),
    *("adafs", "rotated", "seed_1", "seed_2", "by_search"),
)


@pytest.fixture(scope="module")
def basics(job, tmp_path_factory):
    return job(tmp_path_factory.mktemp("basics"), "basics").found_and_said()


@pytest.fixture(scope="module")
def feeds(job, tmp_path_factory):
    return job(tmp_path_factory.mktemp("feeds"), "feeds").found_and_said()[0]


@pytest.fixture(scope="module")
def fitted(job, tmp_path_factory):
    """Folders of runs of two processes and of one with two devices; what the processes found."""
    ours, theirs = (tmp_path_factory.mktemp(name) for name in ("two", "one"))
    found, said = job(ours, "fits").found_and_said()
    job(theirs, "fits", count=1, devices=2).found_and_said()
    return ours, theirs, found, said


def test_the_first_process_answers_for_all(basics):
    for i, found in enumerate(basics[0]):
        answers = found["agreement"]
        assert answers["small"] == [0, "a"]
        assert answers["large"] == [0, 299_999, 300_000]
        assert answers["inner"] == ["inner", 0]
        assert answers["many"]
        assert answers["every"] == [0, 10]
        assert answers["first"] == (i == 0)


def test_what_the_first_process_does_is_done_once(basics):
    assert [found["agreement"]["doubled"] for found in basics[0]] == [42, 42]
    assert [found["agreement"]["calls"] for found in basics[0]] == [1, 0]


def test_an_error_of_the_first_process_is_raised_in_all(basics):
    for found in basics[0]:
        assert found["agreement"]["raised"] == [
            "InputError: too bad",
            "ZeroDivisionError: division",
        ]


@pytest.mark.parametrize("split", [False, True])
def test_arrays_go_to_all_devices_and_come_back_bit_for_bit(basics, split):
    for found in basics[0]:
        assert found["arrays"][f"whole {split}"]
        assert found["arrays"][f"held {split}"] == [3840 if split else 7000, 2]


def test_arrays_that_other_processes_hold_are_laid_out_anew(basics):
    moved = [found["arrays"]["moved"] for found in basics[0]]
    assert moved == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_programs_over_rows_give_each_process_all_outputs(basics):
    for found in basics[0]:
        streams = found["streams"]
        assert [streams[name] for name in ("streamed", "summed", "few", "alone")] == [True] * 4


def test_each_process_computes_its_part_of_the_rows(basics):
    # 30,000 rows are 8 batches of at most 4,096
    assert [found["streams"]["batches"] for found in basics[0]] == [4, 4]


def test_batches_that_processes_do_not_divide_are_computed_by_each_and_said_once(basics):
    found, said = basics
    assert [one["meshes"] for one in found] == [{"64": [2, 2], "63": [1, 1]}] * 2
    assert "they do not divide a batch of 63 rows evenly" in said[0]


def test_all_processes_write_a_checkpoint_and_read_it(basics):
    for found in basics[0]:
        checkpoints = found["checkpoints"]
        assert checkpoints["equal"]
        assert checkpoints["own"] == [2, 2, 2]
        assert checkpoints["facts"] == {"i": 2}
        assert checkpoints["kept"] == ["1", "2"]
        assert checkpoints["first"] == ["0"]


def test_other_processes_print_nothing(basics, fitted):
    for said in (basics[1], fitted[3]):
        assert said[0]
        assert said[1] == ""


def test_each_process_reads_its_part_of_each_batch(feeds):
    assert [found["read"] for found in feeds] == [[32], [32]]


def test_clocks_that_disagree_do_not_hang(feeds):
    assert [found["clock"] for found in feeds] == [True, True]


def numbers(content, place=""):
    if isinstance(content, dict):
        for name, value in content.items():
            if name not in ("seconds", "microseconds", "p"):
                yield from numbers(value, f"{place}/{name}")
    elif isinstance(content, list):
        for i, value in enumerate(content):
            yield from numbers(value, f"{place}/{i}")
    else:
        yield place, content


@pytest.mark.parametrize("run", RUNS)
def test_metrics_are_those_of_one_process(fitted, run):
    ours, theirs = (
        dict(numbers(json.loads((folder / run / "metrics.json").read_text())))
        for folder in fitted[:2]
    )
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if isinstance(value, float):
            assert value == pytest.approx(theirs[name], abs=1e-5), name
        else:
            assert value == theirs[name], name
    assert max(value for name, value in ours.items() if name.endswith("/auc")) > 0.55


@pytest.mark.parametrize("run", RUNS)
def test_a_folder_holds_what_one_process_writes(fitted, run):
    ours, theirs = (
        sorted(
            str(path.relative_to(folder / run))
            for path in (folder / run).rglob("*")
            if path.is_file() and "process_" not in str(path) and not has_blocks(path)
        )
        for folder in fitted[:2]
    )
    assert ours == theirs


def has_blocks(path):
    """Whether a file is one of Orbax's whose names are random, or that say who holds what."""
    return path.parent.name == "d" or ".ocdbt" in str(path) or path.name == "_sharding"


def test_each_process_returns_the_metrics(fitted):
    first, second = fitted[2]
    assert first == second
    assert {*RUNS, "seeds"} - set(first) == {"seed_1", "seed_2"}


def test_the_log_has_each_event_once(fitted):
    lines = (fitted[0] / "ihas" / "log.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    starts = [event["stage"] for event in events if event.get("state") == "starts"]
    assert starts == ["base", "search", "choose", "retrain", "evaluate"]
