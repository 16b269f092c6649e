from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from scipy.stats import chi2

from ihas_jax.data.split import split_counts
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.errors import InputError
from ihas_jax.training.metrics import auc

CONFIG = SyntheticConfig(rows=30_000, groups=3, own=2, values=30, loyalty=0.8)
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def log():
    return synthetic(CONFIG)


def together(log):
    ids = np.concatenate([getattr(log, split).ids for split in SPLITS])
    labels = np.concatenate([getattr(log, split).labels for split in SPLITS])
    groups = np.concatenate([log.groups[split] for split in SPLITS])
    probabilities = np.concatenate([log.probabilities[split] for split in SPLITS])
    return ids, labels, groups, probabilities


def chi_square(ids, labels):
    """Pearson's statistic of independence of a field and the label, and its p-value."""
    table = np.stack(
        [np.bincount(ids[labels == label], minlength=ids.max() + 1) for label in (0, 1)]
    )
    table = table[:, table.sum(axis=0) >= 20]
    expected = table.sum(axis=0) * table.sum(axis=1, keepdims=True) / table.sum()
    statistic = ((table - expected) ** 2 / expected).sum()
    freedom = table.shape[1] - 1
    return statistic / freedom, chi2.sf(statistic, freedom)


def test_the_same_config_gives_the_same_log(log):
    again = synthetic(dataclasses.replace(CONFIG))
    assert again.schema == log.schema
    for split in SPLITS:
        for part in ("ids", "labels"):
            np.testing.assert_array_equal(
                getattr(getattr(again, split), part), getattr(getattr(log, split), part)
            )
        np.testing.assert_array_equal(again.groups[split], log.groups[split])


@pytest.mark.parametrize(
    ("config", "digest"), [(SyntheticConfig(), "614204a97dc96e66"), (CONFIG, "61e6ae7142244aea")]
)
def test_logs_of_the_default_heterogeneity_are_those_of_earlier_versions(config, digest):
    drawn, found = synthetic(config), hashlib.sha256()
    for split in SPLITS:
        rows = getattr(drawn, split)
        found.update(rows.ids.tobytes() + rows.labels.tobytes())
    assert found.hexdigest().startswith(digest)


def test_another_seed_gives_another_log(log):
    other = synthetic(dataclasses.replace(CONFIG, seed=1))
    assert (other.train.ids[:1000] != log.train.ids[:1000]).mean() > 0.5
    assert (other.train.labels != log.train.labels).mean() > 0.2


def test_fields_and_their_roles_are_as_configured(log):
    own = [f"own_{group}_{i}" for group in range(3) for i in range(2)]
    noise = ["noise_0", "noise_1", "noise_2"]
    assert log.schema.names == ("context_0", "context_1", *own, "shared_0", *noise)
    assert tuple(name.split("_")[0] for name in log.schema.names) == log.roles
    expected = np.zeros((3, 12), bool)
    for group in range(3):
        expected[group, 2 + 2 * group : 4 + 2 * group] = True
    expected[:, 8] = True
    np.testing.assert_array_equal(log.relevant, expected)


def test_splits_have_their_sizes_and_every_id_is_in_range(log):
    assert tuple(len(getattr(log, split).labels) for split in SPLITS) == split_counts(30_000)
    for split in SPLITS:
        rows = getattr(log, split)
        assert rows.ids.shape == (len(rows.labels), 12) and rows.ids.dtype == np.int32
        assert set(np.unique(rows.labels)) == {0, 1} and rows.labels.dtype == np.uint8
        assert len(log.groups[split]) == len(log.probabilities[split]) == len(rows.labels)
        assert (rows.ids >= 0).all() and (rows.ids < np.array(log.schema.sizes)).all()


def test_in_every_group_exactly_the_relevant_fields_move_the_clicks(log):
    ids, labels, groups, _ = together(log)
    moving, still, chances = [], [], []
    for group in range(3):
        mine = groups == group
        for field in range(12):
            effect, chance = chi_square(ids[mine, field], labels[mine])
            if log.relevant[group, field]:
                moving.append(effect)
            else:
                still.append(effect)
                chances.append(chance)
    assert len(moving) == 9 and len(still) == 27
    assert min(moving) > 5 * max(still)
    assert min(chances) > 0.001 / 27  # no irrelevant field shows more than chance would


