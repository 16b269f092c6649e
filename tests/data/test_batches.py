from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.data.batches import Feed, RoundIterator, Rounds
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.open import open_store
from ihas_jax.data.schema import Field, Schema
from ihas_jax.data.store_writer import save_dataset
from ihas_jax.errors import InputError


def make_split(rows, start=0):
    numbers = np.arange(start, start + rows, dtype=np.int32)
    return Split(np.stack([numbers, 2 * numbers], axis=1), (numbers % 3 == 0).astype(np.uint8))


TRAIN, VALID = make_split(26), make_split(10, start=1000)
ROWS = np.array([3, 5, 25, 7, 0, 9, 11, 14, 20, 21, 2], np.int32)


def make_rounds(resident=True, gate_every=2, round_batches=3, rows=None):
    return Rounds(
        split=TRAIN,
        feed=Feed(np.arange(26, dtype=np.int32) if rows is None else rows, 4, seed=1),
        round_batches=round_batches,
        epochs=3,
        resident=resident,
        gate_split=VALID,
        gate_feed=Feed(np.arange(10, dtype=np.int32), 4, seed=2),
        gate_every=gate_every,
    )


@given(
    rows=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 5),
)
def test_an_epoch_is_a_permutation_filled_up_with_its_own_first_rows(rows, batch_size, seed, epoch):
    numbers = np.arange(100, 100 + rows, dtype=np.int32)
    feed = Feed(numbers, batch_size, seed)
    batches = feed(epoch * feed.batches_per_epoch, feed.batches_per_epoch)
    flat = batches.ravel()
    assert batches.shape == (-(-rows // batch_size), batch_size)
    np.testing.assert_array_equal(np.sort(flat[:rows]), numbers)
    np.testing.assert_array_equal(flat[rows:], np.resize(flat[:rows], flat.size)[rows:])
    assert batches.dtype == np.int32


def test_only_the_given_rows_are_fed():
    feed = Feed(ROWS, 4, seed=0)
    assert set(feed(0, 30).ravel()) == set(ROWS.tolist())


@given(first=st.integers(0, 30), count=st.integers(1, 25))
def test_any_stretch_of_the_stream_is_the_same_however_it_is_read(first, count):
    feed = Feed(ROWS, 4, seed=7)
    single = [Feed(ROWS, 4, seed=7)(first + i, 1)[0] for i in range(count)]
    np.testing.assert_array_equal(feed(first, count), single)


def test_epochs_and_seeds_differ_and_equal_seeds_agree():
    feed = Feed(np.arange(100, dtype=np.int32), 10, seed=3)
    again = Feed(np.arange(100, dtype=np.int32), 10, seed=3)
    other = Feed(np.arange(100, dtype=np.int32), 10, seed=4)
    np.testing.assert_array_equal(feed(0, 30), again(0, 30))
    assert (feed(0, 10) != feed(10, 10)).mean() > 0.9
    assert (feed(0, 10) != other(0, 10)).mean() > 0.9
    assert (feed(0, 10).ravel() != np.arange(100)).mean() > 0.9


def test_the_order_of_an_epoch_is_uniform():
    """Each of 5 rows is first in about a fifth of 2,000 epochs."""
    feed = Feed(np.arange(5, dtype=np.int32), 5, seed=0)
    firsts = np.array([feed(epoch, 1)[0, 0] for epoch in range(2000)])
    share = np.bincount(firsts, minlength=5) / 2000
    assert np.abs(share - 0.2).max() < 4 * np.sqrt(0.2 * 0.8 / 2000)


@pytest.mark.parametrize("round_batches", [1, 3, 7, 100])
def test_rounds_cut_the_stream_and_no_round_crosses_an_epoch(round_batches):
    rounds = make_rounds(round_batches=round_batches)
    items = [rounds[i] for i in range(len(rounds))]
    sizes = [item.batches for item in items]
    assert {item.rows.shape for item in items} == {(min(round_batches, 7), 4)}
    assert {item.gate_rows.shape for item in items} == {(-(-min(round_batches, 7) // 2), 4)}
    assert rounds.feed.batches_per_epoch == 7
    assert len(items) == 3 * rounds.per_epoch
    for start in range(0, len(items), rounds.per_epoch):
        assert sum(sizes[start : start + rounds.per_epoch]) == 7
    meant = np.concatenate([item.rows[: item.batches] for item in items])
    np.testing.assert_array_equal(meant, rounds.feed(0, 21))


@pytest.mark.parametrize("gate_every", [1, 2, 3, 5, 30])
@pytest.mark.parametrize("round_batches", [1, 3, 7, 100])
def test_gate_rows_line_up_with_the_count_of_batches(gate_every, round_batches):
    """The t-th gate update of the whole run takes gate batch t, whatever the rounds."""
    rounds = make_rounds(gate_every=gate_every, round_batches=round_batches)
    used, step = [], 0
    for index in range(len(rounds)):
        item = rounds[index]
        first = step // gate_every  # as the search round counts
        for _ in range(item.batches):
            step += 1
            if step % gate_every == 0:
                used.append(item.gate_rows[step // gate_every - 1 - first])
    assert step == 21
    assert len(used) == 21 // gate_every
    if used:
        np.testing.assert_array_equal(used, rounds.gate_feed(0, len(used)))


def test_streamed_rounds_carry_the_rows_that_resident_ones_point_at():
    resident, streamed = make_rounds(), make_rounds(resident=False)
    for index in range(len(resident)):
        there, here = resident[index], streamed[index]
        assert there.data is None and there.gate_data is None
        np.testing.assert_array_equal(here.data.ids[here.rows], TRAIN.ids[there.rows])
        np.testing.assert_array_equal(here.data.labels[here.rows], TRAIN.labels[there.rows])
        np.testing.assert_array_equal(
            here.gate_data.ids[here.gate_rows], VALID.ids[there.gate_rows]
        )
        np.testing.assert_array_equal(
            here.gate_data.labels[here.gate_rows], VALID.labels[there.gate_rows]
        )
        assert len(here.data.ids) == here.rows.size


def test_training_without_gates_has_no_gate_rows():
    rounds = dataclasses.replace(make_rounds(), gate_split=None, gate_feed=None, gate_every=0)
    for resident in (True, False):
        item = dataclasses.replace(rounds, resident=resident)[1]
        assert item.gate_rows.size == 0 and item.gate_data is None


def equal(a, b):
    np.testing.assert_array_equal(a.rows, b.rows)
    np.testing.assert_array_equal(a.gate_rows, b.gate_rows)
    if a.data is not None:
        np.testing.assert_array_equal(a.data.ids, b.data.ids)


@pytest.mark.parametrize("resident", [True, False])
def test_a_saved_position_continues_where_the_iterator_stood(resident):
    rounds = make_rounds(resident=resident)
    iterator = RoundIterator(rounds, lambda item: item)
    for index in range(4):
        equal(next(iterator), rounds[index])
    position = json.loads(json.dumps(iterator.position))
    resumed = RoundIterator(make_rounds(resident=resident), lambda item: item)
    resumed.seek(position)
    for index in range(4, len(rounds)):
        expected = rounds[index]
        equal(next(resumed), expected)
        equal(next(iterator), expected)
    with pytest.raises(StopIteration):
        next(resumed)


@given(rows=st.integers(1, 900), block=st.integers(2, 9), epoch=st.integers(0, 3))
def test_blocks_of_neighbours_are_permuted_and_no_row_is_left_out(rows, block, epoch):
    numbers = np.arange(50, 50 + rows, dtype=np.int32)
    feed = Feed(numbers, 10, seed=3, block_rows=block)
    flat = feed(epoch * feed.batches_per_epoch, feed.batches_per_epoch).ravel()[:rows]
    np.testing.assert_array_equal(np.sort(flat), numbers)
    window = 64 * block
    for start in range(0, rows, window):
        blocks = np.unique((flat[start : start + window] - 50) // block)
        assert len(blocks) <= 64 + 1  # a short last block moves the strips by a part of a block
    again = Feed(numbers, 10, seed=3, block_rows=block)
    first = epoch * feed.batches_per_epoch
    np.testing.assert_array_equal(again(first, 1), feed(first, 1))
    if rows > 100:
        other = feed(first + feed.batches_per_epoch, 1)
        assert not np.array_equal(other, feed(first, 1))


@pytest.mark.parametrize("resident", [True, False])
def test_the_shards_of_all_processes_are_the_batch_of_one(resident):
    whole = make_rounds(resident=resident)
    parts = [dataclasses.replace(whole, shard=(i, 2)) for i in range(2)]
    for index in range(len(whole)):
        one, several = whole[index], [part[index] for part in parts]
        for name in ("rows", "gate_rows"):
            joined = np.concatenate([getattr(part, name) for part in several], axis=1)
            if resident:
                np.testing.assert_array_equal(joined, getattr(one, name))
            assert joined.shape == getattr(one, name).shape
        if not resident:
            ids = np.concatenate([p.data.ids[p.rows] for p in several], axis=1)
            np.testing.assert_array_equal(ids, one.data.ids[one.rows])


@pytest.mark.parametrize("shard", [(0, 3), (2, 2), (-1, 2)])
def test_a_batch_is_for_a_number_of_processes_that_divides_it(shard):
    with pytest.raises(ValueError, match=r"3 processes do not divide a batch of 4|no part"):
        dataclasses.replace(make_rounds(), shard=shard)


def open_shard(store, *shard):
    data = open_store(store)
    rounds = dataclasses.replace(
        make_rounds(resident=False), split=data.train, gate_split=data.valid, shard=shard
    )
    return RoundIterator(rounds, lambda item: item)


@pytest.mark.parametrize(("rows", "data"), [("rows", "data"), ("gate_rows", "gate_data")])
def test_processes_that_read_one_store_see_one_batch_also_after_a_resume(tmp_path, rows, data):
    values = tuple(map(str, range(4000)))
    schema = Schema("y", (Field("a", values[:2000]), Field("b", values)))
    store = tmp_path / "store"
    save_dataset(Dataset(schema, TRAIN, VALID, make_split(0)), store)

    def batches(items):
        found = [(getattr(item, data), getattr(item, rows)) for item in items]
        ids = np.concatenate([split.ids[numbers] for split, numbers in found])
        labels = np.concatenate([split.labels[numbers] for split, numbers in found])
        return np.concatenate([ids, labels[..., None]], axis=-1)

    whole = batches(open_shard(store, 0, 1))
    parts = []
    for index in range(2):
        iterator = open_shard(store, index, 2)
        begun = [next(iterator) for _ in range(4)]
        resumed = open_shard(store, index, 2)
        resumed.seek(json.loads(json.dumps(iterator.position)))
        parts.append(batches([*begun, *resumed]))
    assert len(np.unique(whole)) > 10
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize(
    ("rows", "batch_size", "block_rows", "words"),
    [
        ([0, 1], 2, 1, r"are list \[2\]; a NumPy array \[n\]"),
        (np.ones(5, bool), 2, 1, r"are bool \[5\].*np\.flatnonzero\(mask\)"),
        (np.zeros(5), 2, 1, r"are float64 \[5\]"),
        (np.zeros((5, 1), int), 2, 1, r"are int64 \[5, 1\]"),
        (np.zeros(0, int), 2, 1, "no rows to make batches of"),
        (np.array([0, -1]), 2, 1, "hold -1; rows count from 0"),
        (np.array([0, 2**31]), 2, 1, "hold 2147483648"),
        (ROWS, 0, 1, "Batches of 0 rows in blocks of 1 have no rows"),
        (ROWS, 2, 0, "Batches of 2 rows in blocks of 0 have no rows"),
    ],
)
def test_a_feed_of_what_are_no_rows_is_refused(rows, batch_size, block_rows, words):
    with pytest.raises(InputError, match=words):
        Feed(rows, batch_size, seed=0, block_rows=block_rows)


def test_row_numbers_of_any_integers_feed_int32():
    feed, same = (Feed(ROWS.astype(kind), 4, seed=0) for kind in (np.int64, np.int32))
    assert feed(0, 5).dtype == np.int32
    assert feed.end == 26
    np.testing.assert_array_equal(feed(0, 5), same(0, 5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": make_split(25)}, "batches of split have row 25, but it ends with row 24"),
        ({"gate_split": make_split(9)}, "batches of gate_split have row 9, but it ends with row 8"),
        ({"gate_split": None}, "needs a gate_feed"),
        ({"gate_feed": None}, "needs a gate_feed"),
        ({"gate_every": 0}, "gate_every is 0"),
        ({"round_batches": 0}, "Rounds have 0 batches"),
        ({"epochs": -1}, "run -1 epochs"),
        ({"split": TRAIN._replace(labels=TRAIN.labels[:20])}, r"the shapes \[26, 2\] and \[20\]"),
        ({"split": TRAIN._replace(labels=TRAIN.labels[:, None])}, r"\[26, 2\] and \[26, 1\]"),
        ({"split": TRAIN._replace(ids=TRAIN.ids[:, 0])}, r"the shapes \[26\] and \[26\]"),
    ],
)
def test_rounds_of_what_is_no_split_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(make_rounds(), **change)