def test_labels_follow_the_true_probabilities(log):
    _, labels, groups, probabilities = together(log)
    for group in range(3):
        p, y = probabilities[groups == group], labels[groups == group]
        assert abs(y.mean() - p.mean()) < 4 * np.sqrt((p * (1 - p)).sum()) / len(p)
    # in tenths of rows by probability, too
    for part in np.array_split(np.argsort(probabilities), 10):
        p, y = probabilities[part], labels[part]
        assert abs(y.mean() - p.mean()) < 4 * np.sqrt((p * (1 - p)).sum()) / len(p)
    assert auc(labels, probabilities) > 0.7


def log_odds_by_value(log, field, group):
    """The mean log-odds of the rows of a group by the value of a field, where it is frequent."""
    ids, _, groups, probabilities = together(log)
    mine = groups == group
    odds = np.log(probabilities[mine] / (1 - probabilities[mine]))
    column = ids[mine, field]
    return np.array([odds[column == value].mean() for value in range(10)]), odds.var()


@pytest.mark.parametrize("heterogeneity", [0.0, 0.5, 1.0])
def test_other_groups_have_a_share_of_the_effects_of_own_fields(heterogeneity):
    log = synthetic(dataclasses.replace(CONFIG, rows=90_000, heterogeneity=heterogeneity))
    (mine, _), (others, _) = (log_odds_by_value(log, 2, group) for group in (0, 1))
    slope = np.polyfit(mine - mine.mean(), others - others.mean(), 1)[0]
    assert slope == pytest.approx(1 - heterogeneity, abs=0.1)
    np.testing.assert_array_equal(log.relevant[:, 2], [True, heterogeneity < 1, heterogeneity < 1])
    _, labels, _, probabilities = together(log)
    assert abs(labels.mean() - probabilities.mean()) < 0.01


def test_the_log_odds_vary_as_much_at_every_heterogeneity():
    def variance(heterogeneity):
        logs = [
            synthetic(dataclasses.replace(CONFIG, heterogeneity=heterogeneity, seed=seed))
            for seed in range(8)
        ]
        return np.mean([log_odds_by_value(log, 2, g)[1] for log in logs for g in range(3)])

    expected = (2 + 1) * 0.8**2
    frequencies = 1 / np.arange(1, 31)
    frequencies /= frequencies.sum()
    expected *= 1 - (frequencies**2).sum()  # effects are not those of all values alike
    for heterogeneity in (0.0, 1.0):
        assert variance(heterogeneity) == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("heterogeneity", [-0.1, 1.1])
def test_a_heterogeneity_out_of_range_is_refused(heterogeneity):
    with pytest.raises(InputError, match="The heterogeneity must be 0 to 1"):
        synthetic(SyntheticConfig(rows=100, heterogeneity=heterogeneity))


def test_context_values_come_from_the_own_group_as_often_as_loyalty_says(log):
    ids, _, groups, _ = together(log)
    expected = 0.8 + 0.2 / 3
    for field in (0, 1):
        values = log.schema.fields[field].values
        home = np.array([int(value.split("=")[1]) % 3 for value in values])
        known = ids[:, field] < len(values)
        assert known.mean() > 0.999
        loyal = home[ids[known, field]] == groups[known]
        assert abs(loyal.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / loyal.size)


def test_groups_are_equally_likely_and_other_fields_do_not_tell_them(log):
    ids, _, groups, _ = together(log)
    share = np.bincount(groups, minlength=3) / 30_000
    assert np.abs(share - 1 / 3).max() < 4 * np.sqrt(2 / 9 / 30_000)
    for field in range(2, 12):
        _, chance = chi_square(ids[:, field], (groups == 0).astype(int))
        assert chance > 0.001 / 10


def test_values_follow_zipfs_law(log):
    ids, *_ = together(log)
    frequencies = 1 / np.arange(1, 31)
    frequencies /= frequencies.sum()
    for field in range(2, 12):
        share = np.bincount(ids[:, field], minlength=31) / 30_000
        error = np.sqrt(frequencies * (1 - frequencies) / 30_000)
        # ids are in order of frequency, so neighbours in the tail may have changed places
        assert (np.abs(share[:5] - frequencies[:5]) < 4 * error[:5]).all()


def test_values_seen_fewer_than_ten_times_and_no_others_are_other():
    log = synthetic(SyntheticConfig(rows=2000, values=200))
    ids, *_ = together(log)
    rarest = []
    for field, column in zip(log.schema.fields, ids.T, strict=True):
        counts = np.bincount(column, minlength=field.size)
        assert (np.diff(counts[: field.other]) <= 0).all()
        assert counts[field.other] > 0
        rarest.append(counts[field.other - 1])
    assert min(rarest) == 10
